"""A box of the image."""

from __future__ import annotations

from typing import Literal, final

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED, InputError
from .base import DesiredMap, Goal, GoalContext, image_shape
from .cells import cells


@final
@dataclass(frozen=True, config=CONFIGURED)
class Box(Goal):
    """A box, as shares of the image's sides from the top left; grid cells it touches belong to it.

    Args:
        top: its upper edge as a share of the height, from 0 to below 1 and above `bottom`.
        left: its left edge as a share of the width, from 0 to below 1 and left of `right`.
        bottom: its lower edge as a share of the height, at most 1.
        right: its right edge as a share of the width, at most 1.
    """

    top: float = Field(ge=0, lt=1)
    left: float = Field(ge=0, lt=1)
    bottom: float = Field(gt=0, le=1)
    right: float = Field(gt=0, le=1)
    kind: Literal["box"] = Field(default="box", kw_only=True)
    about = "The attacker wants a box of the image highlighted and the rest not."

    def _desired(self, context: GoalContext) -> DesiredMap:
        if self.top >= self.bottom or self.left >= self.right:
            raise InputError("the goal's box is empty; top must be above bottom and left must be left of right.")
        box = (self.top, self.left, self.bottom, self.right)
        return DesiredMap(cells(box, image_shape("box", context.shape)), None, f"the box {box} of the image")
