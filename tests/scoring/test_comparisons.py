"""Holm's procedure against its definition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encircle.core import InputError
from encircle.scoring import holm


def slow_holm(p_values: list[float | None]) -> list[float | None]:
    """Straight from the step-down definition: the adjusted value is the least level at which it would be rejected."""
    made = [value for value in p_values if value is not None]

    def rejected(level: float) -> set[float]:
        remaining, out = sorted(made), set[float]()
        while remaining and remaining[0] * len(remaining) <= level:
            out.add(remaining[0])
            remaining = remaining[1:]
        return out

    levels = sorted({min(1.0, value * factor) for value in made for factor in range(1, len(made) + 1)} | {1.0})
    return [
        None if value is None else next((level for level in levels if value in rejected(level)), 1.0)
        for value in p_values
    ]


@given(st.lists(st.one_of(st.none(), st.integers(0, 1000).map(lambda n: n / 1024)), max_size=8, unique=True))
def test_holm_is_the_least_level_of_the_step_down_procedure(p_values: list[float | None]) -> None:
    assert holm(p_values) == slow_holm(p_values)


def test_holm_of_the_textbook_example() -> None:
    """Four p-values whose adjustment is easily done by hand."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([None]) == [None]


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(wrong: float) -> None:
    with pytest.raises(InputError, match="out of range"):
        holm([wrong])
