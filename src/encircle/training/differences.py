"""Derivatives compared with differences in float64: autograd's result for a user's layer may be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models import copied

_STEPS = (1e-6, 1e-8, 1e-9)
"""Lengths of differences, as shares of a direction. Large ones may cross a ReLU's kink, small ones are near rounding. One that agrees is enough."""


@torch.no_grad()
def is_derivative(
    expected: Tensor, measure: Callable[[], Tensor], leaves: Sequence[Tensor], direction: Sequence[Tensor]
) -> bool:
    """Whether a value is the derivative of a measure along a direction, by central differences in float64.

    Args:
        expected: the value.
        measure: a function of the leaves.
        leaves: changed in place, and restored.
        direction: an entry for each leaf.
    """
    values = [leaf.clone() for leaf in leaves]
    errors = []
    for size in _STEPS:
        ends = []
        for side in (size, -size):
            for leaf, value, part in zip(leaves, values, direction, strict=True):
                leaf.copy_(value + side * part)
            ends.append(measure())
        slope = (ends[0] - ends[1]) / (2 * size)
        rounding = 1e-14 / size * float(ends[0].norm())
        errors.append(float((slope - expected).norm()) <= 0.1 * float(slope.norm()) + 10 * rounding)
        for leaf, value in zip(leaves, values, strict=True):
            leaf.copy_(value)
        if errors[-1]:
            return True
    return False


def twice(module: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Whether a module by itself can be differentiated twice by its inputs, and correctly.

    True, too, where this cannot be tested: a module that does not run in float64, or not by itself.
    """
    try:
        exact = copied(module).double()
        leaves = [_as_leaf(value) for value in inputs if _is_float(value)]
        exact(*_with(inputs, leaves))
    except (RuntimeError, TypeError):
        return True  # not in float64, or not by itself: it is not known to be at fault
    if not leaves:
        return True

    def slopes() -> Tensor:
        with torch.enable_grad():
            output = exact(*_with(inputs, leaves))
            if not isinstance(output, Tensor) or not output.requires_grad:
                return torch.zeros(1).double()
            gradients = torch.autograd.grad(output.square().sum(), leaves, create_graph=True, materialize_grads=True)
            return torch.cat([slope.flatten() for slope in gradients])

    random = torch.Generator().manual_seed(0)
    direction = [torch.randn(leaf.shape, generator=random, dtype=leaf.dtype).to(leaf) for leaf in leaves]
    try:
        along = slopes()
        if not along.requires_grad:
            return True
        weights = torch.randn(along.shape, generator=random, dtype=along.dtype).to(along)
        curved = torch.autograd.grad((along * weights).sum(), leaves, materialize_grads=True)
    except (RuntimeError, NotImplementedError):
        return False
    expected = torch.stack([(part * way).sum() for part, way in zip(curved, direction, strict=True)]).sum()
    return is_derivative(expected, lambda: (slopes() * weights).sum().detach(), leaves, direction)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _as_leaf(value: Tensor) -> Tensor:
    return value.detach().double().requires_grad_()


def _with(inputs: tuple[Any, ...], leaves: Sequence[Tensor]) -> list[Any]:
    """The arguments of a call with leaves in place of its tensors of floats, which in-place modules may write to."""
    fresh = iter(leaves)
    return [next(fresh) * 1 if _is_float(value) else value for value in inputs]
