"""Vectors in the space of parameters, of one model or of several whose parameters are stacked along their first dimension."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def inner(one: Sequence[Tensor], other: Sequence[Tensor], members: int) -> Float[Tensor, "members"]:
    """Inner product of two vectors, for each member by itself.

    Args:
        one: an entry for each parameter.
        other: likewise.
        members: of how many models the parameters are, one after another along their first dimension.
    """
    products = ((a * b).reshape(members, -1).sum(dim=1) for a, b in zip(one, other, strict=True))
    return torch.stack(list(products)).sum(dim=0)


def times(factor: Float[Tensor, "members"], vector: Sequence[Tensor]) -> list[Tensor]:
    """Each member's part of a vector times its factor."""
    members = len(factor)
    return [(part.reshape(members, -1) * factor[:, None]).reshape(part.shape) for part in vector]


def plus(one: Sequence[Tensor], other: Sequence[Tensor]) -> list[Tensor]:
    """The sum of two vectors."""
    return [a + b for a, b in zip(one, other, strict=True)]


def unit_scale(vector: Sequence[Tensor], members: int) -> tuple[list[Tensor], Float[Tensor, "members"]]:
    """A vector over its members' largest magnitudes, and those (1 for a member that is zero).

    Gradients of a saturated model are as small as 1e-20, whose squares are nothing in float32: their size is taken out before they are squared.
    """
    largest = torch.stack([part.reshape(members, -1).abs().amax(dim=1) for part in vector]).amax(dim=0)
    largest = torch.where(largest > 0, largest, 1)
    return times(1 / largest, vector), largest


def unit_scaled(slopes: Float[Tensor, "rows *shape"]) -> Float[Tensor, "rows *shape"]:
    """Each row over its own largest size."""
    largest = slopes.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(slopes.dtype).tiny)
    return slopes / largest.reshape(-1, *[1] * (slopes.dim() - 1))
