"""A time limit for a command, over several audits or studies one after another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import final

from ..core import EncircleError
from .progress import Reporter


@final
class OutOfTimeError(EncircleError):
    """The time is over before all work is done; finished work stays (exit code 3)."""


@final
@dataclass(frozen=True)
class TimeLimit:
    """The time after which no new work may begin. It can be sent to another process of this machine.

    Attributes:
        minutes: the given number; None: no limit.
        end: end of the limit, in seconds since the epoch; None: no limit.
    """

    minutes: float | None = None
    end: float | None = None

    @classmethod
    def starting_now(cls, minutes: float | None) -> TimeLimit:
        """A limit of this many minutes from now; None: no limit."""
        return cls(minutes, None if minutes is None else time.time() + 60 * minutes)

    @property
    def remaining(self) -> float | None:
        """Remaining minutes, at least 0; None without a limit."""
        return None if self.end is None else max(self.end - time.time(), 0.0) / 60

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.remaining == 0

    @property
    def sentence(self) -> str:
        """The message at its end."""
        return (
            f"the {self.minutes:g} minutes are over and what is finished is kept; run the same command again to resume."
        )

    def check(self) -> None:
        """Raise an error once the time is over.

        Raises:
            OutOfTimeError: it is over.
        """
        if self.is_over:
            raise OutOfTimeError(self.sentence)


UNLIMITED = TimeLimit()
"""No limit."""


@final
class LimitedReporter:
    """Passes reports on, and ends the audit if a step would begin too late.

    Args:
        reporter: receives the reports.
        limit: ends the audit with an `OutOfTimeError`.
    """

    def __init__(self, reporter: Reporter, limit: TimeLimit) -> None:
        self._reporter, self._limit = reporter, limit

    def plan(self, title: str, work: dict[str, int]) -> None:
        """Passed on."""
        self._reporter.plan(title, work)

    def begin(self, kind: str, label: str) -> None:
        """Passed on while there is time."""
        self._limit.check()
        self._reporter.begin(kind, label)

    def advance(self, done: int, planned: int) -> None:
        """Passed on."""
        self._reporter.advance(done, planned)

    def finish(self, kind: str, *, reused: bool = False) -> None:
        """Passed on."""
        self._reporter.finish(kind, reused=reused)
