"""Mini-batches: their order, their number, and their inputs read ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Int
from torch import Tensor

from ..data import Samples


def batches(count: int, size: int, shuffle: torch.Generator) -> Iterator[Int[Tensor, "b"]]:
    """One epoch of shuffled row numbers. A last batch of a single row joins the batch before it.

    Args:
        count: number of rows.
        size: of a batch.
        shuffle: gives the order.

    Examples:
        >>> [len(rows) for rows in batches(7, 3, torch.Generator().manual_seed(0))]
        [3, 4]
    """
    rows = list(torch.randperm(count, generator=shuffle).split(size))
    if len(rows) > 1 and len(rows[-1]) == 1:
        rows[-2:] = [torch.cat(rows[-2:])]
    yield from rows


def steps_per_epoch(count: int, size: int) -> int:
    """The number of batches in an epoch, as `batches` yields them.

    Examples:
        >>> steps_per_epoch(7, 3), steps_per_epoch(8, 3)
        (2, 3)
    """
    full, rest = divmod(count, size)
    return max(full + (rest > 1), 1)


def read_ahead(samples: Samples, batches: Sequence[Tensor]) -> Iterator[Tensor]:
    """The inputs of each batch of rows. Samples that wait for a disk are read one batch ahead."""
    if not samples.waits or len(batches) < 2:
        yield from (samples.batch(rows) for rows in batches)
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(samples.batch, batches[0])
        for rows in batches[1:]:
            ready, coming = coming.result(), reader.submit(samples.batch, rows)
            yield ready
        yield coming.result()
