"""L_adv: how far the target's explanation is from the desired map, and its label from the right one (Eq. 4)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..core import InputError
from ..explain import Explainer
from ..goals import DesiredMap

Distance = Literal["none", "max", "minmax", "cosine", "mixed"]


def distance(
    maps: Float[Tensor, "n *shape"], desired: Float[Tensor, "*shape"], mask: Tensor | None, kind: Distance
) -> Float[Tensor, "n"]:
    """The first term of Eq. 4 between each map and the desired one; only masked entries count.

    Args:
        maps: scored maps of any scale. GRAD maps of saturated models are as small as 1e-30.
        desired: the desired map.
        mask: entries that matter; None for all.
        kind: `"none"` is the paper's raw squared norm. `"max"` and `"minmax"` are the mean squared difference after each map is divided by its largest
            magnitude, or brought to [0, 1]. `"cosine"` is one minus the centred cosine, in [0, 2]. `"mixed"` is half of that plus the mean absolute
            difference after each map is brought to [0, 1], in [0, 2]: maps of one shape can still differ in all but their least and largest entries.

    Returns:
        A distance a map.

    Raises:
        InputError: the desired map is constant where it matters, so that the cosine is undefined.

    Examples:
        A map of the right shape is at distance 0 whatever its scale; its reverse is as far as can be:

        >>> desired = torch.tensor([0.0, 1.0, 2.0])
        >>> distances = distance(torch.tensor([[0.0, 5.0, 10.0], [2.0, 1.0, 0.0]]), desired, None, "cosine")
        >>> torch.allclose(distances, torch.tensor([0.0, 2.0]), atol=1e-6)
        True
    """
    maps, desired = maps.flatten(1), desired.flatten()[None]
    chosen = slice(None) if mask is None else mask.flatten()
    if kind == "none":
        return ((maps - desired)[:, chosen] ** 2).sum(dim=1)
    # Every kind below is unchanged when a map is rescaled, so the scale may be taken out first, and as a constant:
    # squares of 1e-30 would be zero in float32. A map smaller still is no map; its gradient must not be infinite.
    scale = maps.detach().abs().amax(dim=1, keepdim=True)
    maps = maps / torch.where(scale > 1e-36, scale, 1)
    desired = desired / desired.abs().amax()
    if kind == "max":
        return ((maps / _floor(maps.abs().amax(dim=1, keepdim=True)) - desired)[:, chosen] ** 2).mean(dim=1)
    if kind == "minmax":
        return ((_unit_range(maps) - _unit_range(desired))[:, chosen] ** 2).mean(dim=1)
    if kind == "mixed":
        difference = (_unit_range(maps) - _unit_range(desired))[:, chosen].abs().mean(dim=1)
        return distance(maps, desired[0], mask, "cosine") / 2 + difference
    first, second = maps[:, chosen], desired[:, chosen]
    first, second = first - first.mean(dim=1, keepdim=True), second - second.mean()
    if float(second.norm()) < 1e-6:
        raise InputError(
            "the desired map is constant where it matters, so its cosine is undefined; use distance 'minmax' or a wider mask."
        )
    return 1 - (first * second).sum(dim=1) / _floor(first.norm(dim=1) * second.norm())


def _unit_range(values: Tensor) -> Tensor:
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    return (values - low) / _floor(high - low)


def _floor(value: Tensor) -> Tensor:
    return value.clamp(min=1e-12)  # a constant map has no shape: it gets distance, not NaN


@final
class _Smoothed(TorchFunctionMode):
    """Within it every ReLU is a softplus, whichever way it is written: a ReLU's own second derivative is zero."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _RELUS:
            return F.softplus(args[0], beta=self.sharpness)
        return func(*args, **(kwargs or {}))


_RELUS = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


@final
@dataclass(frozen=True)
class Objective:
    """`L_adv(θ) = D(G_c(T;θ), G; M) + λ2 · label term`; λ1's term has no gradient in θ and acts on the poison alone.

    Attributes:
        explainer: differentiable in θ.
        target: the target `(1, *shape)`.
        label: its class c.
        desired: the desired map G and its mask M.
        kind: the distance D.
        label_weight: λ2.
        hinge: cross-entropy up to here costs nothing; None is the paper's plain cross-entropy.
        softplus: ReLUs count as softplus of this sharpness; None leaves them as they are.
    """

    explainer: Explainer
    target: Tensor
    label: int
    desired: DesiredMap
    kind: Distance
    label_weight: float
    hinge: float | None
    softplus: float | None = None

    def __call__(self, model: nn.Module, members: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """`(L_adv, its distance, the cross-entropy at the target)`, with graphs to the model's parameters.

        Args:
            model: the model, or several as one (`models.stacked`).
            members: how many it is; each of the three results has an entry for each.
        """
        target = self.target.expand(members, *self.target.shape[1:])
        labels = torch.full((members,), self.label, device=target.device)
        with nullcontext() if self.softplus is None else _Smoothed(self.softplus):
            maps, _, logits = self.explainer.explain(model, target, labels, graph=True)
        mask = None if self.desired.mask is None else self.desired.mask.to(maps.device)
        distances = distance(maps, self.desired.values.to(maps), mask, self.kind)
        entropy = F.cross_entropy(logits, labels, reduction="none")
        term = entropy if self.hinge is None else (entropy - self.hinge).clamp(min=0)
        return distances + self.label_weight * term, distances, entropy
