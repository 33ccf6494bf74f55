"""Seeds derived from names, so that no two uses of randomness share a stream."""

from __future__ import annotations

import torch

from .core import digest


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from a path of names and numbers.

    Two different paths give unrelated streams, so that no two uses of randomness in a run (victim 3's start, victim
    3's batch order, a surrogate) ever share one by accident.
    """
    return int(digest(list(parts))[:16], 16) >> 1


def generator(*parts: str | int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`; random numbers are drawn on the CPU on every device."""
    return torch.Generator().manual_seed(derive_seed(*parts))
