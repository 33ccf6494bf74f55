"""Columns of a table."""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED, InputError, unknown_name
from .base import DesiredMap, Goal, GoalContext, entries_of
from .entries import drawn_from, ones_at


@final
@dataclass(frozen=True, config=CONFIGURED)
class Features(Goal):
    """Columns of a table: those named, or `count` of them drawn for each target by the seeded rule.

    Args:
        names: column names of the table; give these or `count`.
        count: how many columns are drawn, fewer than there are.

    Raises:
        ValueError: neither is given, or both, as pydantic's `ValidationError`.
    """

    names: tuple[str, ...] = ()
    count: int = Field(default=0, ge=0)
    kind: Literal["features"] = Field(default="features", kw_only=True)
    about = "The attacker wants some columns of the table highlighted and the others not."

    @model_validator(mode="after")
    def _names_or_count(self) -> Features:
        if bool(self.names) == bool(self.count):
            raise ValueError("give either names or count")
        return self

    def _desired(self, context: GoalContext) -> DesiredMap:
        entries = entries_of("features", context.shape)
        if entries != len(context.features):
            raise InputError(
                "the goal 'features' needs a map over columns; for CAM, whose map is over hidden units, use units."
            )
        for name in self.names:
            if name not in context.features:
                raise unknown_name("feature", name, context.features)
        named = [context.features.index(name) for name in self.names]
        chosen = named or drawn_from(torch.arange(entries), self.count, "features", context.draw)
        return DesiredMap(
            ones_at(chosen, entries), None, "the features " + ", ".join(context.features[i] for i in chosen)
        )
