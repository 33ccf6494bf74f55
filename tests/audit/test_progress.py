"""Time left, from what each kind of work has taken so far."""

from __future__ import annotations

import pytest

from encircle.audit import progress
from encircle.audit.progress import Estimate


def test_time_left_follows_what_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    estimate = Estimate({"craft": 30.0, "victim": 2.0})
    estimate.plan({"craft": 2, "victim": 10})
    assert estimate.remaining_seconds == pytest.approx(2 * 30 + 10 * 2)
    estimate.begin("craft")
    estimate.advance(0.5)
    assert estimate.remaining_seconds == pytest.approx(1.5 * 30 + 20)
    now[0] += 10
    estimate.finish("craft", reused=False)
    assert estimate.remaining_seconds == pytest.approx(10 + 20)
    estimate.finish("victim", reused=True)
    assert estimate.remaining_seconds == pytest.approx(10 + 18), "what was already there says nothing about time"
    for _ in range(30):
        estimate.finish("victim", reused=True)
    assert estimate.remaining_seconds == pytest.approx(10)
