"""What every floor above stands on: errors that name their remedy, and digests. No torch: reports need none."""

from __future__ import annotations

import hashlib
import json
import traceback
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, final

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


@final
class StorageError(EncircleError):
    """A file could not be written, or what was read back is not what was written (exit code 3)."""


def internal_error(error: Exception) -> str:
    """The sentence about an error that nobody foresaw: its class, the file and line it was raised at, its message.

    Args:
        error: it was raised, so it has a traceback.
    """
    frames = traceback.extract_tb(error.__traceback__)
    line = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
    message = " ".join(str(error).split())[:300]
    return f"internal error {type(error).__name__} at {line}: {message}; please report it."


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """An error for a name that is not among those known, offering the nearest right spelling.

    Args:
        kind: what the name is of, such as `"attack"`.
        name: as it was written.
        known: the right names.

    Example:
        >>> unknown_name("attack", "inf", ["imf", "watermark"])
        InputError("unknown attack 'inf'; did you mean 'imf'?")
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(names)}."
    return InputError(f"unknown {kind} {name!r}; {hint}")


def number_text(value: int | float, *, percent: bool = False) -> str:
    """A number for people, as short as reads back as the same: `0.1`, `0.1234567`, `1e+07`.

    Args:
        value: the number.
        percent: a share in per cent, `7` for 0.07, without the sign.
    """
    exact = Decimal(repr(float(value)) if isinstance(value, float) else value)
    exact = exact.scaleb(2) if percent else exact
    short = f"{float(exact):g}"
    if not exact.is_finite() or Decimal(short) == exact:
        return short
    return f"{exact.normalize():f}" if percent else str(value)


def printable(text: str) -> str:
    r"""Text that a terminal only shows, in one line: without escape sequences or changes of the writing direction.

    Args:
        text: of whatever source.

    Returns:
        The text with spaces for line breaks and tabs, and codes such as `\x1b` for other control characters and for lone surrogates.
    """
    return "".join(" " if letter in _BREAKS else _code(letter) for letter in text)


_BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
_DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def _code(letter: str) -> str:
    silent = unicodedata.category(letter) in {"Cc", "Cs"} or letter in _DIRECTIONS
    return letter.encode("unicode_escape").decode() if silent else letter


def digest(value: Any) -> str:
    """SHA-256 (hex, 64 digits) of a JSON-able value, the same for equal values in every process."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
