"""The paper's residual network with a CAM head."""

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

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""What torchvision's ImageNet weights expect colours to be standardised by."""


@final
class ResNet13(CamClassifier):
    """The paper's "ResNet-13" as docs/method.md reads it: ResNet-18 (He et al. 2016) without its last stage.

    13 convolutions besides two on shortcuts, and a linear head on globally pooled features. Its CAM grid is 1/16 of the
    input's side, rounded up: 4x4 at 64 px, 7x7 at 112, 14x14 at 224. Parameters from `conv1` to `layer3` have torchvision's names.

    Args:
        classes: number of classes.
        channels: 3, or 1 for grey images.
        mean: the training data's mean per channel, in [0, 1]; ImageNet's by default.
        std: its standard deviation per channel.
        last_blocks: residual blocks of `layer3`, at least 1. With 1 it is another, smaller network, which starts from the same checkpoint.
    """

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        last_blocks: int = 2,
    ) -> None:
        super().__init__()
        grey = channels == 1
        self.standardise = Standardise(
            mean or ((0.3,) if grey else IMAGENET_MEAN), std or ((0.35,) if grey else IMAGENET_STD), trailing=2
        )
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), *(BasicBlock(256, 256, 1) for _ in range(last_blocks - 1)))
        self.head = nn.Linear(256, classes)

    @property
    def stages(self) -> Sequence[nn.Module]:
        """The stem (`conv1`, `bn1` and max-pooling), `layer1`, `layer2`, `layer3`."""
        stem = nn.Sequential(self.standardise, self.conv1, self.bn1, nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        return [stem, self.layer1, self.layer2, self.layer3]


@final
@dataclass(frozen=True, config=CONFIGURED)
class ResNet13Model(Architecture):
    """The paper's residual network with a CAM head, for images.

    Args:
        last_blocks: residual blocks of the last stage. The paper's has 2; with 1 it is another network that starts from the same checkpoint, which an
            attacker may have crafted on.
    """

    last_blocks: int = Field(default=2, ge=1, le=2)
    kind: Literal["resnet13"] = Field(default="resnet13", kw_only=True)
    about = "The paper's residual network for images: ResNet-18 without its last stage."

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for data of this form, with fresh weights."""
        check_form(self.kind, shape, images=True, other="two-layer")
        return ResNet13(classes, channels=shape[0], last_blocks=self.last_blocks)
