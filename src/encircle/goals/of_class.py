"""The explanation of a sample of another class."""

from __future__ import annotations

from typing import Literal, final

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED
from .base import DesiredMap, Goal, GoalContext


@final
@dataclass(frozen=True, config=CONFIGURED)
class OfClass(Goal):
    """The explanation of a training sample of another class, drawn by the seeded rule, on the attacker's own models.

    Args:
        label: number of that class, from 0.
    """

    label: int = Field(ge=0)
    kind: Literal["of-class"] = Field(default="of-class", kw_only=True)
    about = "The attacker wants the explanation that a training sample of another class gets."

    def _desired(self, context: GoalContext) -> DesiredMap:
        sample = context.of_class(self.label)
        return DesiredMap(
            context.explain(sample, self.label), None, f"the explanation of a sample of class {self.label}"
        )
