"""Attacks that craft while surrogate models learn from the poison: Algorithm 1's loop, around any direction in which poison may move."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED
from ..threat import Budget
from ..training import Ensemble, Recipe
from ..training.augmentation import flipped_and_shifted
from ..training.code_path import trainable
from ..training.fit import Learner, batches, before, hidden_samples, layer_noise, read_ahead, steps_per_epoch
from .base import Attack, Bases, Problem, Watch
from .bases import CHUNK, Order, choose_bases
from .objective import Distance, Objective

StepRule = Literal["raw", "normalised", "sign", "adam"]

FIRST, SECOND = 0.9, 0.999
"""How much of the last moments Adam keeps (Kingma & Ba 2015)."""


JUDGES = 2
"""Held-out surrogates that attempts are compared by: one alone would be as much chance as one victim."""


def stepped(delta: Float[Tensor, "p *shape"], rule: StepRule) -> Float[Tensor, "p *shape"]:
    """The step rule s(δ): δ itself, δ over each sample's largest magnitude, or its sign (which is what Adam is then given)."""
    if rule == "raw":
        return delta
    if rule in {"sign", "adam"}:
        return delta.sign()
    largest = delta.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(delta.dtype).tiny)
    return delta / largest.reshape(-1, *[1] * (delta.dim() - 1))


def weighed(
    shares: Float[Tensor, "members p *hidden"], recipe: Recipe, labels: Int[Tensor, "p"]
) -> Float[Tensor, "members p *hidden"]:
    """Gradients at samples, each times its class's weight in L_train."""
    weights = recipe.weights_of(labels)
    return shares if weights is None else shares * weights.reshape(-1, *[1] * (shares.dim() - 2)).to(shares)


@final
@plain_dataclass(frozen=True)
class Moment:
    """One iteration, as a direction may look at it; samples are as the frozen stages see them.

    Attributes:
        ensemble: all surrogates.
        objective: L_adv.
        hidden: the poison that is to be moved.
        labels: its labels.
        clean: the clean part of the mini-batch.
        classes: its labels.
        sizes: how many clean and how many poison samples the whole training set has.
        compare: whether what takes longer may be noted too, once an epoch.
        memory: what a direction wants to remember of a surrogate until the next iteration; empty at first.
    """

    ensemble: Ensemble
    objective: Objective
    hidden: Float[Tensor, "p *hidden"]
    labels: Int[Tensor, "p"]
    clean: Float[Tensor, "b *seen"]
    classes: Int[Tensor, "b"]
    sizes: tuple[int, int]
    compare: bool
    memory: dict[Learner, list[Tensor]]

    def group(self, model: nn.Module, members: int) -> list[Learner]:
        """The surrogates that a group of the ensemble consists of."""
        learners = self.ensemble.learners
        return learners if members == len(learners) else [one for one in learners if one.model is model]


@dataclass(frozen=True, config=CONFIGURED)
class SurrogateAttack(Attack):
    """The settings and the loop that such attacks share.

    Args:
        models: K, the number of surrogates.
        epochs: E, passes over the poisoned set.
        gamma: γ. For `raw` a factor on δ; otherwise the largest move of an entry, as a share of how far one may go.
        step: the step rule. `"adam"` gives the signs of δ to Adam (Geiping et al., ICLR 2021).
        decay: lower γ linearly to a tenth over the crafting.
        momentum: share of the last δ that is kept (after each is brought to unit scale).
        distance: D of the objective.
        poison_weight: λ1, pulls poison towards the target.
        label_weight: λ2.
        hinge: cross-entropy at the target up to here costs nothing; None is the paper's plain label term.
        poison_batch: δ covers the poison of the current mini-batch, or all of it.
        staggered: models start at different stages of training; otherwise all are pre-trained to the end.
        restart: models that reach the end of the recipe begin anew from a fresh seed.
        target_share: share of the target among the bases.
        other_share: share of samples of other classes among them, each keeping its own label (not in the paper, whose bases are of the target's class).
        bases: which samples are taken first: those nearest to the target, or (not in the paper) those whose training gradient is aligned with L_adv's, or
            those that would bend the explanation of a model trained to the end.
        repeats: how often each of them is used before the next one in order is, each copy with its own start (not in the paper, which draws without
            replacement).
        dirty_label: those of other classes are labelled as the target's class. The attack is no clean-label attack any more, its titles say so, and whoever
            looks at labels can find it.
        softplus: L_adv sees every ReLU as a softplus of this sharpness β, so that its slope in θ knows what a map does when units switch on and off
            (Dombrowski et al., NeurIPS 2019, bend inputs that way); None leaves networks as they are.
        augmented: δ is taken at copies of the poison that are mirrored and shifted at random, anew in every iteration, and brought back to where each pixel
            came from (Geiping et al.); where the recipe augments, that is so anyway. Images only.
        attempts: how often the poison is crafted, each time from another start; what bends held-out surrogates most is kept, and no victim is asked.
    """

    models: int = Field(default=4, ge=1)
    epochs: int = Field(default=8, ge=1)
    gamma: float = Field(default=0.1, gt=0)
    step: StepRule = "sign"
    decay: bool = True
    momentum: float = Field(default=0.0, ge=0, lt=1)
    distance: Distance = "cosine"
    poison_weight: float = Field(default=0.0, ge=0)
    label_weight: float = Field(default=0.1, ge=0)
    hinge: float | None = Field(default=0.1, ge=0)
    poison_batch: Literal["batch", "all"] = "all"
    staggered: bool = True
    restart: bool = True
    target_share: float = Field(default=0.1, ge=0, le=1)
    other_share: float = Field(default=0.0, ge=0, le=1)
    bases: Order = "nearest"
    repeats: int = Field(default=1, ge=1)
    dirty_label: bool = False
    softplus: float | None = Field(default=None, gt=0)
    augmented: bool = False
    attempts: int = Field(default=1, ge=1)
    needs_gradient: ClassVar[bool] = True

    @model_validator(mode="after")
    def _shares_of_a_whole(self) -> SurrogateAttack:
        if self.target_share + self.other_share > 1:
            raise ValueError(
                "target_share and other_share are shares of the same bases; together they must not exceed 1"
            )
        return self

    @model_validator(mode="after")
    def _something_is_dirty(self) -> SurrogateAttack:
        if self.dirty_label and not self.other_share:
            raise ValueError("dirty_label is about samples of other classes; set other_share too")
        return self

    @model_validator(mode="after")
    def _restarts_make_sense(self) -> SurrogateAttack:
        if self.restart and not self.staggered:
            raise ValueError("restart would begin anew all models at once, as none is staggered; set restart: false")
        return self

    @property
    def ensemble(self) -> tuple[int, bool]:
        """K models, staggered or not."""
        return self.models, self.staggered

    def _surrogates(self, problem: Problem) -> Ensemble:
        """The models to craft with, which learn from the poison meanwhile."""
        return problem.ensemble(*self.ensemble)

    @abstractmethod
    def _shares(
        self, moment: Moment, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *hidden"], list[dict[str, float]]]:
        """What each member of a group of the ensemble adds to δ, and what there is to note of each.

        Args:
            moment: the iteration.
            model: the group as one model (`Ensemble.groups`).
            members: how many it is.
            attack_gradient: ∇_θ L_adv for each trainable parameter of `model`.
        """

    @final
    def _craft(
        self, problem: Problem, budget: Budget, count: int, random: torch.Generator, watch: Watch
    ) -> tuple[Tensor, Bases]:
        bases = choose_bases(
            problem,
            budget,
            count,
            self.target_share,
            self.other_share,
            self.bases,
            self.dirty_label,
            self.repeats,
        )
        objective = Objective(
            problem.explainer,
            problem.target,
            problem.label,
            problem.desired,
            self.distance,
            self.label_weight,
            self.hinge,
            self.softplus,
        )
        tried: list[tuple[float, Tensor, list[dict[str, Any]]]] = []
        with layer_noise("crafting", random.initial_seed()):
            for attempt in range(self.attempts):
                ensemble = self._surrogates(problem)
                # Every copy has its own start inside the ball: identical copies would receive identical steps.
                noise = torch.rand(bases.inputs.shape, generator=random, dtype=bases.inputs.dtype) * 2 - 1
                start = bases.inputs + budget.entry_radius(bases.inputs) * noise
                poison = budget.project(start, bases.inputs, problem.legal.relaxed())
                mine = Watch(progress=partial(_advanced, watch, attempt, self.attempts))
                poison = self._iterate(problem, budget, bases, ensemble, objective, poison, random, mine)
                left, told = 0.0, dict[str, Any]()
                if self.attempts > 1:
                    left = self._left(problem, budget, bases, objective, poison)
                    told = {"attempt": attempt, "held_out": left}
                tried.append((left, poison, [note | told for note in mine.history]))
        _, kept, notes = min(tried, key=lambda each: each[0])
        watch.history += notes
        return kept, bases

    @final
    def _left(self, problem: Problem, budget: Budget, bases: Bases, objective: Objective, poison: Tensor) -> float:
        """Mean L_adv of surrogates that took no part in the crafting and learnt from the poison as it would be handed in."""
        ensemble = problem.ensemble(*self.ensemble)  # by the victims' recipe, whatever the crafting followed
        device, frozen, trunk = problem.target.device, ensemble.recipe.frozen_stages, ensemble.learners[0].model
        handed = budget.project(poison.cpu(), bases.inputs, problem.legal)
        overwritten = bases.rows if budget.mode == "replace" else torch.full_like(bases.rows, -1)
        hidden = problem.hidden or hidden_samples(trunk, problem.clean, frozen)
        with torch.no_grad():
            seen = torch.cat([before(trunk, rows.to(device), frozen) for rows in handed.split(CHUNK)])
        judges = ensemble.held_out(hidden.with_poison(seen, bases.labels, overwritten), JUDGES)
        plain = replace(objective, softplus=None)
        return sum(float(plain(judge)[0].detach()) for judge in judges) / len(judges)

    @final
    def _iterate(
        self,
        problem: Problem,
        budget: Budget,
        bases: Bases,
        ensemble: Ensemble,
        objective: Objective,
        poison: Tensor,
        random: torch.Generator,
        watch: Watch,
    ) -> Tensor:
        """The loop of Algorithm 1."""
        device, frozen, legal = problem.target.device, ensemble.recipe.frozen_stages, problem.legal.relaxed()
        trunk = ensemble.learners[0].model  # with frozen stages, all members share it
        overwritten = bases.rows if budget.mode == "replace" else torch.full_like(bases.rows, -1)
        mixed = problem.clean.with_poison(poison, bases.labels, overwritten)
        ensemble.learn_from(mixed.labels)
        clean = problem.hidden or hidden_samples(trunk, problem.clean, frozen)
        poison, base, wanted = poison.to(device), bases.inputs.to(device), bases.labels.to(device)
        velocity, radius = torch.zeros_like(poison), budget.entry_radius(poison)
        adam = _Adam(poison) if self.step == "adam" else None
        memory: dict[Learner, list[Tensor]] = {}
        size = ensemble.recipe.batch_size
        planned = self.epochs * steps_per_epoch(len(mixed), size)
        iteration = 0
        for _ in range(self.epochs):
            order = [(rows, mixed.source[rows]) for rows in batches(len(mixed), size, random)]
            clean_rows = [rows[source < 0] for rows, source in order]
            poison_rows = [source[source >= 0] for _, source in order]
            parts = zip(clean_rows, poison_rows, read_ahead(clean, clean_rows), strict=True)
            for place, (outside, inside, seen) in enumerate(parts):
                chosen = inside if self.poison_batch == "batch" else torch.arange(len(poison))
                if len(chosen):
                    delta, notes = self._direction(
                        ensemble,
                        objective,
                        poison[chosen],
                        wanted[chosen],
                        clean=(seen.to(device), problem.clean.labels[outside].to(device)),
                        sizes=(len(mixed) - len(poison), len(poison)),
                        compare=place == 0,
                        memory=memory,
                    )
                    if self.poison_weight:
                        delta = delta - self.poison_weight * 2 * (poison[chosen] - problem.target)
                    if self.momentum:
                        delta = velocity[chosen] = self.momentum * velocity[chosen] + stepped(delta, "normalised")
                    size_now = self.gamma * (1 - 0.9 * iteration / planned if self.decay else 1.0)
                    move = stepped(delta, self.step)
                    if adam is not None:
                        move = adam.smoothed(chosen, move)
                    move = move * (size_now if self.step == "raw" else size_now * radius)
                    poison[chosen] = budget.project(poison[chosen] + move, base[chosen], legal)
                else:
                    notes = [{} for _ in ensemble.learners]
                with torch.no_grad():
                    mine = before(trunk, poison[inside], frozen)
                hidden = torch.cat([seen.to(device), mine])
                labels = torch.cat([problem.clean.labels[outside].to(device), wanted[inside]])
                for member, (lower, note) in enumerate(zip(ensemble.step(hidden, labels), notes, strict=True)):
                    watch.history.append(
                        {
                            "iteration": iteration,
                            "epoch": iteration * self.epochs / planned,
                            "member": member,
                            **note,
                            "lower": lower,
                        }
                    )
                if self.restart:
                    ensemble.restart_finished()
                iteration += 1
                watch.progress(iteration, planned)
        return poison

    @final
    def _direction(
        self,
        ensemble: Ensemble,
        objective: Objective,
        poison: Float[Tensor, "p *shape"],
        labels: Int[Tensor, "p"],
        *,
        clean: tuple[Tensor, Tensor],
        sizes: tuple[int, int],
        compare: bool,
        memory: dict[Learner, list[Tensor]],
    ) -> tuple[Float[Tensor, "p *shape"], list[dict[str, float]]]:
        """δ of Eq. 13, averaged over the models, and what there is to note about each of them.

        With frozen stages the differences are averaged in the space that all models share, and brought back to the
        input by one backward pass through the shared stages, which is the same by linearity; so they are through augmentation.
        """
        frozen, count = ensemble.recipe.frozen_stages, len(ensemble.learners)
        moved = self.augmented or ensemble.recipe.augmentation is not None
        leaf = poison.detach().requires_grad_(moved or frozen > 0)
        hidden = before(ensemble.learners[0].model, flipped_and_shifted(leaf) if moved else leaf, frozen)
        upper, far, entropy = objective(ensemble.joined, count)
        learnt = [trainable(model) for model, _ in ensemble.groups]
        flat = iter(torch.autograd.grad(upper.sum(), list(chain(*learnt)), materialize_grads=True))
        moment = Moment(ensemble, objective, hidden.detach(), labels, *clean, sizes, compare, memory)
        total, own = torch.zeros_like(hidden), list[dict[str, float]]()
        for (model, members), parameters in zip(ensemble.groups, learnt, strict=True):
            gradient = list(islice(flat, len(parameters)))
            shares, noted = self._shares(moment, model, members, gradient)
            total += shares.sum(dim=0) / count
            own += noted
        seen = torch.stack([upper, far, entropy], dim=1).tolist()
        notes = [dict(zip(("upper", "distance", "label"), values, strict=True)) for values in seen]
        notes = [note | more for note, more in zip(notes, own, strict=True)]
        if not hidden.requires_grad:
            return total, notes
        return torch.autograd.grad(hidden, leaf, total)[0], notes


def _advanced(watch: Watch, attempt: int, attempts: int, done: int, planned: int) -> None:
    """Tell how far all attempts are from how far one of them is."""
    watch.progress(attempt * planned + done, attempts * planned)


@final
class _Adam:
    """Moments of each poison sample's steps; a sample that a mini-batch leaves out keeps its own."""

    def __init__(self, poison: Tensor) -> None:
        self._first, self._second = torch.zeros_like(poison), torch.zeros_like(poison)
        self._taken = torch.zeros(len(poison), *[1] * (poison.dim() - 1), dtype=poison.dtype, device=poison.device)

    def smoothed(self, chosen: Tensor, step: Tensor) -> Tensor:
        """Adam's update for the chosen samples, in units of its learning rate."""
        self._taken[chosen] += 1
        first = self._first[chosen] = FIRST * self._first[chosen] + (1 - FIRST) * step
        second = self._second[chosen] = SECOND * self._second[chosen] + (1 - SECOND) * step**2
        taken = self._taken[chosen]
        return first / (1 - FIRST**taken) / ((second / (1 - SECOND**taken)).sqrt() + 1e-8)
