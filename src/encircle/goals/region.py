"""A named region of the image."""

from __future__ import annotations

from typing import Literal, final

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED, unknown_name
from .base import DesiredMap, Goal, GoalContext, image_shape
from .cells import cells

REGIONS: dict[str, tuple[float, float, float, float]] = {
    "mid-left": (0.25, 0.0, 0.75, 0.5),
    "mid-right": (0.25, 0.5, 0.75, 1.0),
    "top-left": (0.0, 0.0, 0.5, 0.5),
    "top-right": (0.0, 0.5, 0.5, 1.0),
    "bottom-left": (0.5, 0.0, 1.0, 0.5),
    "bottom-right": (0.5, 0.5, 1.0, 1.0),
    "top": (0.0, 0.0, 0.5, 1.0),
    "bottom": (0.5, 0.0, 1.0, 1.0),
    "left": (0.0, 0.0, 1.0, 0.5),
    "right": (0.0, 0.5, 1.0, 1.0),
    "center": (0.25, 0.25, 0.75, 0.75),
}
"""Named regions as (top, left, bottom, right) shares of the sides; cells they touch belong to them (rounded outward)."""


@final
@dataclass(frozen=True, config=CONFIGURED)
class Region(Goal):
    """A named region of the image, such as the paper's mid-left (Fig. 4); `REGIONS` defines them all in numbers.

    Args:
        name: one of the named regions.
    """

    name: str = "mid-left"
    kind: Literal["region"] = Field(default="region", kw_only=True)
    about = "The attacker wants a named part of the image highlighted and the rest not."

    def _desired(self, context: GoalContext) -> DesiredMap:
        shape = image_shape(self.name, context.shape)
        if self.name not in REGIONS:
            raise unknown_name("region", self.name, REGIONS)
        return DesiredMap(cells(REGIONS[self.name], shape), None, f"the {self.name} of the image")
