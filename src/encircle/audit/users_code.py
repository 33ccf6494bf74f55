"""Exceptions of a user's own code (a network, a data set, a plug-in), reported as such."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch import nn
from torch.utils.data import Dataset

from ..core import EncircleError, InputError
from ..models.adapter import module_path, reason_of
from .kinds import KINDS


@contextmanager
def users_errors() -> Iterator[None]:
    """Turn an exception of a user's code into one sentence with module or function, file and line.

    Raises:
        InputError: in its place. Exceptions of the project's own code pass unchanged.
    """
    try:
        yield
    except (EncircleError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if (location := _location(error.__traceback__)) is None:
            raise
        raise InputError(f"your own code fails{location}: {reason_of(error)}; mend it there.") from error


def _location(trace: TracebackType | None) -> str | None:
    """The line of a user's code that raised an exception; None if the project or its reporter did."""
    where = ""
    for frame, line in _frames(trace):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == "encircle":
            return None
        if not where and package not in {"torch", "pydantic"} and package not in sys.stdlib_module_names:
            where = f"{Path(frame.f_code.co_filename).name}:{line}"
        owner = frame.f_locals.get("self")
        if not where or not isinstance(owner, (nn.Module, Dataset, *(kinds.base for kinds in KINDS.values()))):
            continue
        if isinstance(owner, nn.Module):
            return f"{module_path(_network(trace, owner), owner)} ({where})"
        return f" in {type(owner).__name__}.{frame.f_code.co_name} ({where})"
    return None


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    """From where the exception was raised outwards."""
    stack = []
    while trace is not None:
        stack.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    yield from reversed(stack)


def _network(trace: TracebackType | None, inner: nn.Module) -> nn.Module:
    """The active network that contains a module."""
    owners = [frame.f_locals.get("self") for frame, _ in _frames(trace)]
    wholes = [
        owner for owner in owners if isinstance(owner, nn.Module) and any(inner is part for part in owner.modules())
    ]
    return wholes[-1] if wholes else inner
