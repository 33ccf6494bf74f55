"""What every floor above stands on: errors that name their remedy, and digests. No torch: reports need none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import ConfigDict

RESULTS_VERSION = 2
"""Raised by one whenever the same case would give other scores; part of every run's id."""


CONFIGURED = ConfigDict(extra="forbid")
"""For everything with settings: a misspelt one is an error, not ignored."""


class EncircleError(Exception):
    """Base of every error raised on purpose; its text is one sentence that names the thing and the remedy."""

    exit_code = 3


class InputError(EncircleError):
    """The caller's data, case or call cannot be used as given (exit code 2)."""

    exit_code = 2


class StorageError(EncircleError):
    """A file could not be written, or what was read back is not what was written (exit code 3)."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """An error for a name that is not among `known`, offering the nearest right spelling."""
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(names)}."
    return InputError(f"unknown {kind} {name!r}; {hint}")


def digest(value: Any) -> str:
    """SHA-256 (hex, 64 digits) of a JSON-able value, the same for equal values in every process."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
