"""A small residual network with a CAM head, for the embedded images."""

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
