"""Controls: what an attack must beat to count as one."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from ..core import CONFIGURED
from ..threat import Budget
from .base import Attack, Bases, Problem, Watch
from .bases import Order, OtherShare, choose_bases


@final
@dataclass(frozen=True, config=CONFIGURED)
class NoPoison(Attack):
    """No poison at all."""

    kind: Literal["clean"] = Field(default="clean", kw_only=True)
    title = "no poison"
    about = (
        "No poison at all. Two clean models that differ only in their seed explain a sample a little differently; that difference is the "
        "seed null, and every effect is counted beyond it."
    )

    @property
    def uses_explainer(self) -> bool:
        """It needs none."""
        return False

    def _craft(
        self, problem: Problem, budget: Budget, count: int, random: torch.Generator, watch: Watch
    ) -> tuple[Tensor, Bases]:
        none = torch.zeros(0, dtype=torch.int64)
        empty = problem.target[:0].cpu()
        return empty, Bases(none, empty, none)


@dataclass(frozen=True, config=CONFIGURED)
class MadeOfBases(Attack):
    """A control that is made of the same bases as the attack beside it.

    Args:
        target_share: share of the target among the bases, as in the attack.
        other_share: share of samples of other classes among the bases, likewise.
        bases: which samples come first, likewise.
        repeats: how often a base is used before the next one, likewise.
        dirty_label: whether bases of other classes are labelled as the target's class, likewise.
    """

    target_share: float = Field(default=0.1, ge=0, le=1)
    other_share: OtherShare = 0.0
    bases: Order = "nearest"
    repeats: int = Field(default=1, ge=1)
    dirty_label: bool = False

    @property
    def uses_explainer(self) -> bool:
        """Only where bases are chosen by it."""
        return self.bases != "nearest"

    @abstractmethod
    def _moved(self, bases: Bases, budget: Budget, random: torch.Generator) -> Tensor:
        """The poison made of the bases."""

    @final
    def _craft(
        self, problem: Problem, budget: Budget, count: int, random: torch.Generator, watch: Watch
    ) -> tuple[Tensor, Bases]:
        shares = (self.target_share, self.other_share)
        bases = choose_bases(problem, budget, count, *shares, self.bases, self.dirty_label, self.repeats)
        return self._moved(bases, budget, random), bases


@final
@dataclass(frozen=True, config=CONFIGURED)
class BaseSamples(MadeOfBases):
    """The attack's base samples, unperturbed: the effect of merely repeating them."""

    kind: Literal["base"] = Field(default="base", kw_only=True)
    title = "unperturbed bases"
    about = "As many samples as the attack adds, but unchanged ones. Shows what mere duplication does."

    def _moved(self, bases: Bases, budget: Budget, random: torch.Generator) -> Tensor:
        return bases.inputs


@final
@dataclass(frozen=True, config=CONFIGURED)
class RandomNoise(MadeOfBases):
    """The attack's base samples, every entry moved as far as the budget allows, up or down at random."""

    kind: Literal["noise"] = Field(default="noise", kw_only=True)
    title = "random noise"
    about = "The same samples with random changes as large as the budget allows. Shows what any disturbance does."

    def _moved(self, bases: Bases, budget: Budget, random: torch.Generator) -> Tensor:
        signs = torch.randint(0, 2, bases.inputs.shape, generator=random) * 2 - 1
        return bases.inputs + budget.entry_radius(bases.inputs) * signs
