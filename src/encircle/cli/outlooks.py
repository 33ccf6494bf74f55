"""The output of a dry run: tables and sentences for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from ..study.dry_run import AuditOutlook, StudyOutlook
from .board import clock
from .terminal import answers, messages

PLANNED = "planned"
"""The `event` of a dry run's JSON object."""


def say_timing(what: str) -> None:
    """Print a description of the work being timed."""
    messages.print(what, style="dim", markup=False)


def show_study(outlook: StudyOutlook, *notes: str, as_json: bool) -> None:
    """Show the planned work of a study.

    Args:
        outlook: the planned work.
        notes: further notes.
        as_json: print JSON.
    """
    if as_json:
        answers.json_line({"event": PLANNED, **outlook.facts(), "notes": [*outlook.notes, *notes]})
        return
    _print_study(outlook)
    for note in notes:
        answers.print(note, markup=False)


def show_studies(outlooks: Mapping[str, StudyOutlook], *, as_json: bool) -> None:
    """Show the planned work of several studies, by name."""
    if as_json:
        answers.json_line({"event": PLANNED, "studies": {name: study.facts() for name, study in outlooks.items()}})
        return
    for outlook in outlooks.values():
        _print_study(outlook)


def show_audits(outlooks: Sequence[AuditOutlook], *, as_json: bool) -> None:
    """Show the planned work of audits."""
    if as_json:
        answers.json_line({"event": PLANNED, "audits": [outlook.facts() for outlook in outlooks]})
        return
    for outlook in outlooks:
        pieces = ", ".join(f"{count} x {kind}" for kind, count in outlook.work.items())
        for note in (pieces, *outlook.notes):
            answers.print(escape(f"{outlook.title}: {note}"))
        answers.print(escape(f"{outlook.title}: about {clock(outlook.seconds)} on one processor, from a short probe"))


def _print_study(outlook: StudyOutlook) -> None:
    answers.print(f"{outlook.title}: {outlook.runs} runs in {outlook.cells} cells, {outlook.tasks} tasks", markup=False)
    least, most = outlook.poison
    answers.print(f"{least if least == most else f'{least} to {most}'} poison samples a target", markup=False)
    for note in outlook.notes:
        answers.print(note, markup=False, soft_wrap=True)
    table = Table("", "tasks", "without sharing", "one after another")
    for kind in outlook.work:
        unshared = "" if kind.unshared is None else str(kind.unshared)
        table.add_row(kind.words, str(kind.tasks), unshared, f"about {clock(kind.seconds)}")
    answers.print(table)
    workers = f"{outlook.workers} worker{'s' if outlook.workers > 1 else ''}"
    answers.print(f"about {clock(outlook.seconds)} with {workers}, from a short probe")
