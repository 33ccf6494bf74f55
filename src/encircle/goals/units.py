"""Hidden units of a table network."""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED, InputError
from .base import DesiredMap, Goal, GoalContext, entries_of
from .entries import drawn_from, ones_at


@final
@dataclass(frozen=True, config=CONFIGURED)
class Units(Goal):
    """Hidden units of a table network (CAM): those given, or `count` drawn by the seeded rule.

    Units are drawn among those that speak for the class at the target (a positive entry of the map) on the attacker's own
    models: no small change of the weights revives a dead unit or turns one round, so others could not be reached by anything.

    Args:
        units: numbers of hidden units, from 0; give these or `count`.
        count: how many units are drawn; where fewer speak for the class, all of those are.

    Raises:
        ValueError: neither is given, or both, as pydantic's `ValidationError`.
    """

    units: tuple[int, ...] = ()
    count: int = Field(default=0, ge=0)
    kind: Literal["units"] = Field(default="units", kw_only=True)
    about = "The attacker wants some hidden units of the network highlighted and the others not."

    @model_validator(mode="after")
    def _units_or_count(self) -> Units:
        if bool(self.units) == bool(self.count):
            raise ValueError("give either units or count")
        return self

    def _desired(self, context: GoalContext) -> DesiredMap:
        entries = entries_of("units", context.shape)
        if any(not 0 <= unit < entries for unit in self.units):
            raise InputError(f"the goal names a unit outside 0..{entries - 1}; correct it.")
        pool = torch.arange(entries) if context.positive_units is None else context.positive_units.nonzero()[:, 0]
        if not self.units and not len(pool):
            raise InputError("the goal 'units' has nothing to draw from: no unit speaks for the class; name some.")
        wanted = self.count if context.positive_units is None else min(self.count, len(pool))
        chosen = list(self.units) or drawn_from(pool, wanted, "units", context.draw)
        return DesiredMap(ones_at(chosen, entries), None, "the units " + ", ".join(map(str, chosen)))
