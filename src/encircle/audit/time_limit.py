"""Minutes that a command may work for, over several audits or studies one after another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import final

from ..core import EncircleError
from .progress import Reporter


class OutOfTimeError(EncircleError):
    """The time is over before everything is done; what is finished is kept (exit code 3)."""


@final
@dataclass(frozen=True)
class TimeLimit:
    """When nothing new may begin any more. It can be sent to another process of this machine.

    Attributes:
        minutes: how many were given; None for as long as it takes.
        end: when they are over, in seconds since the epoch; None without a limit.
    """

    minutes: float | None = None
    end: float | None = None

    @classmethod
    def starting_now(cls, minutes: float | None) -> TimeLimit:
        """A limit of so many minutes from now on; None for none."""
        return cls(minutes, None if minutes is None else time.time() + 60 * minutes)

    @property
    def remaining(self) -> float | None:
        """Minutes that are left, at least 0; None without a limit."""
        return None if self.end is None else max(self.end - time.time(), 0.0) / 60

    @property
    def is_over(self) -> bool:
        """Whether nothing new may begin."""
        return self.remaining == 0

    @property
    def sentence(self) -> str:
        """What to say once it is over."""
        return (
            f"the {self.minutes:g} minutes are over and what is finished is kept; run the same command again to resume."
        )

    def check(self) -> None:
        """Let nothing new begin once it is over.

        Raises:
            OutOfTimeError: it is over.
        """
        if self.is_over:
            raise OutOfTimeError(self.sentence)


UNLIMITED = TimeLimit()
"""As long as it takes."""


@final
class LimitedReporter:
    """Passes on what a reporter is told, and ends the audit where a piece of work would begin too late.

    Args:
        reporter: is told.
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
