"""Attacks that craft while surrogate models learn from the poison: Algorithm 1's loop around any direction δ."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from itertools import chain, islice
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED
from ..threat import Budget
from ..training import Ensemble
from ..training.augmentation import flipped_and_shifted
from ..training.batches import batches, read_ahead, steps_per_epoch
from ..training.frozen import frozen_forward, trainable
from ..training.learner import Learner
from .base import Bases, Problem, Watch
from .objective import Objective
from .optimised import Motion, OptimisedAttack


@final
@plain_dataclass(frozen=True)
class Iteration:
    """What a direction needs to know of one iteration. Samples are the outputs of the frozen stages.

    Attributes:
        ensemble: all surrogates.
        objective: L_adv.
        frozen_features: the poison to move.
        labels: of the poison.
        clean: the clean part of the mini-batch.
        classes: labels of the clean part.
        sizes: numbers of clean and of poison samples in the training set.
        compare: whether costly notes are asked for, too; once an epoch.
        memory: tensors that a direction stores for a surrogate until the next iteration; empty at first.
    """

    ensemble: Ensemble
    objective: Objective
    frozen_features: Float[Tensor, "p *features"]
    labels: Int[Tensor, "p"]
    clean: Float[Tensor, "b *clean"]
    classes: Int[Tensor, "b"]
    sizes: tuple[int, int]
    compare: bool
    memory: dict[Learner, list[Tensor]]

    def group(self, model: nn.Module, members: int) -> list[Learner]:
        """The surrogates in a group of the ensemble: the group's model, and how many models it is."""
        learners = self.ensemble.learners
        return learners if members == len(learners) else [learner for learner in learners if learner.model is model]

    def repeated(self, members: int) -> tuple[Float[Tensor, "rows *features"], Int[Tensor, "rows"]]:
        """The poison and its labels, once for each member of a group, one after another."""
        return self.frozen_features.repeat(members, *[1] * (self.frozen_features.dim() - 1)), self.labels.repeat(
            members
        )

    def training_sample(
        self, poison: Float[Tensor, "s *features"], labels: Int[Tensor, "s"]
    ) -> tuple[Float[Tensor, "rows *features"], Int[Tensor, "rows"], Float[Tensor, "rows"]]:
        """A weighted sample of the training set: the clean mini-batch and some of the poison.

        Args:
            poison: some of the poison.
            labels: of that poison.

        Returns:
            Samples, labels, and weights with mean 1. Each part weighs what it weighs in the training set.
        """
        parts = [self.clean.reshape(-1, *poison.shape[1:]).to(poison), poison]
        counts = torch.cat(
            [
                part.new_full((len(part),), size / max(len(part), 1))
                for part, size in zip(parts, self.sizes, strict=True)
            ]
        )
        return torch.cat(parts), torch.cat([self.classes, labels]), counts / counts.mean()

    def class_weighted(
        self, slopes: Float[Tensor, "rows *features"], members: int
    ) -> Float[Tensor, "members p *features"]:
        """Slopes of losses of `repeated` poison, each times its class's weight in L_train."""
        shares = slopes.reshape(members, *self.frozen_features.shape)
        weights = self.ensemble.recipe.weights_of(self.labels)
        return shares if weights is None else shares * weights.reshape(-1, *[1] * (shares.dim() - 2)).to(shares)


@dataclass(frozen=True, config=CONFIGURED)
class SurrogateAttack(OptimisedAttack):
    """The settings and the loop that such attacks share.

    Args:
        poison_batch: δ covers the poison of the current mini-batch, or all of it.
        staggered: models start at different stages of training; otherwise all are pre-trained to the end.
        restart: models that reach the end of the recipe begin anew from a fresh seed.
        augmented: take δ at copies of the poison that are mirrored and shifted at random in every iteration, and bring it back to where each pixel came
            from (Geiping et al., ICLR 2021). Where the recipe augments, this is always done. Images only.
    """

    poison_batch: Literal["batch", "all"] = "all"
    staggered: bool = True
    restart: bool = True
    augmented: bool = False
    uses_attack_gradient: ClassVar[bool] = True  # whether δ depends on ∇_θ L_adv of the surrogates as they are

    @model_validator(mode="after")
    def _restarts_are_staggered(self) -> SurrogateAttack:
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
        self, iteration: Iteration, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *features"], list[dict[str, float]]]:
        """What each member of a group of the ensemble adds to δ, and notes on each member.

        Args:
            iteration: the iteration.
            model: the group as one model (`Ensemble.groups`).
            members: how many models it is.
            attack_gradient: ∇_θ L_adv for each trainable parameter of `model`; empty where `uses_attack_gradient` is False.
        """

    @final
    def _iterate(
        self,
        problem: Problem,
        budget: Budget,
        bases: Bases,
        objective: Objective,
        poison: Tensor,
        random: torch.Generator,
        watch: Watch,
    ) -> Tensor:
        """The loop of Algorithm 1."""
        ensemble = self._surrogates(problem)
        device, frozen = problem.target.device, ensemble.recipe.shared_stages
        trunk = ensemble.learners[0].model  # with frozen stages, all members share it
        mixed = problem.clean.with_poison(poison, bases.labels, bases.overwritten(budget))
        ensemble.learn_from(mixed.labels)
        clean = problem.clean_features(trunk, frozen)
        poison, labels = poison.to(device), bases.labels.to(device)
        motion = Motion(self, budget, bases.inputs.to(device), problem.target, problem.legal.relaxed())
        memory: dict[Learner, list[Tensor]] = {}
        size = ensemble.recipe.batch_size
        planned = self.epochs * steps_per_epoch(len(mixed), size)
        iteration = 0
        for _ in range(self.epochs):
            order = [(rows, mixed.source[rows]) for rows in batches(len(mixed), size, random)]
            clean_rows = [rows[source < 0] for rows, source in order]
            poison_rows = [source[source >= 0] for _, source in order]
            parts = zip(clean_rows, poison_rows, read_ahead(clean, clean_rows), strict=True)
            for step, (clean_row, poison_row, clean_inputs) in enumerate(parts):
                chosen = poison_row if self.poison_batch == "batch" else torch.arange(len(poison))
                clean_batch = clean_inputs.to(device), problem.clean.labels[clean_row].to(device)
                if len(chosen):
                    delta, notes = self._direction(
                        ensemble,
                        objective,
                        poison[chosen],
                        labels[chosen],
                        clean=clean_batch,
                        sizes=(len(mixed) - len(poison), len(poison)),
                        compare=step == 0,
                        memory=memory,
                    )
                    motion.move(poison, chosen, delta, iteration / planned)
                else:
                    notes = [{} for _ in ensemble.learners]
                with torch.no_grad():
                    poison_features = frozen_forward(trunk, poison[poison_row], frozen)
                batch = torch.cat([clean_batch[0], poison_features])
                losses = ensemble.step(batch, torch.cat([clean_batch[1], labels[poison_row]]))
                for member, (lower, note) in enumerate(zip(losses, notes, strict=True)):
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
        """δ of Eq. 13, averaged over the models, and notes on each of them.

        With frozen stages δ is averaged in the space that all models share. One backward pass through the shared stages, and through augmentation,
        brings it back to the input. By linearity that is the same.
        """
        frozen, count = ensemble.recipe.shared_stages, len(ensemble.learners)
        moved = self.augmented or ensemble.recipe.augmentation is not None
        leaf = poison.detach().requires_grad_(moved or frozen > 0)
        frozen_features = frozen_forward(
            ensemble.learners[0].model, flipped_and_shifted(leaf) if moved else leaf, frozen
        )
        upper, distance, entropy = objective(ensemble.joined, count)
        learnt = [trainable(model) for model, _ in ensemble.groups]
        flat = iter(
            torch.autograd.grad(upper.sum(), list(chain(*learnt)), materialize_grads=True)
            if self.uses_attack_gradient
            else ()
        )
        terms = torch.stack([upper, distance, entropy], dim=1).tolist()
        del upper, distance, entropy  # with their graph
        iteration = Iteration(ensemble, objective, frozen_features.detach(), labels, *clean, sizes, compare, memory)
        total, notes = torch.zeros_like(frozen_features), list[dict[str, float]]()
        for (model, members), parameters in zip(ensemble.groups, learnt, strict=True):
            gradient = list(islice(flat, len(parameters)))
            shares, group_notes = self._shares(iteration, model, members, gradient)
            total += shares.sum(dim=0) / count
            notes += group_notes
        columns = ("upper", "distance", "label")
        notes = [dict(zip(columns, values, strict=True)) | note for values, note in zip(terms, notes, strict=True)]
        if not frozen_features.requires_grad:
            return total, notes
        return torch.autograd.grad(frozen_features, leaf, total)[0], notes
