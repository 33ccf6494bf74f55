"""How long work tells how far it is: a protocol, and the time left from what each kind of work has taken so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, final


class Reporter(Protocol):
    """Told about work as it happens; see `Silent` for the one that ignores it."""

    def plan(self, title: str, work: dict[str, int]) -> None:
        """A run begins that consists of so many pieces of each kind, some of which may already be there."""

    def begin(self, kind: str, label: str) -> None:
        """A piece of work of this kind begins."""

    def advance(self, done: int, planned: int) -> None:
        """How far the current piece is."""

    def finish(self, kind: str, *, reused: bool = False) -> None:
        """A piece of this kind is done, or was already there."""


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
    """Tells a reporter of each piece of work, and adds up what each kind took.

    Args:
        reporter: told about progress.

    Attributes:
        seconds: time spent so far, by kind of work.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.seconds: dict[str, float] = {}

    @contextmanager
    def work(self, kind: str, label: str) -> Iterator[None]:
        """Time a piece of work and report its beginning and end."""
        self.reporter.begin(kind, label)
        started = time.monotonic()
        yield
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - started
        self.reporter.finish(kind)

    def reused(self, kind: str, count: int = 1) -> None:
        """Report pieces of work that are there already."""
        for _ in range(count):
            self.reporter.finish(kind, reused=True)


@final
class Estimate:
    """Done and left, weighing each kind of work by what a piece of it takes.

    Args:
        prior: seconds a piece of each kind is thought to take until one has been timed.
    """

    def __init__(self, prior: dict[str, float]) -> None:
        self._prior = prior
        self._remaining: dict[str, int] = {}
        self._timed: dict[str, list[float]] = {}
        self._started = time.monotonic()
        self._share = 0.0
        self._kind = ""

    def plan(self, work: dict[str, int]) -> None:
        """Add pieces of work to what is left."""
        for kind, count in work.items():
            self._remaining[kind] = self._remaining.get(kind, 0) + count

    def begin(self, kind: str) -> None:
        """A piece begins."""
        self._kind, self._share, self._started = kind, 0.0, time.monotonic()

    def advance(self, share: float) -> None:
        """The current piece is this share done."""
        self._share = share

    def finish(self, kind: str, *, reused: bool) -> None:
        """A piece is done; pieces that were already there tell nothing about time."""
        self._remaining[kind] = max(self._remaining.get(kind, 0) - 1, 0)
        if not reused:
            self._timed.setdefault(kind, []).append(time.monotonic() - self._started)
        self._kind, self._share = "", 0.0

    def seconds(self, kind: str) -> float:
        """What a piece of this kind takes."""
        timed = self._timed.get(kind)
        return sum(timed) / len(timed) if timed else self._prior.get(kind, 1.0)

    @property
    def remaining_seconds(self) -> float:
        """Seconds that the remaining work takes."""
        total = sum(count * self.seconds(kind) for kind, count in self._remaining.items())
        return max(total - (self._share * self.seconds(self._kind) if self._kind else 0.0), 0.0)
