"""A small residual network with a CAM head, for the embedded images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from ..core import CONFIGURED
from .architecture import Architecture, check_form
from .base import CamClassifier, Standardise
from .resnet import BasicBlock


@final
class SmallResNet(CamClassifier):
    """Stem and three residual blocks, 1/4 of the input's side as CAM grid: 8x8 at 32 px.

    Args:
        classes: number of classes.
        channels: channels of the input.
        widths: channels after the stem and `layer1`, after `layer2`, and after `layer3`.
        mean: the training data's mean per channel, in [0, 1].
        std: its standard deviation per channel.
    """

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 1,
        widths: tuple[int, int, int] = (16, 24, 32),
        mean: Sequence[float] = (0.3,),
        std: Sequence[float] = (0.35,),
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.stem = nn.Sequential(
            Standardise(mean, std, trailing=2),
            nn.Conv2d(channels, first, 3, 2, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
        )
        self.layer1 = BasicBlock(first, first, 1)
        self.layer2 = BasicBlock(first, second, 2)
        self.layer3 = BasicBlock(second, third, 1)
        self.head = nn.Linear(third, classes)

    @property
    def stages(self) -> Sequence[nn.Module]:
        """`stem`, `layer1`, `layer2`, `layer3`."""
        return [self.stem, self.layer1, self.layer2, self.layer3]


@final
@dataclass(frozen=True, config=CONFIGURED)
class SmallResNetModel(Architecture):
    """The small residual network with a CAM head, for images.

    Args:
        widths: channels after the stem and `layer1`, after `layer2`, and after `layer3`.
    """

    widths: tuple[int, int, int] = (16, 24, 32)
    kind: Literal["small-resnet"] = Field(default="small-resnet", kw_only=True)
    about = "A small residual network for images, made for quick audits."

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for data of this form, with fresh weights."""
        check_form(self.kind, shape, images=True, other="two-layer")
        return SmallResNet(classes, channels=shape[0], widths=self.widths)
