"""Minutes that a command may work for, over several studies one after another."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, final

from ..core import EncircleError


class OutOfTimeError(EncircleError):
    """The time is over before everything is done; what is finished is kept (exit code 3)."""


@final
class TimeLimit:
    """Counts from when it is made.

    Args:
        minutes: after which nothing new is begun; None for as long as it takes.
    """

    def __init__(self, minutes: float | None) -> None:
        self._minutes = minutes
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def remaining(self) -> float | None:
        """Minutes from now on, at least 0; None without a limit."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0) / 60

    @property
    def is_over(self) -> bool:
        """Whether nothing new may begin."""
        return self.remaining == 0

    @property
    def sentence(self) -> str:
        """What to say once it is over."""
        return f"the {self._minutes:g} minutes are over and what is finished is kept; run the same command again to resume."

    def check(self, summary: Mapping[str, Any]) -> None:
        """End the work where it is time that a study lacks.

        Args:
            summary: of the study, as in `study.json`.

        Raises:
            OutOfTimeError: the time is over, tasks wait, and none failed.
        """
        if not self.is_over:
            return
        states = [state for tasks in summary["counts"]["tasks"].values() for state, count in tasks.items() if count]
        if "waiting" in states and "failed" not in states:
            raise OutOfTimeError(self.sentence)
