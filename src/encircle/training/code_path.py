"""The fastest of several equal ways to compute: measured once for a device and a network, then stored with the run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED
from ..models import Way, copied, feasible, split, stacked
from .derivatives import Product, loss_of, mixed_product
from .frozen import TrainableStages, trainable

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
    late, count = TrainableStages(joined, frozen), len(models)
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
