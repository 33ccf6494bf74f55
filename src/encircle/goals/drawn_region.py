"""One of several named regions, drawn for each target."""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED, InputError, unknown_name
from ..seeds import generator
from .base import DesiredMap, Goal, GoalContext
from .region import REGIONS, Region

QUARTERS = ("mid-left", "mid-right", "top-left", "top-right", "bottom-left", "bottom-right")
"""Named regions that are a quarter of the image each, so that a score means the same for all of them."""


@final
@dataclass(frozen=True, config=CONFIGURED)
class DrawnRegion(Goal):
    """For each target one of several named regions, drawn by the seeded rule before anything is crafted.

    Args:
        names: of the regions to draw from.
    """

    names: tuple[str, ...] = QUARTERS
    kind: Literal["drawn-region"] = Field(default="drawn-region", kw_only=True)
    about = (
        "The attacker wants a part of the image highlighted and the rest not; the part is drawn by lot for each target."
    )

    def _desired(self, context: GoalContext) -> DesiredMap:
        if not self.names:
            raise InputError("the goal 'drawn-region' has no names to draw from; give at least one.")
        for name in self.names:
            if name not in REGIONS:
                raise unknown_name("region", name, REGIONS)
        index = torch.randint(len(self.names), (1,), generator=generator("goal", "region", context.draw))
        return Region(self.names[int(index)])._desired(context)
