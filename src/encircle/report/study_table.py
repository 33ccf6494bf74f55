"""The heat table of a study: a column for each dose, a row for each combination of the other axes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from .formats import decimal, known

_DEEPEST = 46.0
"""Per cent of the accent colour in the deepest cell: text stays readable on it in light and dark."""

_LEAST = 0.2
"""The effect with the deepest colour, unless the table has a larger one."""


@final
@dataclass(frozen=True)
class HeatCell:
    """A cell of the table; None stands for a combination that the study leaves out."""

    href: str
    verdict: str
    mean: str
    interval: str
    direction: str
    depth: str
    words: str


@final
@dataclass(frozen=True)
class Heading:
    """A row's label on one axis, and the number of rows that share it and all labels left of it."""

    text: str
    rows: int


@final
@dataclass(frozen=True)
class Row:
    """A row: the headings that begin at it, the labels of all axes but the last in one line, and its cells."""

    headings: list[Heading]
    before: str
    cells: list[HeatCell | None]


@final
@dataclass(frozen=True)
class Table:
    """The table, its headings, and the largest effect of its scale."""

    heads: list[str]
    across: str
    columns: list[str]
    rows: list[Row]
    deepest: str


def table(
    axes: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]], dose: str | None, links: Sequence[str]
) -> Table:
    """Lay the cells out.

    Args:
        axes: the study's axes.
        cells: its cells.
        dose: the axis of the columns; without one it is the last.
        links: the page that each cell opens.
    """
    cell_at = {tuple(cell["at"]): (cell, link) for cell, link in zip(cells, links, strict=True)}
    names = [axis["name"] for axis in axes]
    along = names.index(dose) if dose in names else len(axes) - 1
    down = [axis_index for axis_index in range(len(axes)) if axis_index != along]
    reach = max([_LEAST, *(abs(known(cell["shift"]["mean"]) or 0.0) for cell in cells)])
    columns = list(range(len(axes[along]["labels"]))) if axes else [0]
    lines: list[tuple[list[str], list[HeatCell | None]]] = []
    for at in itertools.product(*(range(len(axes[axis_index]["labels"])) for axis_index in down)):
        line: list[HeatCell | None] = []
        for column in columns:
            position = dict(zip(down, at, strict=True)) | ({along: column} if axes else {})
            hit = cell_at.get(tuple(position[axis_index] for axis_index in range(len(axes))))
            line.append(None if hit is None else _cell(*hit, reach))
        if any(line):
            lines.append(([axes[axis_index]["labels"][here] for axis_index, here in zip(down, at, strict=True)], line))
    return Table(
        heads=[axes[axis_index]["title"] for axis_index in down],
        across=axes[along]["title"] if axes else "",
        columns=list(axes[along]["labels"]) if axes else [""],
        rows=_rows(lines),
        deepest=decimal(reach),
    )


def _rows(lines: Sequence[tuple[list[str], list[HeatCell | None]]]) -> list[Row]:
    """The lines as rows; a repeated label is written once."""
    rows = []
    for number, (labels, cells) in enumerate(lines):
        headings = []
        for depth, text in enumerate(labels, start=1):
            alike = [other[:depth] == labels[:depth] for other, _ in lines[number:]] + [False]
            if depth == len(labels) or not number or lines[number - 1][0][:depth] != labels[:depth]:
                headings.append(Heading(text, 1 if depth == len(labels) else alike.index(False)))
        rows.append(Row(headings, "".join(f"{text} · " for text in labels[:-1]), cells))
    return rows


def _cell(cell: Mapping[str, Any], href: str, reach: float) -> HeatCell:
    mean, low, high = (known(cell["shift"][end]) for end in ("mean", "low", "high"))
    if mean is None:
        shown = "" if cell["verdict"] == "ERROR" else "undefined"
        below = "did not finish" if cell["verdict"] == "ERROR" else "no interval"
        return HeatCell(href, cell["verdict"], shown, below, "none", "0", f"{cell['title']}: {cell['sentence']}")
    claimed = low is not None and high is not None
    interval = f"{decimal(low, signed=True)} to {decimal(high, signed=True)}" if claimed else "no interval"
    return HeatCell(
        href=href,
        verdict=cell["verdict"],
        mean=decimal(mean, signed=True),
        interval=interval,
        direction="up" if mean >= 0 else "down",
        depth=f"{_DEEPEST * min(abs(mean) / reach, 1.0):.0f}",
        words=f"{cell['title']}: {cell['sentence']}",
    )
