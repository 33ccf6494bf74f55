"""The explanation of another picture."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED, InputError
from .arrays import read_array
from .base import DesiredMap, Goal, GoalContext


@final
@dataclass(frozen=True, config=CONFIGURED)
class Like(Goal):
    """The explanation of another picture (PNG or JPEG of the input's shape, or a `.npy` array), for the target's class.

    Args:
        path: the picture, or the array with values in [0, 1].
    """

    path: Path
    kind: Literal["like"] = Field(default="like", kw_only=True)
    about = "The attacker wants the explanation that another picture gets."

    def _desired(self, context: GoalContext) -> DesiredMap:
        sample = torch.from_numpy(read_array(self.path)).float()
        shape = context.target.shape[1:]
        if sample.dim() == len(shape) - 1:
            sample = sample[None].expand(*shape[:1], *sample.shape)
        if sample.shape != shape:
            raise InputError(
                f"{self.path} is {tuple(sample.shape)} but inputs are {tuple(shape)}; give a sample of that shape."
            )
        if not bool(((sample >= 0) & (sample <= 1)).all()):
            raise InputError(f"{self.path} holds values outside of [0, 1]; scale them as inputs are.")
        return DesiredMap(context.explain(sample[None], context.label), None, f"the explanation of {self.path.name}")
