"""Tables that stay readable in eighty columns, which is what a pipe or a log has: numbers are never broken, names are."""

from __future__ import annotations

from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..core import printable
from ..report.text_table import TextTable
from .terminal import answers

WIDE = 110
"""Columns from which an estimate stands on one line with its interval."""

_LEAST = 10
"""Columns that names have at least."""

_ENDLESS = 1000


def show(content: TextTable) -> None:
    """Print a table whole: where the stream is too narrow even for its numbers, its lines are longer."""
    table = _laid_out(content)
    options = answers.options.update(max_width=_ENDLESS)
    for column in table.columns:
        if column.no_wrap:
            cells = (column.header, *column.cells)
            column.min_width = max(Measurement.get(answers, options, cell).maximum for cell in cells)
    least = Measurement.get(answers, options, table).minimum
    if least > answers.width:
        table.width = least
    answers.print(table, crop=False)


def _laid_out(content: TextTable) -> Table:
    """A table without lines; on a narrow stream an interval stands below its estimate, and headings on several lines."""
    wide = answers.width >= WIDE
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0) if wide else (0, 1, 0, 0),
        title=escape(content.title) or None,
        caption=escape(content.caption) or None,
    )
    table.title_justify = table.caption_justify = "left"
    if content.groups:
        table.add_column(Text(""), no_wrap=True)
    table.add_column(Text(content.name), overflow="fold", min_width=_LEAST)
    for heading in content.numbers:
        table.add_column(Text(heading if wide else heading.replace(" ", "\n")), no_wrap=True)
    for index, row in enumerate(content.rows):
        name, *numbers = row or ("",)
        group = [Text(content.groups[index])] if content.groups else []
        cells = [Text(number if wide else number.replace(" [", "\n[")) for number in numbers]
        table.add_row(*group, Text(printable(name)), *cells)
    return table
