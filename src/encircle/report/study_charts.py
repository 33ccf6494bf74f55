"""Dose-response curves as coordinates: a panel per combination of the other axes, a line per value of the series."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from .charts import WIDTH, Axis, Tick
from .formats import estimate, known

_HEIGHT = 230.0
_LEFT = 46.0
_RIGHT = 14.0
_TOP = 10.0
_BOTTOM = 44.0
_APART = 7.0
"""Distance between the whiskers of two lines at the same dose; smaller if doses are close."""

_ROOM = 24.0
"""Distance between two doses. If they would be closer, logarithms are used where that sets them further apart."""

MOST_PANELS = 24
"""Further panels are not drawn; the table has all cells."""

MARKERS = ("circle", "square", "triangle", "diamond", "cross", "ring")


@final
@dataclass(frozen=True)
class Doses:
    """Positions of a panel's doses, and the distance of its lines there."""

    axis: Axis
    logarithmic: bool
    apart: float

    @classmethod
    def of(cls, values: Sequence[float], lines: int) -> Doses:
        """A scale of the values, or of their logarithms if doses would overlap."""
        margin = max(12.0, 8 + _APART * (lines - 1) / 2)
        ends = _LEFT + margin, WIDTH - _RIGHT - margin
        even = cls(Axis(min(values), max(values), *ends), False, _APART)
        if min(values) <= 0 or even.gap(values) >= _ROOM:
            return cls(even.axis, False, min(_APART, even.gap(values) / lines))
        spread = cls(Axis(math.log10(min(values)), math.log10(max(values)), *ends), True, _APART)
        best = max(even, spread, key=lambda doses: doses.gap(values))
        return cls(best.axis, best.logarithmic, min(_APART, best.gap(values) / lines))

    def at(self, value: float) -> float:
        """The position of a dose."""
        return self.axis.at(math.log10(value) if self.logarithmic else value)

    def gap(self, values: Sequence[float]) -> float:
        """The least distance between two doses."""
        places = [self.at(value) for value in sorted(set(values))]
        return min((after - before for before, after in itertools.pairwise(places)), default=WIDTH)


@final
@dataclass(frozen=True)
class Point:
    """One cell on a line: its position, and the ends of its interval if one is claimed."""

    x: float
    y: float
    top: float | None
    bottom: float | None


@final
@dataclass(frozen=True)
class Line:
    """One value of the series; its path has a gap where a cell has no effect."""

    number: int
    marker: str
    path: str
    points: list[Point]


@final
@dataclass(frozen=True)
class Panel:
    """One combination of the axes that are neither dose nor series."""

    title: str
    alt: str
    lines: list[Line]
    band: str


@final
@dataclass(frozen=True)
class Curves:
    """All panels, on the same axes."""

    height: float
    x_min: float
    x_max: float
    floor: float
    zero: float
    threshold: float | None
    across: list[Tick]
    up: list[Tick]
    dose: str
    series: str
    legend: list[tuple[int, str, str]]
    panels: list[Panel]
    hidden: int
    broken: bool


def curves(
    axes: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]], dose: str, threshold: float
) -> Curves | None:
    """Place the curves; None if no cell on the dose's axis has an effect.

    Args:
        axes: the study's axes.
        cells: the study's cells.
        dose: the name of the axis to draw along x; it has numbers.
        threshold: the effect from which an explanation counts as bent.
    """
    along = next(axis_index for axis_index, axis in enumerate(axes) if axis["name"] == dose)
    series = _series(axes, along)
    others = [axis_index for axis_index in range(len(axes)) if axis_index not in {along, series}]
    shown = [cell for cell in cells if _is_drawn(cell)]
    if not shown:
        return None
    values = [float(value) for value in axes[along]["values"]]
    reach = [known(cell[name][end]) for cell in shown for name in ("shift", "drift") for end in ("mean", "low", "high")]
    bounds = [value for value in (*reach, 0.0, threshold) if value is not None]
    pad = 0.06 * (max(bounds) - min(bounds)) or 0.1
    up = Axis(min(bounds) - pad, max(bounds) + pad, _HEIGHT - _BOTTOM, _TOP)
    names = [""] if series is None else axes[series]["labels"]
    across = Doses.of(values, len(names))
    combinations = list(itertools.product(*(range(len(axes[axis_index]["labels"])) for axis_index in others)))
    panels = []
    for at in combinations:
        inside = [
            cell
            for cell in cells
            if all(cell["at"][axis_index] == here for axis_index, here in zip(others, at, strict=True))
        ]
        if any(_is_drawn(cell) for cell in inside):
            title = " · ".join(axes[axis_index]["labels"][here] for axis_index, here in zip(others, at, strict=True))
            panels.append(_panel(title, inside, axes[along]["labels"], along, series, names, values, across, up))
    return Curves(
        height=_HEIGHT,
        x_min=_LEFT,
        x_max=WIDTH - _RIGHT,
        floor=_HEIGHT - _BOTTOM,
        zero=up.at(0.0),
        threshold=up.at(threshold),
        across=[Tick(across.at(value), label) for value, label in _sparse(values, axes[along]["labels"], across)],
        up=up.ticks(5),
        dose=axes[along]["title"] + (", logarithmic" if across.logarithmic else ""),
        series="" if series is None else axes[series]["title"],
        legend=[(number, MARKERS[number % len(MARKERS)], name) for number, name in enumerate(names) if name],
        panels=panels[:MOST_PANELS],
        hidden=max(len(panels) - MOST_PANELS, 0),
        broken=len(shown) < len(cells),
    )


def _is_drawn(cell: Mapping[str, Any]) -> bool:
    return known(cell["shift"]["mean"]) is not None


def _series(axes: Sequence[Mapping[str, Any]], along: int) -> int | None:
    """The axis whose values are the lines of a panel: the attack's, else the last one with few values."""
    others = [
        axis_index
        for axis_index in range(len(axes))
        if axis_index != along and 2 <= len(axes[axis_index]["labels"]) <= len(MARKERS)
    ]
    attacks = [axis_index for axis_index in others if str(axes[axis_index]["name"]).partition(".")[0] == "attack"]
    return next(iter([*attacks, *reversed(others)]), None)


def _panel(
    title: str,
    cells: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    along: int,
    series: int | None,
    names: Sequence[str],
    values: Sequence[float],
    across: Doses,
    up: Axis,
) -> Panel:
    lines, words = [], []
    for number, name in enumerate(names):
        line_cells = [cell for cell in cells if series is None or cell["at"][series] == number]
        if not line_cells:
            continue
        line_cells.sort(key=lambda cell: values[cell["at"][along]])
        aside = across.apart * (number - (len(names) - 1) / 2)
        runs = [list(run) for drawn, run in itertools.groupby(line_cells, _is_drawn) if drawn]
        pieces = [[_point(cell, across.at(values[cell["at"][along]]) + aside, up) for cell in run] for run in runs]
        path = "".join("M" + "L".join(f"{point.x:g} {point.y:g}" for point in piece) for piece in pieces)
        if path:
            lines.append(Line(number, MARKERS[number % len(MARKERS)], path, list(itertools.chain(*pieces))))
        said = ", ".join(f"{labels[cell['at'][along]]}: {_in_words(cell)}" for cell in line_cells)
        words.append(f"{name}: {said}" if name else said)
    return Panel(title, f"Effect against dose. {'; '.join(words)}.", lines, _band(cells, along, values, across, up))


def _in_words(cell: Mapping[str, Any]) -> str:
    return "did not finish" if cell["verdict"] == "ERROR" else estimate(cell["shift"], signed=True)


def _point(cell: Mapping[str, Any], x: float, up: Axis) -> Point:
    shift = cell["shift"]
    return Point(
        x=round(x, 1),
        y=up.at(float(shift["mean"])),
        top=up.at_known(known(shift["high"])),
        bottom=up.at_known(known(shift["low"])),
    )


def _band(cells: Sequence[Mapping[str, Any]], along: int, values: Sequence[float], across: Doses, up: Axis) -> str:
    """The seed null's intervals over the doses, as wide as the widest of the panel's lines."""
    ends: dict[float, tuple[float, float]] = {}
    for cell in cells:
        low, high = known(cell["drift"]["low"]), known(cell["drift"]["high"])
        if low is not None and high is not None:
            value = values[cell["at"][along]]
            before = ends.get(value, (low, high))
            ends[value] = (min(before[0], low), max(before[1], high))
    if len(ends) < 2:
        return ""
    there = [f"{across.at(value):g} {up.at(ends[value][1]):g}" for value in sorted(ends)]
    back = [f"{across.at(value):g} {up.at(ends[value][0]):g}" for value in sorted(ends, reverse=True)]
    return f"M{'L'.join([*there, *back])}Z"


def _sparse(values: Sequence[float], labels: Sequence[str], across: Doses) -> list[tuple[float, str]]:
    """Values and labels for the axis, without labels that would overlap the one before."""
    shown: list[tuple[float, str]] = []
    for value, label in sorted(zip(values, labels, strict=True)):
        if not shown or across.at(value) - across.at(shown[-1][0]) > 3.5 * (len(label) + len(shown[-1][1])) + 4:
            shown.append((value, label))
    return shown
