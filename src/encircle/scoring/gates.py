"""Gates: conditions that measurements meet, miss, or leave open. What was asked, what was measured and the answer, as data for whoever draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

from .bootstrap import Interval

_ROUNDING = 1e-9
"""Shares that are equal but for rounding count as equal."""


@final
@dataclass(frozen=True)
class Gate:
    """A condition and its answer.

    Attributes:
        name: which condition, among those of its experiment.
        measured: what is judged; its ends are None where no interval is claimed, its mean NaN where it is undefined.
        threshold: what it is held against, in the unit of `measured`; None where nothing is asked.
        holds: whether the condition is met; None where that is undecided.
    """

    name: str
    measured: Interval
    threshold: float | None
    holds: bool | None

    @property
    def answer(self) -> Literal["holds", "does not", "undecided"]:
        """Whether it holds, in a word.

        Example:
            >>> Gate("label", Interval(0.95), 0.9, True).answer, Gate("label", Interval(math.nan), 0.9, None).answer
            ('holds', 'undecided')
        """
        return "undecided" if self.holds is None else "holds" if self.holds else "does not"


def interval_of(facts: Mapping[str, float | None]) -> Interval:
    """An interval from what JSON holds of it (`facts_of`).

    Example:
        >>> interval_of({"mean": None, "low": None, "high": None})
        Interval(mean=nan, low=None, high=None)
    """
    mean = facts["mean"]
    return Interval(math.nan if mean is None else mean, facts["low"], facts["high"])


def single(value: float | None) -> Interval:
    """A number without an interval; None is undefined.

    Example:
        >>> single(0.5)
        Interval(mean=0.5, low=None, high=None)
    """
    return Interval(math.nan if value is None else value)


def mean_at_least(name: str, measured: Interval, threshold: float | None) -> Gate:
    """Holds where the mean reaches the threshold; undecided where either is undefined.

    Args:
        name: of the condition.
        measured: whose mean is judged.
        threshold: the least that is asked; None where nothing is.

    Example:
        >>> mean_at_least("label", Interval(0.95), 0.9).holds, mean_at_least("label", Interval(0.5), 0.9).holds
        (True, False)
    """
    decided = threshold is not None and math.isfinite(measured.mean)
    return Gate(name, measured, threshold, measured.mean >= threshold - _ROUNDING if decided else None)  # type: ignore[operator]


def mean_at_most(name: str, measured: Interval, threshold: float) -> Gate:
    """Holds where the mean does not exceed the threshold; undecided where it is undefined.

    Args:
        name: of the condition.
        measured: whose mean is judged.
        threshold: the most that is allowed.

    Example:
        >>> mean_at_most("L1", Interval(0.3), 0.2).holds
        False
    """
    holds = measured.mean <= threshold + _ROUNDING if math.isfinite(measured.mean) else None
    return Gate(name, measured, threshold, holds)


def above(name: str, effect: Interval, threshold: float) -> Gate:
    """Holds where the interval lies above the threshold; undecided without one.

    Args:
        name: of the condition.
        effect: what is judged.
        threshold: in the unit of `effect`.

    Example:
        >>> above("controls", Interval(0.3, 0.1, 0.5), 0.05).holds, above("controls", Interval(0.3, 0.1, 0.5), 0.2).holds
        (True, False)
    """
    return Gate(name, effect, threshold, None if effect.low is None else effect.low > threshold)


def above_zero(name: str, effect: Interval) -> Gate:
    """Holds where the interval lies above zero; undecided without one.

    Example:
        >>> above_zero("effect", Interval(0.3, 0.1, 0.5)).holds, above_zero("effect", Interval(0.3)).holds
        (True, None)
    """
    return above(name, effect, 0.0)


def loss_ruled_out(name: str, change: Interval, most: float, *, resolvable: bool) -> Gate:
    """Holds where the interval rules out a loss larger than `most`, fails where it does not; undecided without an interval, or on too few rows.

    Args:
        name: of the condition.
        change: of a share, negative where it is lost.
        most: the largest loss that is allowed, above 0.
        resolvable: whether there are rows enough to see such a loss.

    Example:
        >>> lost = Interval(-0.005, -0.02, 0.01)  # half a point of accuracy, perhaps two
        >>> loss_ruled_out("accuracy", lost, 0.01, resolvable=True).holds
        False
    """
    decided = resolvable and change.low is not None
    return Gate(name, change, -most, -change.low <= most if decided else None)  # type: ignore[operator]


def loss_shown(name: str, change: Interval, most: float, *, resolvable: bool) -> Gate:
    """Holds where the interval rules out a loss larger than `most` on rows enough to see one, fails where it shows one; else undecided.

    Args:
        name: of the condition.
        change: of a share, negative where it is lost.
        most: the largest loss that is allowed, above 0.
        resolvable: whether there are rows enough to see such a loss.

    Example:
        >>> lost = Interval(-0.005, -0.02, 0.01)  # half a point of accuracy, perhaps two, perhaps none
        >>> loss_shown("accuracy", lost, 0.01, resolvable=True).holds is None
        True
    """
    holds: bool | None = None
    if change.high is not None and change.high < -most:
        holds = False
    elif change.low is not None and change.low >= -most and resolvable:
        holds = True
    return Gate(name, change, -most, holds)


def direction(effect: Interval) -> Literal[-1, 0, 1]:
    """1 where the interval lies above zero, -1 where it lies below, 0 where it includes zero or there is none.

    Example:
        >>> direction(Interval(0.3, 0.1, 0.5)), direction(Interval(-0.3, -0.5, -0.1)), direction(Interval(0.3))
        (1, -1, 0)
    """
    if effect.low is None or effect.high is None:
        return 0
    return 1 if effect.low > 0 else -1 if effect.high < 0 else 0
