"""The damped inverse of a loss's curvature, applied to a gradient: where training to the end would go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .parameter_vectors import inner, plus, times


def solved(
    product: Callable[[Sequence[Tensor]], list[Tensor]],
    right: Sequence[Tensor],
    guess: Sequence[Tensor],
    damping: float,
    rounds: int,
    members: int,
) -> list[Tensor]:
    """`(A + damping · I)⁻¹ · right` by conjugate gradients (Hestenes & Stiefel 1952), for each member by itself.

    Args:
        product: from v to A·v, where A is symmetric without negative curvature.
        right: an entry for each parameter.
        guess: where to begin, likewise.
        damping: above zero.
        rounds: of conjugate gradients. Each asks for one product, and the beginning for one more.
        members: number of models, whose parameters lie one after another along the first dimension.

    Returns:
        The solution, an entry for each parameter.

    Examples:
        With A = diag(1, 3) and a damping of 1 the solution of (2, 4) is (1, 1):

        >>> scales = torch.tensor([1.0, 3.0])
        >>> solution = solved(lambda vector: [scales * vector[0]], [torch.tensor([2.0, 4.0])], [torch.zeros(2)], 1.0, 2, 1)
        >>> torch.allclose(solution[0], torch.ones(2))
        True
    """

    def damped(vector: Sequence[Tensor]) -> list[Tensor]:
        return [curved + damping * part for curved, part in zip(product(vector), vector, strict=True)]

    solution = list(guess)
    residual = [part - image for part, image in zip(right, damped(solution), strict=True)]
    direction, size = residual, inner(residual, residual, members)
    for _ in range(rounds):
        image = damped(direction)
        step = ratio(size, inner(direction, image, members))
        solution, residual = plus(solution, times(step, direction)), plus(residual, times(-step, image))
        size, last_size = inner(residual, residual, members), size
        direction = plus(residual, times(ratio(size, last_size), direction))
    return solution


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The ratio of two tensors; 0 where the denominator is not above 0, as for a member that is solved.

    Examples:
        >>> ratio(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]))
        tensor([0.5000, 0.0000])
    """
    return torch.where(denominator > 0, numerator / torch.where(denominator > 0, denominator, 1), 0)
