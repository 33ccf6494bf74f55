"""Where training to the end, not its next step, would go: the damped inverse of the loss's curvature, applied to a slope."""

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
        product: from v to A·v; A symmetric without negative curvature.
        right: an entry for each parameter.
        guess: where to begin.
        damping: above zero.
        rounds: how many; each asks for one product, and the beginning for one more.
        members: of how many models the parameters are, one after another along their first dimension.
    """

    def damped(vector: Sequence[Tensor]) -> list[Tensor]:
        return [there + damping * here for there, here in zip(product(vector), vector, strict=True)]

    found = list(guess)
    left = [mine - theirs for mine, theirs in zip(right, damped(found), strict=True)]
    along, size = left, inner(left, left, members)
    for _ in range(rounds):
        bent = damped(along)
        far = ratio(size, inner(along, bent, members))
        found, left = plus(found, times(far, along)), plus(left, times(-far, bent))
        size, before = inner(left, left, members), size
        along = plus(left, times(ratio(size, before), along))
    return found


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """Their ratio, and nothing where there is nothing below: for a member that is done."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1), 0)
