"""What the attacker may do: how many samples, how far each may move, and which values are legal (§3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from .core import CONFIGURED, InputError

_TOLERANCE = 1e-6
"""Slack when a budget is verified, for float32 rounding of x - base; far below one 8-bit level (0.0039)."""


@final
@dataclass(frozen=True, config=CONFIGURED)
class Budget:
    """How much poison and how far from its bases.

    Args:
        fraction: poison as a share of the clean training set, rounded down; give this or `count`.
        count: number of poison samples.
        epsilon: radius of the ball around the base sample, in units of the [0, 1] input (paper: 0.1).
        norm: `"linf"` (the paper's) or `"l2"`.
        mode: `"inject"` adds poison; `"replace"` overwrites the bases (poison made from the target itself is still added).

    Raises:
        ValueError: a value out of range, as pydantic's `ValidationError`.
    """

    fraction: float | None = Field(default=None, ge=0, lt=1)
    count: int | None = Field(default=None, ge=0)
    epsilon: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    norm: Literal["linf", "l2"] = "linf"
    mode: Literal["inject", "replace"] = "inject"

    @model_validator(mode="after")
    def _check_size(self) -> Budget:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give either fraction or count")
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError("an epsilon above 1 bounds nothing, as inputs lie in [0, 1]; lower it")
        return self

    def size(self, clean: int) -> int:
        """Number of poison samples for a clean training set of this size: ⌊fraction · clean⌋.

        Raises:
            InputError: as many as the clean set, or more.

        Example:
            >>> Budget(fraction=0.1).size(1234), Budget(count=5).size(1234)
            (123, 5)
        """
        if self.count is not None:
            if self.count >= clean:
                raise InputError(f"a count of {self.count} is not below the {clean} clean samples; lower it.")
            return self.count
        assert self.fraction is not None  # noqa: S101 - for the type checker; _check_size guarantees it
        return int(self.fraction * clean + 1e-9)  # 0.29 * 100 is 28.999...

    def entry_radius(self, samples: Float[Tensor, "n *shape"]) -> float:
        """How far every entry of a sample can move at once: epsilon, or under l2 epsilon over the root of their number.

        Example:
            >>> Budget(count=1, epsilon=0.1).entry_radius(torch.zeros(1, 3, 8, 8))
            0.1
            >>> round(Budget(count=1, epsilon=0.1, norm="l2").entry_radius(torch.zeros(1, 100)), 6)  # 0.1 / √100
            0.01
        """
        return self.epsilon if self.norm == "linf" else self.epsilon / math.sqrt(max(samples[0].numel(), 1))

    def movable(self, base: Float[Tensor, "n *shape"], legal: Legal) -> Bool[Tensor, "n *shape"]:
        """Which entries of the bases the budget lets change.

        All entries that may move are moved alike, as far as the ball reaches. A step of an 8-bit file, an integer or a category may lie further away
        than that. A change within the slack of `excess` counts as none.

        Args:
            base: base samples in [0, 1].
            legal: which values may be held.

        Example:
            >>> base = torch.tensor([[0.5, 0.5, 0.5]])
            >>> columns = {1: Column("immutable"), 2: Column("integer", step=0.25)}  # whole numbers that lie 0.25 apart
            >>> Budget(count=1, epsilon=0.1).movable(base, Legal(columns=columns))
            tensor([[ True, False, False]])
        """
        free = torch.ones_like(base, dtype=torch.bool)
        for position, column in (legal.columns or {}).items():
            free[:, position] = column.kind != "immutable"
        entries = max(int(free[:1].sum()), 1)
        radius = self.epsilon if self.norm == "linf" else self.epsilon / math.sqrt(entries)
        corners = (self.project(torch.where(free, base + side * radius, base), base, legal) for side in (1, -1))
        return torch.stack([(corner - base).abs() > _TOLERANCE for corner in corners]).any(dim=0)

    def project(
        self, samples: Float[Tensor, "n *shape"], base: Float[Tensor, "n *shape"], legal: Legal
    ) -> Float[Tensor, "n *shape"]:
        """The samples moved into the ball and into [0, 1], then made legal.

        Under linf they move to the nearest sample inside. Under l2 the shift from the base is scaled into the ball, then cut. They become legal by
        moving towards the base, which never leaves the ball; rounding to the nearest value could.

        Args:
            samples: candidates, any values.
            base: the base sample of each, in [0, 1].
            legal: which values may be held.

        Returns:
            Samples of the same shape that keep the budget.

        Example:
            >>> Budget(count=1, epsilon=0.1).project(torch.tensor([[0.9, 0.45, -1.0]]), torch.tensor([[0.5, 0.5, 0.0]]), Legal())
            tensor([[0.6000, 0.4500, 0.0000]])
        """
        shift = samples - base
        if self.norm == "linf":
            shift = shift.clamp(-self.epsilon, self.epsilon)
        else:
            norms = shift.flatten(1).norm(dim=1).clamp(min=1e-12)
            shift = shift * (self.epsilon / norms).clamp(max=1).reshape(-1, *[1] * (shift.dim() - 1))
        return legal.towards_base((base + shift).clamp(0, 1), base)

    def excess(self, samples: Float[Tensor, "n *shape"], base: Float[Tensor, "n *shape"]) -> float:
        """By how much the worst sample leaves the ball or [0, 1]; at most 0 when all are inside (up to rounding).

        Example:
            >>> base = torch.tensor([[0.5, 0.5]])
            >>> budget = Budget(count=1, epsilon=0.1)
            >>> budget.excess(torch.tensor([[0.6, 0.5]]), base) <= 0, round(budget.excess(torch.tensor([[0.8, 0.5]]), base), 3)
            (True, 0.2)
        """
        if not len(samples):
            return 0.0
        shift = (samples.double() - base.double()).flatten(1)
        distance = shift.abs().amax(dim=1) if self.norm == "linf" else shift.norm(dim=1)
        outside = max(float(-samples.min()), float(samples.max()) - 1)
        return max(float(distance.max()) - self.epsilon, outside) - _TOLERANCE


@final
@plain_dataclass(frozen=True)
class Column:
    """How one column of a table may change, in units scaled to [0, 1].

    Attributes:
        kind: `"integer"` (multiples of `step` away from the base), `"categorical"` (one of `values`) or `"immutable"`.
        step: distance of neighbouring integers after scaling.
        values: the legal values after scaling.
    """

    kind: Literal["integer", "categorical", "immutable"]
    step: float = 1.0
    values: Sequence[float] = ()

    def __post_init__(self) -> None:
        """A list and a tuple of the same values are the same column, in a run's id too."""
        object.__setattr__(self, "values", tuple(self.values))


@final
@plain_dataclass(frozen=True)
class Legal:
    """Which values a sample may hold besides lying in [0, 1]; everything is continuous unless said otherwise.

    Attributes:
        levels: for images exported with 8 bits, 255: values move in steps of 1/levels from the base. 0 for none.
        columns: for tables, by position.
    """

    levels: int = 0
    columns: Mapping[int, Column] | None = None

    def quantised(self, base: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """Base samples as 8-bit files hold them: whole steps away from those are exported exactly.

        Example:
            >>> Legal(levels=255).quantised(torch.tensor([0.5])) * 255
            tensor([128.])
        """
        return (base * self.levels).round() / self.levels if self.levels else base

    def relaxed(self) -> Legal:
        """The rules that hold while crafting: immutable columns stay. Steps and categories are left to the end.

        Example:
            >>> Legal(levels=255, columns={0: Column("immutable"), 1: Column("integer", step=0.1)}).relaxed()
            Legal(levels=0, columns={0: Column(kind='immutable', step=1.0, values=())})
        """
        immutable = {
            position: column for position, column in (self.columns or {}).items() if column.kind == "immutable"
        }
        return Legal(columns=immutable)

    def towards_base(
        self, samples: Float[Tensor, "n *shape"], base: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n *shape"]:
        """The samples made legal, no entry further from the base than before. The base itself is always legal.

        Args:
            samples: candidates in [0, 1].
            base: the base sample of each, in [0, 1].

        Raises:
            InputError: a categorical column has no legal values.

        Example:
            >>> integer = Legal(columns={0: Column("integer", step=0.25)})
            >>> integer.towards_base(torch.tensor([[0.95]]), torch.tensor([[0.5]]))  # one step, as two would go further
            tensor([[0.7500]])
        """
        if self.levels:
            return _steps_towards_base(samples, base, 1 / self.levels)
        if not self.columns:
            return samples
        out = samples.clone()
        for position, column in self.columns.items():
            here, there = samples[:, position], base[:, position]
            if column.kind == "immutable":
                out[:, position] = there
            elif column.kind == "integer":
                out[:, position] = _steps_towards_base(here, there, column.step)
            else:
                out[:, position] = _nearest_within(here, there, column.values)
        return out


def _steps_towards_base(samples: Tensor, base: Tensor, step: float) -> Tensor:
    # The slack keeps a shift of k steps at k when float32 makes it a little less, so that projecting twice changes
    # nothing; in units of the input it is below _TOLERANCE whatever the step.
    shift = samples - base
    return (base + ((shift + 4e-7 * shift.sign()) / step).trunc() * step).clamp(0, 1)


def _nearest_within(samples: Tensor, base: Tensor, values: Sequence[float]) -> Tensor:
    if not values:
        raise InputError("a categorical column needs its legal values; list them or call the column immutable.")
    choices = torch.cat([torch.tensor(list(values)).to(base).expand(len(base), -1), base[:, None]], dim=1)
    reach = (samples - base).abs()[:, None] + 1e-7
    cost = (choices - samples[:, None]).abs().masked_fill((choices - base[:, None]).abs() > reach, torch.inf)
    return choices.gather(1, cost.argmin(dim=1, keepdim=True))[:, 0]
