"""Networks as people write them: everything that is ordinary in torch and was, or could be, unusual for an audit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encircle.models import WithCamHead

Build = Callable[[], nn.Module]


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3, stride=2)


def more() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1)


def plain(*layers: Build) -> Build:
    """A build of a plain sequential network that ends in pooled features and a linear layer."""
    return lambda: nn.Sequential(*(layer() for layer in layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def with_head(*layers: Build, head: Build = lambda: nn.Linear(8, 2)) -> Build:
    """A build of a network with a CAM head."""
    return lambda: WithCamHead(nn.Sequential(*(layer() for layer in layers)), head())


class Own(nn.Module):
    """A convolution, something in between, and a head on pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = conv(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.conv(x)).mean(dim=(2, 3)))

    def between(self, maps: Tensor) -> Tensor:
        return torch.tanh(maps)


class WritesToItsInput(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5))


class FunctionalInPlace(Own):
    def between(self, maps: Tensor) -> Tensor:
        return F.relu_(maps) * 0.9


class KeepsItsLastPass(Own):
    def between(self, maps: Tensor) -> Tensor:
        self.last = torch.tanh(maps)
        self.kept = {"maps": [self.last * 2]}
        return self.last


class ScalesInPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.mul_(0.9))


class OneLayerTwice(Own):
    def __init__(self) -> None:
        super().__init__()
        self.again = more()

    def between(self, maps: Tensor) -> Tensor:
        return torch.tanh(self.again(torch.tanh(self.again(torch.tanh(maps)))))


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = conv(), nn.Linear(8 * 7 * 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.head(x.view(x.size(0), -1))


class Permutes(Own):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def between(self, maps: Tensor) -> Tensor:
        return F.gelu(self.norm(maps.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.qkv = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 48)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        tokens = tokens + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(tokens.mean(dim=1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 2)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(dim=1))


class PartlyFrozen(Own):
    def __init__(self) -> None:
        super().__init__()
        self.conv.requires_grad_(False)


def tied_stages() -> nn.Module:
    layer = more()
    return WithCamHead(
        nn.Sequential(conv(), nn.Sequential(layer, nn.Tanh()), nn.Sequential(layer, nn.Tanh())), nn.Linear(8, 2)
    )


def tied_parameter() -> nn.Module:
    first, second = more(), more()
    second.weight = first.weight
    return WithCamHead(nn.Sequential(conv(), first, nn.Tanh(), second, nn.Tanh()), nn.Linear(8, 2))


class Gate(nn.Module):
    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        scores = F.linear(x.mean(dim=(2, 3)), self.head.weight)
        return x + F.linear(scores, self.head.weight.T)[:, :, None, None]


def tied_to_the_head() -> nn.Module:
    head = nn.Linear(8, 2)
    return WithCamHead(nn.Sequential(conv(), nn.Tanh(), Gate(head)), head)


class FrozenBias(Own):
    def __init__(self) -> None:
        super().__init__()
        self.head.bias.requires_grad_(False)


class ReassignsABuffer(Own):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(8, 1, 1))

    def between(self, maps: Tensor) -> Tensor:
        if self.training:
            self.middle = 0.5 * self.middle + 0.5 * maps.detach().mean(dim=(0, 2, 3))[:, None, None]
        return torch.tanh(maps - self.middle)


class KeepsStatistics(Own):
    """Its batch normalisation never learns."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def train(self, mode: bool = True) -> KeepsStatistics:
        super().train(mode)
        self.norm.eval()
        return self

    def between(self, maps: Tensor) -> Tensor:
        return torch.tanh(self.norm(maps))


class HalvesItsGradient(Own):
    def __init__(self) -> None:
        super().__init__()
        self.conv.weight.register_hook(lambda slope: slope / 2)


class OwnBody(nn.Sequential):
    """Does more than pass from one layer to the next."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x)) + 0.1


class EmptyParameter(Own):
    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(0))


def _frozen_bias_in_turn() -> nn.Module:
    network = nn.Sequential(conv(), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    network[4].bias.requires_grad_(False)
    network[0].weight.requires_grad_(False)
    return network


RANDOM: dict[str, Build] = {
    "dropout": plain(conv, nn.ReLU, lambda: nn.Dropout(0.2)),
    "dropout and group norm": plain(conv, lambda: nn.GroupNorm(2, 8), nn.ReLU, lambda: nn.Dropout2d(0.1)),
    "dropout in place": with_head(conv, lambda: nn.Dropout(0.2, inplace=True), nn.GELU),
}
"""They draw random numbers when they learn, so that models at once draw others than one after another."""

NETWORKS: dict[str, Build] = {
    "group norm": plain(conv, lambda: nn.GroupNorm(2, 8), nn.ReLU),
    "instance norm": plain(conv, lambda: nn.InstanceNorm2d(8, affine=True), nn.ReLU),
    "batch norm": plain(conv, lambda: nn.BatchNorm2d(8), nn.ReLU, more, nn.GELU),
    "max pool": plain(conv, nn.ReLU, lambda: nn.MaxPool2d(2)),
    "prelu": plain(conv, nn.PReLU),
    "in place first": plain(lambda: nn.ReLU(inplace=True), conv, nn.ReLU),
    "in place in the body": with_head(conv, lambda: nn.ReLU(inplace=True), more, lambda: nn.ReLU(inplace=True)),
    "in place, other layers": plain(conv, lambda: nn.LeakyReLU(0.1, True), more, lambda: nn.ELU(inplace=True)),
    "in place, own layers": with_head(ScalesInPlace, conv, ScalesInPlace),
    "in place, functional": FunctionalInPlace,
    "writes to its input": WritesToItsInput,
    "keeps its last pass": KeepsItsLastPass,
    "one layer twice": OneLayerTwice,
    "tied stages": tied_stages,
    "tied parameter": tied_parameter,
    "tied to the head": tied_to_the_head,
    "view": Views,
    "permute": Permutes,
    "attention": Attention,
    "encoder layer": Encoder,
    "lazy": plain(lambda: nn.LazyConv2d(8, 3, stride=2), nn.LazyBatchNorm2d, nn.ReLU),
    "lazy head": with_head(lambda: nn.LazyConv2d(8, 3, stride=2), nn.ReLU, head=lambda: nn.LazyLinear(2)),
    "hidden head": with_head(conv, nn.ReLU, head=lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))),
    "no bias": with_head(conv, nn.ReLU, head=lambda: nn.Linear(8, 2, bias=False)),
    "weight norm": plain(lambda: nn.utils.parametrizations.weight_norm(conv()), nn.Tanh),
    "weight norm in the head": with_head(
        conv, nn.Tanh, head=lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 2))
    ),
    "spectral norm": plain(lambda: nn.utils.parametrizations.spectral_norm(conv()), nn.Tanh),
    "partly frozen": PartlyFrozen,
    "frozen bias": FrozenBias,
    "frozen bias of a linear layer": _frozen_bias_in_turn,
    "reassigns a buffer": ReassignsABuffer,
    "keeps its statistics": KeepsStatistics,
    "gradient through a hook": HalvesItsGradient,
    "own body": lambda: WithCamHead(OwnBody(conv(), nn.ReLU()), nn.Linear(8, 2)),
    "empty parameter": EmptyParameter,
}
"""They give the same numbers however they are computed."""

NOT_AT_ONCE = {"spectral norm", "reassigns a buffer"}
"""These cannot be computed at once, and say so where it is asked for."""
