"""Vectors in the space of parameters, of one model or of several, stacked along the first dimension."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def inner(first: Sequence[Tensor], second: Sequence[Tensor], members: int) -> Float[Tensor, "members"]:
    """Inner product of two vectors, for each member by itself.

    Args:
        first: an entry for each parameter.
        second: likewise.
        members: number of models, whose parameters lie one after another along the first dimension.

    Examples:
        Two parameters of two models:

        >>> inner([torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])], [torch.tensor([3.0, 3.0]), torch.tensor([5.0, 5.0])], 2)
        tensor([ 3., 11.])
    """
    products = ((a * b).reshape(members, -1).sum(dim=1) for a, b in zip(first, second, strict=True))
    return torch.stack(list(products)).sum(dim=0)


def times(factor: Float[Tensor, "members"], vector: Sequence[Tensor]) -> list[Tensor]:
    """Each member's part of a vector times its factor.

    Examples:
        >>> times(torch.tensor([1.0, -1.0]), [torch.tensor([2.0, 3.0])])
        [tensor([ 2., -3.])]
    """
    members = len(factor)
    return [(part.reshape(members, -1) * factor[:, None]).reshape(part.shape) for part in vector]


def plus(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    """The sum of two vectors.

    Examples:
        >>> plus([torch.tensor([1.0]), torch.tensor([2.0])], [torch.tensor([10.0]), torch.tensor([20.0])])
        [tensor([11.]), tensor([22.])]
    """
    return [a + b for a, b in zip(first, second, strict=True)]


def unit_scale(vector: Sequence[Tensor], members: int) -> tuple[list[Tensor], Float[Tensor, "members"]]:
    """A vector divided by each member's largest magnitude, and these magnitudes (1 for a member that is zero).

    Gradients of a saturated model are as small as 1e-20, whose squares are zero in float32. Their size is taken out before they are squared.

    Examples:
        >>> unit_scale([torch.tensor([2.0, 0.0]), torch.tensor([-4.0, 0.0])], 2)
        ([tensor([0.5000, 0.0000]), tensor([-1.,  0.])], tensor([4., 1.]))
    """
    largest = torch.stack([part.reshape(members, -1).abs().amax(dim=1) for part in vector]).amax(dim=0)
    largest = torch.where(largest > 0, largest, 1)
    return times(1 / largest, vector), largest


def unit_scaled(slopes: Float[Tensor, "rows *shape"]) -> Float[Tensor, "rows *shape"]:
    """Each row divided by its largest magnitude.

    Examples:
        >>> unit_scaled(torch.tensor([[2.0, -4.0], [0.0, 0.0]]))
        tensor([[ 0.5000, -1.0000],
                [ 0.0000,  0.0000]])
    """
    largest = slopes.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(slopes.dtype).tiny)
    return slopes / largest.reshape(-1, *[1] * (slopes.dim() - 1))
