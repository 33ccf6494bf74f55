"""The attacker's own models: differently seeded, and each at its own stage of training (Eq. 12-14)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..core import InputError, StorageError
from ..data import Samples
from ..models import Way, copied, feasible, stacked
from ..seeds import generator
from ..storage import write_bytes
from .batches import steps_per_epoch
from .code_path import CodePath
from .fit import fit_on_features, train
from .frozen import frozen_samples, trainable
from .learner import Learner, in_training, layer_noise, losses_of
from .recipe import Recipe
from .source import Source

ROLE = "surrogate"
"""Role of the members: their seeds are never a victim's."""

VALIDATION_ROLE = "held-out surrogate"
"""Role of validation models: their seeds are neither a victim's nor a member's."""


@final
class Ensemble:
    """K surrogate models in training.

    Args:
        source: where models start.
        recipe: the victim's recipe, which the attacker knows (§3.2).
        learners: the members.
        total_steps: steps of the whole recipe. A member that has taken them is trained like a victim.
        seed: of the members' starts.
        path: how members are computed.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        learners: list[Learner],
        total_steps: int,
        seed: int,
        path: CodePath | None = None,
    ) -> None:
        self.source = source
        self.recipe = recipe
        self.learners = learners
        self.total_steps = total_steps
        self.seed = seed
        self.path = path or CodePath()
        self._restarts = 0
        self._joined: nn.Module | None = None

    @classmethod
    def pretrained(
        cls,
        source: Source,
        recipe: Recipe,
        clean: Samples,
        *,
        members: int,
        staggered: bool,
        seed: int,
        frozen_features: Samples | None = None,
    ) -> Ensemble:
        """Members pre-trained on the clean set (Algorithm 1, line 1).

        Args:
            source: where models start.
            recipe: the victim's recipe.
            clean: the clean training set.
            members: K.
            staggered: whether member k is trained for k/K of the recipe's steps (MetaPoison's staggering) instead of all of them.
            seed: of starts and batch orders.
            frozen_features: what the frozen stages make of the clean set; None where it is not computed yet.

        Raises:
            InputError: there are no members, or the recipe does not fit the model.
        """
        if members < 1:
            raise InputError(f"an ensemble of {members} models cannot craft anything; use at least 1.")
        original, recipe = recipe, recipe.for_labels(clean.labels)
        steps = recipe.epochs * steps_per_epoch(len(clean), recipe.batch_size)
        learners = []
        for member in range(members):
            model = source.model(recipe, ROLE, seed * members + member)
            learner = Learner(model, recipe, steps)
            frozen_features = frozen_features or frozen_samples(model, clean, recipe.shared_stages)
            with layer_noise(ROLE, seed * members + member):
                shuffle = generator(ROLE, "order", seed * members + member)
                train(learner, frozen_features, [shuffle], round(member * steps / members) if staggered else steps)
            learners.append(learner)
        return cls(
            source, original, learners, steps, seed
        )  # weights of classes are worked out anew for the poisoned set

    def save(self, path: Path) -> None:
        """Write the members' weights, optimisers and places in the recipe as safetensors, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        for member, learner in enumerate(self.learners):
            for name, value in learner.model.state_dict().items():
                tensors[f"{member}/model/{name}"] = value.detach().cpu().contiguous().clone()
            for index, state in learner.optimiser.state_dict()["state"].items():
                tensors |= {
                    f"{member}/optimiser/{index}/{name}": value.cpu().contiguous().clone()
                    for name, value in state.items()
                    if isinstance(value, Tensor)
                }
        facts = {"taken": [learner.taken for learner in self.learners], "steps": self.total_steps, "seed": self.seed}
        write_bytes(path, save(tensors, metadata={"ensemble": json.dumps(facts)}))

    @classmethod
    def load(cls, path: Path, source: Source, recipe: Recipe) -> Ensemble:
        """The ensemble that `save` wrote, ready to train on.

        Args:
            path: the file.
            source: where its members started.
            recipe: what they were trained by.

        Raises:
            StorageError: the file is missing, damaged, or of other models.
        """
        try:
            with safe_open(path, framework="pt") as archive:
                facts = json.loads((archive.metadata() or {})["ensemble"])
                tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - not a mapping
            members, learners = len(facts["taken"]), []
            for member, taken in enumerate(facts["taken"]):
                learner = Learner(source.model(recipe, ROLE, facts["seed"] * members + member), recipe, facts["steps"])
                learner.model.load_state_dict(_under(tensors, f"{member}/model/"))
                state: dict[int, dict[str, Tensor]] = {}
                for name, value in _under(tensors, f"{member}/optimiser/").items():
                    index, _, entry = name.partition("/")
                    state.setdefault(int(index), {})[entry] = value
                groups = learner.optimiser.state_dict()["param_groups"]
                learner.optimiser.load_state_dict({"state": state, "param_groups": groups})
                learner.taken = taken
                learners.append(learner)
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError):
            raise StorageError(f"{path} is missing, damaged or of other models; delete it and run again.") from None
        return cls(source, recipe, learners, facts["steps"], facts["seed"])

    def copy(self) -> Ensemble:
        """An independent copy: crafting trains the members further, and each target starts from the same ones."""
        learners = copied(self.learners, [learner.model for learner in self.learners])
        return Ensemble(self.source, self.recipe, learners, self.total_steps, self.seed, self.path)

    @property
    def joined(self) -> nn.Module:
        """All members as one model; see `models.stacked`."""
        if self._joined is None:
            models = [learner.model for learner in self.learners]
            self._joined = stacked(models, self.recipe.shared_stages, self.way).eval()
        return self._joined

    @property
    def way(self) -> Way:
        """How members are computed: as the path says, where their network allows it."""
        return feasible([learner.model for learner in self.learners], self.path.members)

    @property
    def groups(self) -> list[tuple[nn.Module, int]]:
        """The models to compute one after another, and how many members each of them is."""
        if self.way == "loop":
            return [(learner.model, 1) for learner in self.learners]
        return [(self.joined, len(self.learners))]

    def step(self, frozen_features: Float[Tensor, "b *features"], labels: Int[Tensor, "b"]) -> list[float]:
        """One training step of every member on the same batch; returns their mean cross-entropies (see `Learner.step`)."""
        if self.way == "loop" or len(labels) < 2:
            return [learner.step(frozen_features, labels) for learner in self.learners]
        count, joined = len(self.learners), self.joined
        rows = frozen_features.repeat(count, *[1] * (frozen_features.dim() - 1))
        with in_training(joined, self.recipe):
            losses = losses_of(joined, rows, labels.repeat(count), self.recipe, count)
        parameters = trainable(joined)
        # A member's parameter is a view of the stack's, and is known by its address.
        by_address = {
            view.data_ptr(): gradient
            for parameter, gradients in zip(parameters, _gradients(losses, parameters), strict=True)
            for view, gradient in zip(parameter.detach(), gradients, strict=True)
        }
        for learner in self.learners:
            learner.follow([by_address[parameter.data_ptr()] for parameter in trainable(learner.model)])
        return losses.detach().tolist()

    def follow(self, recipe: Recipe) -> None:
        """Train on by another recipe of the same frozen stages, with fresh optimisers."""
        self.recipe = recipe
        for learner in self.learners:
            learner.recipe = recipe
            learner.optimiser = recipe.build_optimiser(learner.model)

    def learn_from(self, labels: Int[Tensor, "n"]) -> None:
        """Train on a set with these labels from now on: balanced class weights are worked out for it."""
        self.recipe = self.recipe.for_labels(labels)
        for learner in self.learners:
            learner.recipe = self.recipe

    def validation_models(self, frozen_features: Samples, count: int) -> list[nn.Module]:
        """Models other than the members, trained by the recipe from seeds of their own.

        Args:
            frozen_features: what the frozen stages make of their training set.
            count: number of models.

        Raises:
            InputError: training diverged.
        """
        seeds = [self.seed * count + index for index in range(count)]
        return fit_on_features(self.source, self.recipe, frozen_features, VALIDATION_ROLE, seeds)

    def restart_finished(self) -> None:
        """Begin anew, from a fresh seed, every member that has been through the whole recipe (MetaPoison)."""
        for index, learner in enumerate(self.learners):
            if learner.taken >= self.total_steps:
                self._restarts += 1
                seed = (self.seed + 1) * 1_000_003 + self._restarts
                self.learners[index] = Learner(
                    self.source.model(self.recipe, ROLE, seed), self.recipe, self.total_steps
                )
                self._joined = None


def _gradients(losses: Tensor, parameters: Sequence[Tensor]) -> list[Sequence[Tensor | None]]:
    """For each parameter of a stack, each member's gradient."""
    stacked_gradients = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
    return [[None] * len(losses) if gradient is None else list(gradient) for gradient in stacked_gradients]


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
