"""Entries of the map of a table."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core import InputError
from ..seeds import generator


def drawn_from(pool: Tensor, count: int, kind: str, draw: int) -> list[int]:
    """So many entries of a pool, drawn by the seeded rule and sorted; an `InputError` where there are fewer."""
    if count > len(pool):
        raise InputError(
            f"the goal {kind!r} has count={count} but there are {len(pool)} to draw from; lower it or name some."
        )
    order = torch.randperm(len(pool), generator=generator("goal", kind, draw))
    return sorted(int(pool[i]) for i in order[:count])


def ones_at(chosen: Sequence[int], entries: int) -> Tensor:
    """1 at these entries, 0 elsewhere."""
    values = torch.zeros(entries)
    values[list(chosen)] = 1
    return values
