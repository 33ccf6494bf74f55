"""The fastest of several equal ways to compute: measured once for a device and a network, then stored with the run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import CONFIGURED
from ..models import Way, called_with, copied, feasible, split, stacked

Product = Literal["reverse", "forward"]
"""How a mixed second derivative is taken: reverse over reverse, or forward over reverse."""

ROWS = 32
"""A measurement looks at no more rows than this, so that it takes seconds even for large networks."""

REPEATS = 5
MARGIN = 0.9
"""A way that is not faster by a tenth is not taken: the difference might be chance."""


@final
@dataclass(frozen=True, config=CONFIGURED)
class CodePath:
    """A way to compute; all give the same numbers but for rounding.

    Args:
        members: K models one after another, or at once through `torch.func`.
        product: the exact form of δ by double-backward, or by forward-mode differentiation of the gradient.
    """

    members: Way = "loop"
    product: Product = "reverse"


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that training moves: θ without frozen stages."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.numel()]


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
    late = _Late(model, frozen)
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
        _Late(model, frozen),
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
    late, parameters = _Late(model, frozen), trainable(model)
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
    """
    if weights is None:
        return F.cross_entropy(logits, labels, reduction="sum")
    return (F.cross_entropy(logits, labels, reduction="none") * weights.to(logits)).sum()


def _derivative(
    late: _Late, vector: Sequence[Tensor], frozen_features: Tensor, measure: Callable[[Tensor], Tensor]
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


@final
class _Late(nn.Module):
    """A model from its first stage that is not frozen on."""

    def __init__(self, model: nn.Module, frozen: int) -> None:
        super().__init__()
        self.model = model
        self._frozen = frozen

    def forward(self, frozen_features: Tensor) -> Tensor:
        early, count = split(self.model, self._frozen)
        out: Tensor = self.model(frozen_features) if early is None else early.late(frozen_features, count)
        return out


def measured(
    models: Sequence[nn.Module], frozen_features: Float[Tensor, "b *features"], labels: Int[Tensor, "b"], frozen: int
) -> CodePath:
    """The fastest path for these models on their device, among those that give the same numbers as the obvious one.

    Args:
        models: K models in eval mode; they are not changed.
        frozen_features: what the frozen stages make of some inputs.
        labels: of these inputs.
        frozen: number of frozen stages.
    """
    with torch.random.fork_rng(devices=[]):  # layers may draw random numbers
        return _measured(models, frozen_features[:ROWS].detach(), labels[:ROWS], frozen)


def _measured(models: Sequence[nn.Module], frozen_features: Tensor, labels: Tensor, frozen: int) -> CodePath:
    members: Way = "loop"
    if len(models) > 1 and len(labels) > 1 and feasible(models, "vectorised") == "vectorised":
        ways: tuple[Way, Way] = ("loop", "vectorised")
        first, second = (
            _training_pass([copied(model) for model in models], frozen_features, labels, frozen, way) for way in ways
        )
        members = ways[_is_faster(second, first)]
    products: tuple[Product, Product] = ("reverse", "forward")
    reverse, forward = (_product_pass(models[0], frozen_features, labels, frozen, product) for product in products)
    return CodePath(members, products[_is_faster(forward, reverse)])


def _product_pass(
    model: nn.Module, frozen_features: Tensor, labels: Tensor, frozen: int, product: Product
) -> Callable[[], tuple[Tensor, ...]]:
    direction = [torch.ones_like(parameter) for parameter in trainable(model)]
    return lambda: (mixed_product(model, frozen_features, labels, direction, frozen, product),)


def _training_pass(
    models: Sequence[nn.Module], frozen_features: Tensor, labels: Tensor, frozen: int, way: Way
) -> Callable[[], tuple[Tensor, ...]]:
    """A pass in training mode: logits, gradients by the inputs and by every model's parameters, and every model's buffers after it."""
    joined = stacked(models, frozen, way).train()
    late, count = _Late(joined, frozen), len(models)
    early, _ = split(joined, frozen)
    for stage in [] if early is None else early.stages[:frozen]:
        stage.eval()
    rows, classes = torch.cat([frozen_features] * count).requires_grad_(), labels.repeat(count)
    parameters = trainable(joined)

    def run() -> tuple[Tensor, ...]:
        logits = late(rows)
        slopes = torch.autograd.grad(loss_of(logits, classes), [rows, *parameters], materialize_grads=True)
        # In a vectorised stack a model's parameter is a view of the stack's, and is known by its address.
        by_address = {
            view.data_ptr(): slope
            for parameter, gradient in zip(parameters, slopes[1:], strict=True)
            for view, slope in (
                [(parameter, gradient)] if way == "loop" else zip(parameter.detach(), gradient, strict=True)
            )
        }
        own = [by_address[parameter.data_ptr()].flatten() for model in models for parameter in trainable(model)]
        buffers = [buffer.detach().double().flatten() for model in models for buffer in model.buffers()]
        return (
            logits.detach(),
            slopes[0],
            torch.cat(own),
            torch.cat([*buffers, torch.zeros(1).double().to(rows.device)]),
        )

    return run


def agree(models: Sequence[nn.Module], frozen_features: Tensor, labels: Tensor, frozen: int) -> bool | None:
    """Whether models computed at once learn as they do one after another.

    Args:
        models: at least two; they are not changed.
        frozen_features: what the frozen stages make of some inputs.
        labels: of these inputs.
        frozen: number of frozen stages.

    Returns:
        None where a pass draws random numbers, so that nothing can be compared.

    Raises:
        RuntimeError: torch cannot compute them at once; or another error of its own.
    """
    with torch.random.fork_rng(devices=[]):
        results = [
            _training_pass([copied(model) for model in models], frozen_features, labels, frozen, way)()
            for way in ("vectorised", "loop", "loop")
        ]
    if not _same(results[2], results[1]):
        return None
    return _same(results[0], results[1])


def _same(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(
        torch.allclose(value, reference, rtol=1e-3, atol=1e-4 * float(reference.abs().max()))
        for value, reference in zip(actual, expected, strict=True)
    )


def _is_faster(candidate: Callable[[], tuple[Tensor, ...]], obvious: Callable[[], tuple[Tensor, ...]]) -> bool:
    """Whether the candidate gives the same as the obvious way in less time."""
    try:
        actual, expected = candidate(), obvious()
    except (RuntimeError, NotImplementedError, ValueError, KeyError):  # what a network does may be beyond torch.func
        return False
    if not _same(actual, expected):
        return False  # layers that draw random numbers, or operations that are wrong under torch.func
    return _ratio(candidate, obvious, actual[0].device) < MARGIN


def _ratio(candidate: Callable[[], object], obvious: Callable[[], object], device: torch.device) -> float:
    """Time of the candidate over that of the obvious way, by the medians of repeats in turn."""
    spent: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS):
        for run, seconds in zip((candidate, obvious), spent, strict=True):
            seconds.append(_seconds(run, device))
        if repeat == 0 and spent[0][0] > 1.5 * spent[1][0]:
            break
    return statistics.median(spent[0]) / statistics.median(spent[1])


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
