"""Machine settings for an audit: CPU threads (rounding depends on them) and twice differentiable kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..core import InputError
from ..models import second_derivatives


def check_threads(count: int) -> None:
    """Refuse more threads than this machine has: they would slow each other down.

    Raises:
        InputError: the machine has fewer.
    """
    if count > (here := os.cpu_count() or 1):
        raise InputError(f"{count} threads are more than the {here} that this machine has; lower threads.")


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Compute with this number of CPU threads and with twice differentiable kernels, as audits do."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with second_derivatives():
            yield
    finally:
        torch.set_num_threads(before)
