"""The paper's classifier for tables: two fully connected layers (§5.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from ..core import CONFIGURED
from .architecture import Architecture, check_form
from .base import CamClassifier, Standardise


@final
class TwoLayerNet(CamClassifier):
    """One hidden layer with ReLU and a linear head; its hidden units are what CAM explains.

    Args:
        features: number of columns.
        classes: number of classes.
        hidden: number of hidden units.
    """

    def __init__(self, features: int, classes: int, *, hidden: int = 32) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            Standardise([0.5] * features, [0.5] * features, trailing=0), nn.Linear(features, hidden), nn.ReLU()
        )
        self.head = nn.Linear(hidden, classes)

    @property
    def stages(self) -> Sequence[nn.Module]:
        """The hidden layer."""
        return [self.hidden]


@final
@dataclass(frozen=True, config=CONFIGURED)
class TwoLayerModel(Architecture):
    """The paper's two-layer network for tables.

    Args:
        hidden: number of hidden units.
    """

    hidden: int = Field(default=32, ge=1)
    kind: Literal["two-layer"] = Field(default="two-layer", kw_only=True)
    about = "The paper's network for tables: one layer of hidden units, and the classes' scores on top of it."

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for data of this form, with fresh weights."""
        check_form(self.kind, shape, images=False, other="small-resnet")
        return TwoLayerNet(shape[0], classes, hidden=self.hidden)
