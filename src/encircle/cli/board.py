"""Progress of several audits: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import final

from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..audit.progress import Estimate, Reporter
from .terminal import messages

PRIORS = {"model": 1.0, "craft": 10.0, "control": 0.2, "victim": 0.7, "ceiling": 1.0}
"""Assumed seconds of a step, until one has been timed."""


@final
class Board:
    """Progress of several audits: bars and time left on a terminal, an occasional line elsewhere."""

    def __init__(self, titles: Sequence[str], jobs: int) -> None:
        self._jobs = jobs
        self._lines = dict(enumerate(titles))
        self._now: dict[int, str] = {}
        self._estimates = {index: Estimate(PRIORS) for index in self._lines}
        self._full: dict[int, float] = {}
        self._ended: set[int] = set()
        self._started = self._last_line = time.monotonic()

    def reporter(self, index: int) -> Reporter:
        """The reporter of one audit."""
        return _Row(self, index)

    def note(self, index: int, what: str) -> None:
        """Show an audit's current step; off a terminal, every 15 seconds."""
        self._now[index] = what
        if not messages.is_terminal and time.monotonic() - self._last_line > 15:
            self._last_line = time.monotonic()
            messages.print(
                escape(f"[{self._elapsed()}] {self._lines[index]}: {what}; about {clock(self.remaining())} left")
            )

    def remaining(self) -> float:
        """Seconds until all audits are done; those not begun are assumed to be like the others."""
        remaining = [estimate.remaining_seconds for estimate in self._estimates.values()]
        begun = [full for full in self._full.values() if full]
        waiting = (len(self._lines) - len(begun)) * (sum(begun) / len(begun) if begun else 0.0)
        return max((sum(remaining) + waiting) / self._jobs, max(remaining, default=0.0))

    def _elapsed(self) -> str:
        return clock(time.monotonic() - self._started)

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for index, title in self._lines.items():
            seconds = self._estimates[index].remaining_seconds
            full = self._full.get(index, 0.0)
            done = 1.0 if index in self._ended else (max(1 - seconds / full, 0.0) if full else 0.0)
            state = "done" if index in self._ended else escape(self._now.get(index, "waiting"))
            table.add_row(escape(title), ProgressBar(total=1, completed=done, width=24), f"{done:4.0%}", state)
        remaining = f"about {clock(self.remaining())} left" if self._full else "time left not known yet"
        table.add_row(f"[dim]{self._elapsed()} so far, {remaining}[/dim]")
        return table

    def begin(self, index: int, work: dict[str, int]) -> None:
        """An audit begins, with this number of steps of each kind."""
        self._estimates[index].plan(work)
        self._full[index] = self._estimates[index].remaining_seconds

    def estimate(self, index: int) -> Estimate:
        """The estimate of one audit."""
        return self._estimates[index]

    def end(self, index: int) -> None:
        """An audit is done."""
        self._ended.add(index)


@final
class _Row:
    """The reporter of one audit on the board."""

    def __init__(self, board: Board, index: int) -> None:
        self._board, self._index = board, index
        self._remaining = 0

    def plan(self, title: str, work: dict[str, int]) -> None:
        self._remaining = sum(work.values())
        self._board.begin(self._index, work)

    def begin(self, kind: str, label: str) -> None:
        self._board.estimate(self._index).begin(kind)
        self._board.note(self._index, label)

    def advance(self, done: int, planned: int) -> None:
        self._board.estimate(self._index).advance(done / planned)

    def finish(self, kind: str, *, reused: bool = False) -> None:
        self._board.estimate(self._index).finish(kind, reused=reused)
        self._remaining -= 1
        if self._remaining <= 0:
            self._board.end(self._index)


def clock(seconds: float) -> str:
    """A time such as 3:05, or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
