"""Networks small enough for float64 oracles: two stages and a head, smooth or with ReLU, for images and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import nn

from encircle.models import CamClassifier, Standardise

Activation = Literal["softplus", "tanh", "relu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"softplus": nn.Softplus, "tanh": nn.Tanh, "relu": nn.ReLU}


@final
class TinyImageNet(CamClassifier):
    """Two convolutions with batch normalisation; a side of 8 gives a CAM grid of 4x4."""

    def __init__(self, *, channels: int = 1, classes: int = 3, activation: Activation = "softplus") -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        self.first = nn.Sequential(nn.Conv2d(channels, 3, 3, padding=1), nn.BatchNorm2d(3), act())
        self.second = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), act())
        self.head = nn.Linear(4, classes)

    @property
    def stages(self) -> Sequence[nn.Module]:
        return [self.first, self.second]


@final
class TinyTableNet(CamClassifier):
    """Two hidden layers."""

    def __init__(self, *, columns: int = 5, classes: int = 3, activation: Activation = "softplus") -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        self.first = nn.Sequential(
            Standardise([0.5] * columns, [0.5] * columns, trailing=0), nn.Linear(columns, 6), act()
        )
        self.second = nn.Sequential(nn.Linear(6, 4), act())
        self.head = nn.Linear(4, classes)

    @property
    def stages(self) -> Sequence[nn.Module]:
        return [self.first, self.second]


def tiny(
    kind: Literal["image", "table"],
    *,
    activation: Activation = "softplus",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    channels: int = 1,
) -> CamClassifier:
    """A seeded network in eval mode whose batch statistics are not the trivial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = (
            TinyImageNet(channels=channels, activation=activation)
            if kind == "image"
            else TinyTableNet(activation=activation)
        )
        for value in net.parameters():
            value.data += 0.3 * torch.randn_like(value)  # away from symmetric starts, so that maps have structure
        for name, value in net.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(0.1 * torch.randn_like(value))
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand_like(value))
    return net.to(dtype).eval()


def tiny_inputs(
    kind: Literal["image", "table"], count: int, *, seed: int = 0, dtype: torch.dtype = torch.float64, channels: int = 1
) -> torch.Tensor:
    """Seeded inputs in [0, 1] for `tiny`."""
    shape = (count, channels, 8, 8) if kind == "image" else (count, 5)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1000), dtype=dtype)
