"""Gates hold, fail or stay open by their numbers alone."""

from __future__ import annotations

import math

import pytest

from encircle.scoring import Interval, facts_of
from encircle.scoring.gates import (
    above_zero,
    direction,
    interval_of,
    loss_ruled_out,
    loss_shown,
    mean_at_least,
    mean_at_most,
    single,
)


@pytest.mark.parametrize(
    ("mean", "threshold", "holds"),
    [(0.6, 0.6, True), (0.3 * 3, 0.9, True), (0.59, 0.6, False), (None, 0.6, None), (0.6, None, None)],
)
def test_a_mean_reaches_a_threshold(mean: float | None, threshold: float | None, holds: bool | None) -> None:
    assert mean_at_least("x", single(mean), threshold).holds is holds


@pytest.mark.parametrize(("mean", "holds"), [(-0.2, True), (-0.19, False), (None, None)])
def test_a_mean_does_not_exceed_a_threshold(mean: float | None, holds: bool | None) -> None:
    assert mean_at_most("x", single(mean), -0.2).holds is holds


@pytest.mark.parametrize(
    ("low", "high", "holds", "sign"),
    [(0.01, 0.4, True, 1), (0.0, 0.4, False, 0), (-0.4, -0.1, False, -1), (None, None, None, 0)],
)
def test_an_effect_is_above_zero_with_its_interval(
    low: float | None, high: float | None, holds: bool | None, sign: int
) -> None:
    gate = above_zero("x", Interval(0.2, low, high))
    assert (gate.holds, gate.threshold, direction(gate.measured)) == (holds, 0.0, sign)


@pytest.mark.parametrize(
    ("low", "high", "resolvable", "ruled_out", "shown"),
    [
        (-0.009, 0.01, True, True, True),
        (-0.02, 0.01, True, False, None),
        (-0.02, -0.011, True, False, False),
        (-0.009, 0.01, False, None, None),
        (-0.02, -0.011, False, None, False),
        (None, None, True, None, None),
    ],
)
def test_a_loss_is_ruled_out_or_shown(
    low: float | None, high: float | None, resolvable: bool, ruled_out: bool | None, shown: bool | None
) -> None:
    change = Interval(-0.005, low, high)
    assert loss_ruled_out("x", change, 0.01, resolvable=resolvable).holds is ruled_out
    assert loss_shown("x", change, 0.01, resolvable=resolvable).holds is shown


def test_the_answer_is_a_word() -> None:
    gates = [mean_at_least("x", single(mean), 0.5) for mean in (1.0, 0.0, None)]
    assert [gate.answer for gate in gates] == ["holds", "does not", "undecided"]


@pytest.mark.parametrize("facts", [{"mean": 0.5, "low": 0.1, "high": 0.9}, {"mean": None, "low": None, "high": None}])
def test_what_json_holds_comes_back(facts: dict[str, float | None]) -> None:
    interval = interval_of(facts)
    assert facts_of(interval) == facts
    assert math.isnan(interval.mean) == (facts["mean"] is None)
