"""A desired map from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from ..core import CONFIGURED, InputError
from .arrays import read_array
from .base import DesiredMap, Goal, GoalContext


@final
@dataclass(frozen=True, config=CONFIGURED)
class FromFile(Goal):
    """A desired map from a `.npy` array of the map's shape or a grey PNG.

    Args:
        path: the map, in any unit: neither the default distance nor a score depends on its scale and offset.
        mask: a file of the same shape, non-zero where the map matters; None is everywhere.
    """

    path: Path
    mask: Path | None = None
    kind: Literal["from-file"] = Field(default="from-file", kw_only=True)
    about = "The attacker wants a map that was read from a file."

    def _desired(self, context: GoalContext) -> DesiredMap:
        values = torch.from_numpy(read_array(self.path)).float()
        mask = None if self.mask is None else _read_mask(self.mask)
        if mask is not None and mask.shape != values.shape:
            raise InputError(
                f"{self.mask} is {tuple(mask.shape)} but {self.path} is {tuple(values.shape)}; give them one shape."
            )
        return DesiredMap(values, mask, f"the map in {self.path.name}")


def _read_mask(path: Path) -> Tensor:
    values = torch.from_numpy(read_array(path))
    if bool(values.isnan().any()):
        raise InputError(f"the mask {path} holds NaN; write 0 where the map does not matter and 1 where it does.")
    return values != 0
