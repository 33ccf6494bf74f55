"""Charts as coordinates: where each bar, dot and line goes; templates/charts.html.j2 draws them as inline SVG.

They are laid out for a column as wide as a phone, so that words stay readable there. The page's style sheet
colours them, so that they follow its dark mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from .formats import decimal

WIDTH = 360.0
"""Width of every chart, in its own units of about one CSS pixel."""

_EDGE = 10.0
_AXIS = 30.0
_INTERVAL_ROW = 36.0
_BAR_ROW = 20.0
_NAMES = 158.0
_LETTERS = 23
_TITLE_LETTERS = 33
_LEAST_REACH = 0.05
_LINES_HEIGHT = 220.0
_LINES_LEFT = 46.0


@final
@dataclass(frozen=True)
class Tick:
    """A number at a position on an axis."""

    at: float
    text: str


@final
@dataclass(frozen=True)
class Interval:
    """A named mean with its interval, if one is claimed, before placement."""

    name: str
    text: str
    mean: float | None
    low: float | None
    high: float | None
    strong: bool


@final
@dataclass(frozen=True)
class IntervalRow:
    """A placed `Interval`; `at` is None where the mean is undefined."""

    y: float
    name: str
    text: str
    at: float | None
    start: float | None
    end: float | None
    strong: bool


@final
@dataclass(frozen=True)
class Forest:
    """Rows of intervals on one axis, with zero, the band of the seed null and, if any, the threshold."""

    height: float
    rows: list[IntervalRow]
    ticks: list[Tick]
    zero: float
    band: tuple[float, float] | None
    threshold: float | None


def forest(intervals: Sequence[Interval], band: tuple[float, float] | None, threshold: float | None) -> Forest:
    """Place intervals one under another, on an axis so wide that a small change looks small."""
    known = [
        value
        for value in (
            -_LEAST_REACH,
            _LEAST_REACH,
            threshold,
            *(band or ()),
            *(v for i in intervals for v in (i.mean, i.low, i.high)),
        )
        if value is not None
    ]
    low, high = min(known), max(known)
    pad = 0.06 * (high - low) or 0.1
    axis = Axis(low - pad, high + pad, _EDGE, WIDTH - _EDGE)
    rows = [
        IntervalRow(
            y=_INTERVAL_ROW * index,
            name=shortened(interval.name, _TITLE_LETTERS),
            text=interval.text,
            at=axis.at_known(interval.mean),
            start=axis.at_known(interval.low),
            end=axis.at_known(interval.high),
            strong=interval.strong,
        )
        for index, interval in enumerate(intervals)
    ]
    return Forest(
        height=_INTERVAL_ROW * len(rows) + _AXIS,
        rows=rows,
        ticks=axis.ticks(5),
        zero=axis.at(0.0),
        band=None if band is None else (axis.at(band[0]), axis.at(band[1])),
        threshold=axis.at_known(threshold),
    )


@final
@dataclass(frozen=True)
class BarRow:
    """One entry of a map: bars for the clean and the manipulated map, a mark for the desired one."""

    y: float
    name: str
    short: str
    clean: float
    manipulated: float
    goal: float | None
    wanted: bool


@final
@dataclass(frozen=True)
class Bars:
    """Horizontal bars from `left` on, all maps scaled to [0, 1]."""

    height: float
    x_min: float
    rows: list[BarRow]
    ticks: list[Tick]


@final
@dataclass(frozen=True)
class Entry:
    """One entry of three maps, before placement; None where a map is undefined."""

    name: str
    clean: float | None
    manipulated: float | None
    goal: float | None
    wanted: bool


def bars(entries: Sequence[Entry]) -> Bars:
    """Place one row per entry."""
    axis = Axis(0.0, 1.0, _NAMES, WIDTH - _EDGE)
    rows = [
        BarRow(
            y=_BAR_ROW * index,
            name=entry.name,
            short=shortened(entry.name, _LETTERS),
            clean=axis.length(entry.clean),
            manipulated=axis.length(entry.manipulated),
            goal=axis.at_known(entry.goal),
            wanted=entry.wanted,
        )
        for index, entry in enumerate(entries)
    ]
    return Bars(_BAR_ROW * len(rows) + _AXIS, _NAMES, rows, axis.ticks(2))


@final
@dataclass(frozen=True)
class ChangeRow:
    """One feature that the poison moved: a bar from the centre, and both values in words."""

    y: float
    name: str
    short: str
    start: float
    length: float
    text: str
    raised: bool


@final
@dataclass(frozen=True)
class Changes:
    """Bars to the left (lowered) and right (raised) of a centre line."""

    height: float
    x_min: float
    centre: float
    rows: list[ChangeRow]
    ticks: list[Tick]


def changes(features: Sequence[tuple[str, float, float]]) -> Changes:
    """Place one row per feature: its name, its value in the base and in the poison."""
    reach = max((abs(after - before) for _, before, after in features), default=0.0) or 0.1
    axis = Axis(-reach, reach, _NAMES, WIDTH - 92.0)
    rows = []
    for index, (name, before, after) in enumerate(features):
        ends = sorted((axis.at(0.0), axis.at(after - before)))
        rows.append(
            ChangeRow(
                y=_BAR_ROW * index,
                name=name,
                short=shortened(name, _LETTERS),
                start=ends[0],
                length=round(ends[1] - ends[0], 1),
                text=f"{decimal(before)} → {decimal(after)}",
                raised=after > before,
            )
        )
    return Changes(_BAR_ROW * len(rows) + _AXIS, _NAMES, axis.at(0.0), rows, axis.ticks(2))


@final
@dataclass(frozen=True)
class Lines:
    """Thin lines, one per model, and their mean, as SVG path data."""

    height: float
    x_min: float
    bottom: float
    members: list[str]
    mean: str
    across: list[Tick]
    up: list[Tick]


def lines(epochs: Sequence[float], members: Sequence[Sequence[float | None]], mean: Sequence[float | None]) -> Lines:
    """Place lines over epochs; a None leaves a gap."""
    values = [value for line in (*members, mean) for value in line if value is not None] or [0.0]
    pad = 0.05 * (max(values) - min(values)) or 0.1
    bottom = _LINES_HEIGHT - _AXIS - 8.0
    across = Axis(min(epochs), max(epochs), _LINES_LEFT, WIDTH - _EDGE)
    up = Axis(min(values) - pad, max(values) + pad, bottom, _EDGE)
    return Lines(
        height=_LINES_HEIGHT,
        x_min=_LINES_LEFT,
        bottom=bottom,
        members=[_path(across, up, epochs, member) for member in members],
        mean=_path(across, up, epochs, mean),
        across=across.ticks(6),
        up=up.ticks(5),
    )


def shortened(name: str, letters: int) -> str:
    """The name, without its middle if longer than `letters`: names often differ at the end."""
    if len(name) <= letters:
        return name
    tail = (letters - 1) // 2
    return f"{name[: letters - 1 - tail].rstrip()}…{name[-tail:].lstrip()}"


def _path(across: Axis, up: Axis, xs: Sequence[float], ys: Sequence[float | None]) -> str:
    parts: list[str] = []
    drawing = False
    for x, y in zip(xs, ys, strict=True):
        if y is not None:
            parts.append(f"{'L' if drawing else 'M'}{across.at(x):g} {up.at(y):g}")
        drawing = y is not None
    return "".join(parts)


@final
@dataclass(frozen=True)
class Axis:
    """A scale: values from `low` to `high` lie between `start` and `end` in a chart's own units."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The position of a value."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def at_known(self, value: float | None) -> float | None:
        """The position of a value, or None without one."""
        return None if value is None else self.at(value)

    def length(self, value: float | None) -> float:
        """A value's distance from the start."""
        return 0.0 if value is None else round(self.at(value) - self.start, 1)

    def ticks(self, count: int) -> list[Tick]:
        """About this many round numbers along the scale."""
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - slow to load, and most commands draw nothing

        positions = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        inside = [float(value) for value in positions if self.low - 1e-9 <= value <= self.high + 1e-9]
        return [Tick(self.at(value), f"{value:.4g}".replace("-", "−")) for value in inside]
