"""The state of the machine in which audits compute: CPU threads, on which rounding depends, and kernels that can be differentiated twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..core import InputError
from ..models import second_derivatives


def check_threads(count: int) -> None:
    """Refuse more threads than this machine has: they would take turns, and slow each other.

    Raises:
        InputError: there are not so many.
    """
    if count > (here := os.cpu_count() or 1):
        raise InputError(f"{count} threads are more than the {here} that this machine has; lower threads.")


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Compute as an audit does: with so many CPU threads, on which rounding depends, and kernels that can be differentiated twice."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with second_derivatives():
            yield
    finally:
        torch.set_num_threads(before)
