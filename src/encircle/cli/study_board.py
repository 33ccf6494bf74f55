"""Progress of a study: bars and time left on a terminal, JSON lines on request, else occasional lines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, final

from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..study.task_kinds import TASK_KINDS
from .board import clock
from .terminal import answers, messages

PAUSE = 30.0
"""Seconds between two lines without a terminal."""


@final
class StudyBoard:
    """Receives events of a study's driver, and shows them.

    Args:
        as_json: print every event as one JSON line on stdout instead.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._live = Live(self, console=messages, refresh_per_second=4, transient=True)
        self._shown = messages.is_terminal and not as_json
        self._total: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._timed: dict[str, list[float]] = {}
        self._running: dict[str, tuple[str, str, float]] = {}
        self._shares: dict[str, float] = {}
        self._failed = 0
        self._most = 1
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> StudyBoard:
        """Begin to show."""
        if self._shown:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        if self._shown:
            self._live.stop()

    def hear(self, event: str, facts: Mapping[str, Any]) -> None:
        """An event of the driver (`jobs.driver`)."""
        if self._as_json:
            answers.json_line({"event": event, **facts})
        if event == "begin":
            for kind, states in facts["counts"].items():
                self._total[kind] = sum(states.values())
                self._done[kind] = states.get("done", 0)
        elif event == "start":
            self._running[facts["task"]] = (facts["kind"], facts["label"], time.monotonic())
            self._most = max(self._most, len(self._running))
        elif event == "progress":
            self._shares[facts["task"]] = facts["share"]
        elif event in {"done", "failed", "lost"}:
            self._end(event, facts)
        elif event == "rebuilt" and not self._as_json:
            messages.print(facts["message"], style="yellow", markup=False, soft_wrap=True)
        if not self._as_json and not self._shown and time.monotonic() - self._last_line >= PAUSE:
            self._last_line = time.monotonic()
            self._say()

    def _say(self) -> None:
        done, total = sum(self._done.values()), sum(self._total.values())
        failed = f", {self._failed} failed" if self._failed else ""
        now = "; ".join(label for _, label, _ in self._running.values())
        line = f"[{clock(time.monotonic() - self._started)}] {done} of {total} tasks done{failed}, about {clock(self.remaining())} left"
        messages.print(f"{line}; now: {now}" if now else line, markup=False, soft_wrap=True)

    def _end(self, event: str, facts: Mapping[str, Any]) -> None:
        kind = facts["kind"]
        self._running.pop(facts["task"], None)
        self._shares.pop(facts["task"], None)
        if event == "done":
            self._done[kind] = self._done.get(kind, 0) + 1
            if facts.get("seconds"):
                self._timed.setdefault(kind, []).append(facts["seconds"])
        elif event == "failed":
            self._failed += 1
            if self._shown:
                messages.print(f"failed: {facts['label']}: {facts['error']}", style="red", markup=False, soft_wrap=True)

    def remaining(self) -> float:
        """Seconds until the study is done, at the pace so far."""
        total = 0.0
        for kind, count in self._total.items():
            total += (count - self._done.get(kind, 0)) * self._seconds(kind)
        for task, (kind, _, _) in self._running.items():
            total -= self._shares.get(task, 0.0) * self._seconds(kind)
        return max(total, 0.0) / self._most

    def _seconds(self, kind: str) -> float:
        timed = self._timed.get(kind)
        return sum(timed) / len(timed) if timed else TASK_KINDS[kind].prior

    def __rich__(self) -> Table:
        """The board."""
        table = Table.grid(padding=(0, 1))
        for kind, row in TASK_KINDS.items():
            if total := self._total.get(kind):
                done = self._done.get(kind, 0)
                table.add_row(row.words, ProgressBar(total=total, completed=done, width=24), f"{done} of {total}")
        for task, (_, label, since) in self._running.items():
            share = f"{self._shares[task]:.0%}" if task in self._shares else ""
            table.add_row(f"[dim]{escape(label)}[/dim]", "", f"[dim]{clock(time.monotonic() - since)} {share}[/dim]")
        failed = f", [red]{self._failed} failed[/red]" if self._failed else ""
        spent = clock(time.monotonic() - self._started)
        table.add_row(f"[dim]{spent} so far, about {clock(self.remaining())} left[/dim]{failed}")
        return table
