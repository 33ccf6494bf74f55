"""Numbers in the report: two decimals, a real minus sign, and a word for undefined ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

UNDEFINED = "undefined"

_NBSP = "\u00a0"

_MINUTE = 60.0
_HOUR = 3600.0


def known(value: Any) -> float | None:
    """The number, or None for null and NaN."""
    if value is None or math.isnan(value):
        return None
    return float(value)


def decimal(value: Any, digits: int = 2, *, signed: bool = False) -> str:
    """`0.31`, `−0.04`, with `signed` `+0.31`; never `-0.00`."""
    number = known(value)
    if number is None:
        return UNDEFINED
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    text = f"{abs(number):.{digits}f}"
    if float(text) == 0:
        return text
    return ("−" if number < 0 else "+" if signed else "") + text


def estimate(value: Mapping[str, Any], *, signed: bool = False, scale: float = 1.0, digits: int = 2) -> str:
    """`0.31 [0.22, 0.40]`, or only the mean if no interval is claimed; lines break only before the bracket."""
    mean, low, high = (known(value[key]) for key in ("mean", "low", "high"))
    if mean is None:
        return UNDEFINED
    text = decimal(mean * scale, digits, signed=signed)
    if low is None or high is None:
        return text
    return f"{text} [{decimal(low * scale, digits)},{_NBSP}{decimal(high * scale, digits)}]"


def plain_estimate(value: Mapping[str, Any], form: str = "+.2f", *, scale: float = 1.0) -> str:
    """`+0.31 [+0.22, +0.40]` in plain characters, for terminals and Markdown, or only the mean without an interval."""
    mean, low, high = (known(value[key]) for key in ("mean", "low", "high"))
    if mean is None:
        return UNDEFINED
    span = "" if low is None or high is None else f" [{low * scale:{form}}, {high * scale:{form}}]"
    return f"{mean * scale:{form}}{span}"


def points(value: Mapping[str, Any]) -> str:
    """The mean of a share in percentage points, `-1.2`, for terminals and Markdown."""
    mean = known(value["mean"])
    return UNDEFINED if mean is None else f"{100 * mean:+.1f}"


def p_value(value: Any) -> str:
    """`0.028`; `< 0.001` for smaller values, as none is 0; `none` without a test."""
    number = known(value)
    if number is None:
        return "none"
    return "< 0.001" if number < 0.001 else decimal(number, 3)


def percent(value: Any) -> str:
    """A share as `10 %`, with one decimal if needed."""
    number = known(value)
    if number is None:
        return UNDEFINED
    text = decimal(100 * number, 1)
    return f"{text.removesuffix('.0')}{_NBSP}%"


def percent_estimate(value: Mapping[str, Any]) -> str:
    """A share with its interval: `95 % [90, 100]`."""
    mean, low, high = (known(value[key]) for key in ("mean", "low", "high"))
    if low is None or high is None:
        return percent(mean)
    ends = f",{_NBSP}".join(percent(end).removesuffix(f"{_NBSP}%") for end in (low, high))
    return f"{percent(mean)} [{ends}]"


def duration(seconds: Any) -> str:
    """`0.4 s`, `42 s`, `3 min 5 s`, `2 h 10 min`."""
    number = known(seconds)
    if number is None:
        return UNDEFINED
    if number < 9.95:
        return f"{number:.1f}{_NBSP}s"
    if round(number) < _MINUTE:
        return f"{number:.0f}{_NBSP}s"
    if number < _HOUR:
        minutes, rest = divmod(round(number), 60)
        return f"{minutes}{_NBSP}min {rest}{_NBSP}s"
    hours, rest = divmod(round(number / 60), 60)
    return f"{hours}{_NBSP}h {rest}{_NBSP}min"
