"""Progress of work: a protocol for reports, and the time left, from the time each kind took so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, final


class Reporter(Protocol):
    """Receives reports about work in progress; `Silent` ignores them."""

    def plan(self, title: str, work: dict[str, int]) -> None:
        """A run begins. `work` counts its steps of each kind; some may be done already."""

    def begin(self, kind: str, label: str) -> None:
        """A step of this kind begins."""

    def advance(self, done: int, planned: int) -> None:
        """The progress of the current step."""

    def finish(self, kind: str, *, reused: bool = False) -> None:
        """A step of this kind is done, or was done before."""


@final
class Silent:
    """Reports nothing."""

    def plan(self, title: str, work: dict[str, int]) -> None:
        """Ignored."""

    def begin(self, kind: str, label: str) -> None:
        """Ignored."""

    def advance(self, done: int, planned: int) -> None:
        """Ignored."""

    def finish(self, kind: str, *, reused: bool = False) -> None:
        """Ignored."""


@final
class WorkLog:
    """Reports each step, and adds up the time of each kind.

    Args:
        reporter: receives progress.

    Attributes:
        seconds: time spent so far, by kind of work.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.seconds: dict[str, float] = {}

    @contextmanager
    def work(self, kind: str, label: str) -> Iterator[None]:
        """Time a step and report its beginning and end."""
        self.reporter.begin(kind, label)
        started = time.monotonic()
        yield
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - started
        self.reporter.finish(kind)

    def reused(self, kind: str, count: int = 1) -> None:
        """Report steps that are done already."""
        for _ in range(count):
            self.reporter.finish(kind, reused=True)


@final
class Estimate:
    """Finished and remaining work; each kind is weighted by the seconds of a step.

    Args:
        prior: assumed seconds for a step of each kind, until one has been timed.
    """

    def __init__(self, prior: dict[str, float]) -> None:
        self._prior = prior
        self._remaining: dict[str, int] = {}
        self._timed: dict[str, list[float]] = {}
        self._started = time.monotonic()
        self._share = 0.0
        self._kind = ""

    def plan(self, work: dict[str, int]) -> None:
        """Add steps to the remaining work."""
        for kind, count in work.items():
            self._remaining[kind] = self._remaining.get(kind, 0) + count

    def begin(self, kind: str) -> None:
        """A step begins."""
        self._kind, self._share, self._started = kind, 0.0, time.monotonic()

    def advance(self, share: float) -> None:
        """This share of the current step is done."""
        self._share = share

    def finish(self, kind: str, *, reused: bool) -> None:
        """A step is done. Steps that were done before say nothing about time."""
        self._remaining[kind] = max(self._remaining.get(kind, 0) - 1, 0)
        if not reused:
            self._timed.setdefault(kind, []).append(time.monotonic() - self._started)
        self._kind, self._share = "", 0.0

    def seconds(self, kind: str) -> float:
        """Seconds for a step of this kind."""
        timed = self._timed.get(kind)
        return sum(timed) / len(timed) if timed else self._prior.get(kind, 1.0)

    @property
    def remaining_seconds(self) -> float:
        """Seconds for the remaining work."""
        total = sum(count * self.seconds(kind) for kind, count in self._remaining.items())
        return max(total - (self._share * self.seconds(self._kind) if self._kind else 0.0), 0.0)
