"""Tables for eighty columns, the width of a pipe or a log: lines break in names, never in numbers."""

from __future__ import annotations

from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..core import printable
from ..report.text_table import TextTable
from .terminal import answers

WIDE = 110
"""Width in columns from which an estimate and its interval share a line."""

_LEAST = 10
"""Minimum width in columns for names."""

_ENDLESS = 1000


def show(content: TextTable) -> None:
    """Print a complete table; its lines are longer than the stream if the numbers need it."""
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
    """A table without rules. On a narrow stream, intervals stand below estimates and headings wrap."""
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
