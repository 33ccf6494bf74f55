"""Tables that stay readable in eighty columns, which is what a pipe or a log has: numbers are never broken, names are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..core import printable
from ..report.formats import plain_estimate
from .terminal import answers

WIDE = 110
"""Columns from which an estimate stands on one line with its interval."""

_LEAST = 12
"""Columns that names have at least."""

_ENDLESS = 1000


def number_table(name: str, numbers: Iterable[str], *, group: str | None = None, **settings: Any) -> Table:
    """A table without lines, for `show`.

    Args:
        name: heading of the column that wraps.
        numbers: headings of columns that never do.
        group: heading of a column before the names; None has none.
        settings: as of `rich.table.Table`.
    """
    wide = answers.width >= WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0) if wide else (0, 1, 0, 0), **settings)
    table.title_justify = table.caption_justify = "left"
    if group is not None:
        table.add_column(Text(group), no_wrap=True)
    table.add_column(Text(name), overflow="fold", min_width=_LEAST)
    for heading in numbers:
        table.add_column(Text(heading if wide else heading.replace(" ", "\n")), no_wrap=True)
    return table


def show(table: Table) -> None:
    """Print a table whole: where the stream is too narrow even for its numbers, its lines are longer."""
    options = answers.options.update(max_width=_ENDLESS)
    for column in table.columns:
        if column.no_wrap:
            cells = (column.header, *column.cells)
            column.min_width = max(Measurement.get(answers, options, cell).maximum for cell in cells)
    least = Measurement.get(answers, options, table).minimum
    if least > answers.width:
        table.width = least
    answers.print(table, crop=False)


def estimate_cell(value: Mapping[str, Any], form: str = "+.2f") -> Text:
    """An estimate; on a narrow stream its interval stands below it."""
    text = plain_estimate(value, form)
    return Text(text if answers.width >= WIDE else text.replace(" [", "\n["))


def name_cell(text: str) -> Text:
    """A name that a case, a study or data gave."""
    return Text(printable(text))
