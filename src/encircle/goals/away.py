"""Everywhere but the object."""

from __future__ import annotations

from typing import Annotated, Literal, final

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED, InputError
from .base import DesiredMap, Goal, GoalContext, image_shape
from .cells import cells

_Share = Annotated[float, Field(ge=0, le=1)]


@final
@dataclass(frozen=True, config=CONFIGURED)
class Away(Goal):
    """Everywhere but the object: outside `box`, or outside the object's box where the data set knows it.

    Args:
        box: (top, left, bottom, right) as shares of the image's sides, from 0 to 1; None is the data set's own.
    """

    box: tuple[_Share, _Share, _Share, _Share] | None = None
    kind: Literal["away"] = Field(default="away", kw_only=True)
    about = "The attacker wants everything highlighted but the object itself."

    def _desired(self, context: GoalContext) -> DesiredMap:
        box = self.box or context.box
        if box is None:
            raise InputError(
                "the goal 'away' needs the object's box and the data set knows none; give box=(top, left, bottom, right)."
            )
        return DesiredMap(1 - cells(box, image_shape("away", context.shape)), None, "away from the object")
