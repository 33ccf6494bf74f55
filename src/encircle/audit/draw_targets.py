"""The targets of an audit: samples that every clean victim gets right, each with its desired map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..core import InputError
from ..goals import DesiredMap
from ..models import predict
from ..seeds import generator
from .audit import Audit
from .goal_context import goal_context
from .models import ModelStore


@final
@dataclass(frozen=True)
class Target:
    """A sample whose explanation the attack bends.

    Attributes:
        row: of the test set.
        label: its class.
        input: `(1, *shape)`, on the audit's device.
        desired: the desired map.
    """

    row: int
    label: int
    input: Tensor
    desired: DesiredMap

    @property
    def chosen(self) -> Tensor:
        """`(1,)`, the explained class, on the audit's device."""
        return torch.tensor([self.label], device=self.input.device)

    @property
    def mask(self) -> np.ndarray[Any, Any] | None:
        """Which entries of the desired map count; None for all."""
        return None if self.desired.mask is None else self.desired.mask.numpy()


@final
class TargetDraw:
    """Draws an audit's targets and resolves their desired maps.

    Args:
        audit: its settings.
        models: the clean victims, and the attacker's own models.
        drawn: the order of the draw, if already known (see `drawn`).
    """

    def __init__(self, audit: Audit, models: ModelStore, drawn: Sequence[int] | None = None) -> None:
        self._audit, self._models, self._known = audit, models, drawn
        self._last: Target | None = None

    @cached_property
    def drawn(self) -> Sequence[int]:
        """Rows of the test set that all clean victims get right, in the order of the draw."""
        if self._known is not None:
            return self._known
        test = self._audit.data.test
        right = torch.ones(len(test), dtype=torch.bool)
        for model in self._models.clean_victims:
            predicted = torch.cat([predict(model, chunk.to(self._audit.device)).cpu() for chunk in test.chunks()])
            right &= predicted == test.labels
        pool = right.nonzero()[:, 0]
        order = torch.randperm(len(pool), generator=generator("targets", self._audit.settings.seed))
        return [int(pool[index]) for index in order]

    @cached_property
    def rows(self) -> list[int]:
        """The targets: rows of the test set, drawn among those that every clean victim gets right."""
        wanted = self._audit.settings.targets
        if not isinstance(wanted, int):
            return sorted({self.named_row(row) for row in wanted})
        return sorted(self.drawn_row(index) for index in range(wanted))

    def drawn_row(self, index: int) -> int:
        """The target number `index` of the draw, from 0.

        Raises:
            InputError: all clean victims get fewer samples right.
        """
        if index >= len(self.drawn):
            raise InputError(
                f"the clean models get only {len(self.drawn)} test samples right, fewer than {self._audit.settings.targets} targets; "
                "train longer or ask for fewer."
            )
        return self.drawn[index]

    def named_row(self, row: int) -> int:
        """A target that the case names.

        Raises:
            InputError: the test set has no such row, or a clean victim gets it wrong.
        """
        count = len(self._audit.data.test)
        if not 0 <= row < count:
            raise InputError(f"target {row} is not a row of the test set (0..{count - 1}); choose another.")
        if row not in self.drawn:
            raise InputError(
                f"a clean model gets the class of target {row} wrong, so there is no right explanation to bend; choose another."
            )
        return row

    def target(self, row: int) -> Target:
        """A target with its desired map, resolved on the attacker's models: the same for every arm and victim."""
        if self._last is None or self._last.row != row:
            test = self._audit.data.test
            sample, label = test.batch(torch.tensor([row])).to(self._audit.device), int(test.labels[row])
            self._last = Target(row, label, sample, self._resolve(row, sample, label))
        return self._last

    def _resolve(self, row: int, sample: Tensor, label: int) -> DesiredMap:
        settings = self._audit.settings
        maps = self._maps(sample, label)
        is_units = settings.explainer.space(self._audit.data.shape) == "units"
        positive_units = maps.amin(dim=0) > 0 if is_units else None

        def explain(other: Tensor, of: int) -> Tensor:
            return self._maps(other, of).mean(dim=0)

        return settings.goal.resolve(goal_context(self._audit, row, tuple(maps.shape[1:]), explain, positive_units))

    def _maps(self, sample: Tensor, label: int) -> Tensor:
        """`(references, *map)`: maps of the attacker's own models for a class."""
        chosen, device = torch.tensor([label], device=self._audit.device), self._audit.device
        explainer = self._audit.settings.explainer
        models = self._models.attackers.references
        return torch.stack(
            [explainer.attribute(model, sample.to(device), chosen)[0].detach().cpu() for model in models]
        )
