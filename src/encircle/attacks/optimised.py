"""Attacks that move poison step by step inside its ball: their start, their steps, and the choice among attempts."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from ..core import CONFIGURED
from ..threat import Budget, Legal
from ..training.frozen import frozen_features_of
from ..training.learner import layer_noise
from .base import Attack, Bases, Problem, Watch
from .bases import Order, OtherShare, choose_bases
from .objective import Distance, Objective
from .parameter_vectors import unit_scaled

StepRule = Literal["raw", "normalised", "sign", "adam"]

BETA1, BETA2 = 0.9, 0.999
"""Adam's decay rates of the first and second moment (Kingma & Ba 2015)."""

VALIDATION_SURROGATES = 2
"""Held-out surrogates that attempts are compared by. A single one would be as much chance as a single victim."""


def stepped(delta: Float[Tensor, "p *shape"], rule: StepRule) -> Float[Tensor, "p *shape"]:
    """The step rule s(δ): δ itself, δ over each sample's largest magnitude, or its sign (also for Adam).

    Examples:
        >>> stepped(torch.tensor([[0.5, -2.0]]), "normalised")
        tensor([[ 0.2500, -1.0000]])
        >>> stepped(torch.tensor([[0.5, -2.0]]), "sign")
        tensor([[ 1., -1.]])
    """
    if rule == "raw":
        return delta
    if rule in {"sign", "adam"}:
        return delta.sign()
    return unit_scaled(delta)


@dataclass(frozen=True, config=CONFIGURED)
class OptimisedAttack(Attack):
    """The settings that such attacks share.

    Args:
        models: K, the number of surrogates.
        epochs: E, passes over the poisoned set.
        gamma: γ, above 0. For `raw` a factor on δ; otherwise the largest move of an entry, as a share of the budget's radius.
        step: the step rule. `"adam"` gives the signs of δ to Adam (Geiping et al., ICLR 2021).
        decay: lower γ linearly to a tenth over the crafting.
        momentum: factor on the last δ, in [0, 1), after each δ is brought to unit scale.
        distance: D of the objective.
        poison_weight: λ1, pulls poison towards the target.
        label_weight: λ2.
        hinge: cross-entropy at the target up to this value costs nothing. None is the paper's plain label term.
        target_share: share of the target among the bases, in [0, 1].
        other_share: share of samples of other classes among the bases, in [0, 1]; each keeps its own label. In the paper all bases are of the target's
            class. `"balanced"` takes as many of each class as the clean set has: poison of a single class makes it more frequent, which alone can cost
            accuracy.
        bases: which samples come first. `"nearest"` to the target is the paper's. `"aligned"`: those whose training gradient is aligned with L_adv's.
            `"influential"`: those that would bend the explanation of a model trained to the end. `"metagradient"`: those that bend it in trainings
            made for this, some of them many times; 70 trainings, and as many for each control made of the same bases.
        repeats: how often a base is used before the next one in order is, each copy with its own start. The paper draws without replacement.
        dirty_label: label bases of other classes as the target's class. The attack is then no clean-label attack, its titles say so, and whoever looks
            at labels can find it.
        softplus: L_adv takes every ReLU as a softplus of this sharpness β, so that its slope in θ accounts for units that switch on and off
            (Dombrowski et al., NeurIPS 2019, bend inputs that way). None leaves networks as they are.
        attempts: how often the poison is crafted, each time from another start. The attempt that bends held-out surrogates most is taken; no victim
            takes part.
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
    target_share: float = Field(default=0.1, ge=0, le=1)
    other_share: OtherShare = 0.0
    bases: Order = "nearest"
    repeats: int = Field(default=1, ge=1)
    dirty_label: bool = False
    softplus: float | None = Field(default=None, gt=0)
    attempts: int = Field(default=1, ge=1)
    needs_gradient: ClassVar[bool] = True

    @model_validator(mode="after")
    def _shares_add_up(self) -> OptimisedAttack:
        if self.other_share != "balanced" and self.target_share + self.other_share > 1:
            raise ValueError(
                "target_share and other_share are shares of the same bases; together they must not exceed 1"
            )
        return self

    @model_validator(mode="after")
    def _dirty_labels_exist(self) -> OptimisedAttack:
        if self.dirty_label and not self.other_share:
            raise ValueError("dirty_label is about samples of other classes; set other_share too")
        if self.dirty_label and self.other_share == "balanced":
            raise ValueError(
                "with dirty_label all poison is of one class, and nothing is balanced; set other_share to a number"
            )
        return self

    @property
    @abstractmethod
    def ensemble(self) -> tuple[int, bool]:
        """The surrogates it asks for: K, and whether they are staggered."""

    @abstractmethod
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
        """Poison from where it starts to where it ends."""

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
                # Every copy has its own start inside the ball: identical copies would receive identical steps.
                noise = torch.rand(bases.inputs.shape, generator=random, dtype=bases.inputs.dtype) * 2 - 1
                start = bases.inputs + budget.entry_radius(bases.inputs) * noise
                poison = budget.project(start, bases.inputs, problem.legal.relaxed())
                attempt_watch = Watch(progress=partial(_advanced, watch, attempt, self.attempts))
                poison = self._iterate(problem, budget, bases, objective, poison, random, attempt_watch)
                loss, columns = 0.0, dict[str, Any]()
                if self.attempts > 1:
                    loss = self._held_out_loss(problem, budget, bases, objective, poison)
                    columns = {"attempt": attempt, "held_out": loss}
                tried.append((loss, poison, [note | columns for note in attempt_watch.history]))
        _, best, notes = min(tried, key=lambda attempt: attempt[0])
        watch.history += notes
        return best, bases

    @final
    def _held_out_loss(
        self, problem: Problem, budget: Budget, bases: Bases, objective: Objective, poison: Tensor
    ) -> float:
        """Mean L_adv of surrogates that took no part in the crafting and learnt from the projected poison."""
        ensemble = problem.ensemble(*self.ensemble)  # by the victims' recipe, whatever the crafting followed
        frozen, trunk = ensemble.recipe.shared_stages, ensemble.learners[0].model
        projected = budget.project(poison.cpu(), bases.inputs, problem.legal)
        clean = problem.clean_features(trunk, frozen)
        poison_features = frozen_features_of(trunk, projected, frozen)
        mixed = clean.with_poison(poison_features, bases.labels, bases.overwritten(budget))
        surrogates = ensemble.validation_models(mixed, VALIDATION_SURROGATES)
        plain = replace(objective, softplus=None)
        return sum(float(plain(surrogate)[0].detach()) for surrogate in surrogates) / len(surrogates)


@final
class Motion:
    """Moves the poison of one crafting along δ: the step rule with its memory, and the projection into the ball.

    Args:
        attack: gives the settings.
        budget: gives the ball.
        base: the bases `(p, *shape)`.
        target: T, which λ1 pulls towards.
        legal: legal values, before they are rounded.
    """

    def __init__(self, attack: OptimisedAttack, budget: Budget, base: Tensor, target: Tensor, legal: Legal) -> None:
        self._attack, self._budget, self._base, self._target, self._legal = attack, budget, base, target, legal
        self._velocity, self._radius = torch.zeros_like(base), budget.entry_radius(base)
        self._adam = _Adam(base) if attack.step == "adam" else None

    def move(
        self,
        poison: Float[Tensor, "p *shape"],
        chosen: Int[Tensor, "c"],
        delta: Float[Tensor, "c *shape"],
        done: float,
    ) -> None:
        """Move the chosen samples in place.

        Args:
            poison: all samples.
            chosen: indices of samples to move.
            delta: δ of the chosen samples.
            done: share of the crafting that is over, in [0, 1], for the decay.
        """
        attack = self._attack
        if attack.poison_weight:
            delta = delta - attack.poison_weight * 2 * (poison[chosen] - self._target)
        if attack.momentum:
            delta = self._velocity[chosen] = attack.momentum * self._velocity[chosen] + stepped(delta, "normalised")
        size = attack.gamma * (1 - 0.9 * done if attack.decay else 1.0)
        step = stepped(delta, attack.step)
        if self._adam is not None:
            step = self._adam.smoothed(chosen, step)
        step = step * (size if attack.step == "raw" else size * self._radius)
        poison[chosen] = self._budget.project(poison[chosen] + step, self._base[chosen], self._legal)


def _advanced(watch: Watch, attempt: int, attempts: int, done: int, planned: int) -> None:
    """Report the progress of all attempts, given that of one."""
    watch.progress(attempt * planned + done, attempts * planned)


@final
class _Adam:
    """Adam's moments of each poison sample's steps. A sample that a mini-batch leaves out keeps its moments."""

    def __init__(self, poison: Tensor) -> None:
        self._first, self._second = torch.zeros_like(poison), torch.zeros_like(poison)
        self._taken = torch.zeros(len(poison), *[1] * (poison.dim() - 1), dtype=poison.dtype, device=poison.device)

    def smoothed(self, chosen: Tensor, step: Tensor) -> Tensor:
        """Adam's update for the chosen samples, in units of its learning rate."""
        self._taken[chosen] += 1
        first = self._first[chosen] = BETA1 * self._first[chosen] + (1 - BETA1) * step
        second = self._second[chosen] = BETA2 * self._second[chosen] + (1 - BETA2) * step**2
        taken = self._taken[chosen]
        return first / (1 - BETA1**taken) / ((second / (1 - BETA2**taken)).sqrt() + 1e-8)
