"""Derivatives of the training loss that crafting takes: mixed second derivatives, directional ones, and the curvature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import called_with
from .frozen import TrainableStages, trainable

Product = Literal["reverse", "forward"]
"""How a mixed second derivative is taken: reverse over reverse, or forward over reverse."""


def mixed_product(
    model: nn.Module,
    frozen_features: Float[Tensor, "p *features"],
    labels: Int[Tensor, "p"],
    direction: Sequence[Tensor],
    frozen: int,
    product: Product,
) -> Float[Tensor, "p *features"]:
    """∇_X ⟨∇_θ L(X; θ), v⟩, with L the *sum* of cross-entropies: Pearlmutter's product (1994) with X in place of θ.

    Args:
        model: in eval mode.
        frozen_features: what the frozen stages make of X (X itself, if none are frozen).
        labels: of X.
        direction: v, for each trainable parameter.
        frozen: number of frozen stages.
        product: forward over reverse needs no graph of the gradient: it takes less memory and, for convolutions, less time. If a layer has no forward mode,
            reverse over reverse is used.
    """
    leaf = frozen_features.detach().requires_grad_()
    late = TrainableStages(model, frozen)
    if product == "forward":
        with suppress(*_NO_FORWARD_MODE), torch.autograd.forward_ad.dual_level():
            loss = loss_of(called_with(late, _dual(late, direction), (leaf,)), labels)
            tangent = torch.autograd.forward_ad.unpack_dual(torch.autograd.grad(loss, leaf)[0]).tangent
            return torch.zeros_like(leaf) if tangent is None else tangent.detach()
    gradients = torch.autograd.grad(
        loss_of(late(leaf), labels), trainable(model), create_graph=True, materialize_grads=True
    )
    inner = torch.stack([(slope * part).sum() for slope, part in zip(gradients, direction, strict=True)]).sum()
    return torch.autograd.grad(inner, leaf, materialize_grads=True)[0]


def inner_products(
    model: nn.Module,
    frozen_features: Float[Tensor, "p *features"],
    labels: Int[Tensor, "p"],
    direction: Sequence[Tensor],
    frozen: int = 0,
) -> Float[Tensor, "p"]:
    """⟨∇_θ ℓ(x; θ), v⟩ of each sample's cross-entropy: the loss's derivative along v, in one forward-mode pass.

    Args:
        model: in eval mode.
        frozen_features: what the frozen stages make of the samples.
        labels: of the samples.
        direction: v, for each trainable parameter.
        frozen: number of frozen stages.
    """
    return _derivative(
        TrainableStages(model, frozen),
        direction,
        frozen_features,
        lambda logits: F.cross_entropy(logits, labels, reduction="none"),
    )


def gauss_newton(
    model: nn.Module, frozen_features: Float[Tensor, "b *features"], weights: Float[Tensor, "b"], frozen: int
) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The Gauss-Newton matrix Jᵀ·H·J of cross-entropy, as a function of vectors.

    The matrix is never formed (Schraudolph, Neural Computation 2002). J is the derivative of the logits by the parameters. H is the second derivative of
    the loss by the logits, which does not depend on labels. Unlike the Hessian it has no negative curvature, so that systems with it can be solved.

    Args:
        model: in eval mode.
        frozen_features: what the frozen stages make of the samples.
        weights: of each sample's cross-entropy in the loss.
        frozen: number of frozen stages.

    Returns:
        A function from a vector, with an entry for each trainable parameter, to the product.
    """
    late, parameters = TrainableStages(model, frozen), trainable(model)
    logits = late(frozen_features)
    likely = logits.detach().softmax(dim=1)

    def product(vector: Sequence[Tensor]) -> list[Tensor]:
        moved = likely * _derivative(late, vector, frozen_features, lambda logits: logits)
        back = weights[:, None] * (moved - likely * moved.sum(dim=1, keepdim=True))
        return list(torch.autograd.grad(logits, parameters, back, retain_graph=True, materialize_grads=True))

    return product


def loss_of(
    logits: Float[Tensor, "p classes"], labels: Int[Tensor, "p"], weights: Float[Tensor, "p"] | None = None
) -> Float[Tensor, ""]:
    """L_train as a *sum* over samples: its gradient at a sample does not depend on how many there are.

    Args:
        logits: of the samples.
        labels: of the samples.
        weights: of each sample's cross-entropy; None for 1.

    Examples:
        >>> loss_of(torch.zeros(2, 4), torch.tensor([0, 1])).exp().round(decimals=3)  # 2 · log 4
        tensor(16.)
    """
    if weights is None:
        return F.cross_entropy(logits, labels, reduction="sum")
    return (F.cross_entropy(logits, labels, reduction="none") * weights.to(logits)).sum()


def _derivative(
    late: TrainableStages, vector: Sequence[Tensor], frozen_features: Tensor, measure: Callable[[Tensor], Tensor]
) -> Float[Tensor, "b *measured"]:
    """The derivative of a measure of the logits along a vector of parameters.

    It is taken in forward mode, or twice in reverse mode where a layer has no forward mode.
    """
    with suppress(*_NO_FORWARD_MODE), torch.no_grad(), torch.autograd.forward_ad.dual_level():
        value = measure(called_with(late, _dual(late, vector), (frozen_features,)))
        tangent = torch.autograd.forward_ad.unpack_dual(value).tangent
        return torch.zeros_like(value) if tangent is None else tangent.detach()
    value = measure(late(frozen_features))
    # Jᵀu is linear in u, so that its derivative by u along v is Jv.
    pulled = torch.zeros_like(value, requires_grad=True)
    slopes = torch.autograd.grad(value, trainable(late.model), pulled, create_graph=True, materialize_grads=True)
    inner = torch.stack([(slope * part).sum() for slope, part in zip(slopes, vector, strict=True)]).sum()
    return torch.autograd.grad(inner, pulled, materialize_grads=True)[0]


_NO_FORWARD_MODE = (RuntimeError, NotImplementedError, ValueError)
"""Errors of torch for layers without a forward mode, under vmap or not. Any other fault is raised again in reverse mode."""


def _dual(late: nn.Module, vector: Sequence[Tensor]) -> dict[str, Tensor]:
    """The trainable parameters, each with its part of a vector as tangent."""
    learnt = [
        (name, value.detach()) for name, value in late.named_parameters() if value.requires_grad and value.numel()
    ]
    return {
        name: torch.autograd.forward_ad.make_dual(value, along)
        for (name, value), along in zip(learnt, vector, strict=True)
    }
