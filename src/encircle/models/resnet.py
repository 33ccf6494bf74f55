"""Residual networks with a CAM head: a small one for the embedded images, and the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

from torch import Tensor, nn
from torch.nn import functional as F

from .base import CamClassifier, Standardise


@final
class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, Fig. 5 left)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """`(n, channels_in, h, w)` to `(n, channels_out, h/stride, w/stride)`."""
        hidden = F.relu(self.bn1(self.conv1(inputs)))
        return F.relu(cast(Tensor, self.bn2(self.conv2(hidden)) + self.downsample(inputs)))


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
