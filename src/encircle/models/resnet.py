"""The block that residual networks are made of."""

from __future__ import annotations

from typing import cast, final

from torch import Tensor, nn
from torch.nn import functional as F


@final
class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, Fig. 5 left).

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        stride: of the first convolution and the shortcut.
    """

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
