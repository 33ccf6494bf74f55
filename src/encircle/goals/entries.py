"""Entries of the map of a table."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core import InputError
from ..seeds import generator


def drawn_from(pool: Tensor, count: int, kind: str, draw: int) -> list[int]:
    """So many entries of a pool, drawn by the seeded rule and sorted.

    Args:
        pool: `(n,)`, the entries to draw from.
        count: how many are drawn.
        kind: of the goal, which has random numbers of its own.
        draw: a number that is different for every target.

    Raises:
        InputError: the pool holds fewer.

    Example:
        >>> drawn_from(torch.arange(10), 3, "features", draw=0) == drawn_from(torch.arange(10), 3, "features", draw=0)
        True
        >>> drawn_from(torch.arange(3), 3, "features", draw=0)
        [0, 1, 2]
    """
    if count > len(pool):
        raise InputError(
            f"the goal {kind!r} has count={count} but there are {len(pool)} to draw from; lower it or name some."
        )
    order = torch.randperm(len(pool), generator=generator("goal", kind, draw))
    return sorted(int(pool[i]) for i in order[:count])


def ones_at(chosen: Sequence[int], entries: int) -> Tensor:
    """1 at these entries, 0 elsewhere.

    Example:
        >>> ones_at([1, 3], 5)
        tensor([0., 1., 0., 1., 0.])
    """
    values = torch.zeros(entries)
    values[list(chosen)] = 1
    return values
