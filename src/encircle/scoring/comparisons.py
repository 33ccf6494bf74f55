"""Many comparisons at once: how likely any false claim among them is."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import InputError


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for that many comparisons (Holm, Scandinavian Journal of Statistics 1979).

    Claiming where the adjusted value is at most α makes at most one false claim among all with probability 1 - α,
    however the comparisons depend on each other.

    Args:
        p_values: one a comparison, in [0, 1]; None for a comparison that was not made, which does not count.

    Returns:
        The adjusted values in the same order, at least the given ones and at most 1; None stays None.

    Raises:
        InputError: a p-value lies outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, None, 0.03])  # of three tests: 3 x 0.01, 2 x 0.03, and never below one before
        [0.03, 0.06, None, 0.06]
    """
    tested = sorted((value, index) for index, value in enumerate(p_values) if value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, index) in enumerate(tested):
        if not 0.0 <= value <= 1.0:
            raise InputError(f"the p-value {value} is out of range; it must lie between 0 and 1.")
        largest = max(largest, min(1.0, (len(tested) - rank) * value))
        adjusted[index] = largest
    return adjusted
