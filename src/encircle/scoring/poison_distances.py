"""Distances of a poison to its bases: pure functions over numpy arrays. What nothing defines is NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import InputError
from .arrays import UNDEFINED, Array, check_shapes


def psnr(poison: NDArray[Any], base: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of one sample against its base.

    Args:
        poison: one sample, any shape, features in [0, 1].
        base: its base sample, same shape and range.

    Returns:
        `-10 · log10(mean squared difference)`, in decibels (data range 1): higher is nearer. NaN for identical samples,
        whose ratio is infinite.

    Raises:
        InputError: the shapes differ or an entry is not finite.

    Example:
        >>> round(psnr(np.full((3, 8, 8), 0.6), np.full((3, 8, 8), 0.5)), 6)  # every value moved by a tenth
        20.0
    """
    return _psnr(_difference(poison, base))


def distances(poison: NDArray[Any], base: NDArray[Any]) -> dict[str, float]:
    """How far a poison went from its bases.

    Args:
        poison: the samples, `(n, ...)`, features in [0, 1]; n may be 0.
        base: the base sample of each, same shape and range.

    Returns:
        `linf`: the largest change of any entry of any sample, what a budget ε has to bound; `l2`: the mean over the
        samples of their Euclidean distance; `psnr`: the mean over the samples that differ from their base, in decibels,
        NaN if none does. All are NaN for an empty poison.

    Raises:
        InputError: the shapes differ or an entry is not finite.

    Example:
        >>> moved = distances(np.array([[0.3, 0.4], [0.0, 0.0]]), np.zeros((2, 2)))
        >>> {name: round(value, 2) for name, value in moved.items()}  # the second sample did not move: it has no PSNR
        {'linf': 0.4, 'l2': 0.25, 'psnr': 9.03}
    """
    check_shapes("poison", poison, "base", base)
    rows = []
    for sample, origin in zip(poison, base, strict=True):  # one at a time: a float64 copy of all may not fit in memory
        change = _difference(sample, origin)
        rows.append((np.abs(change).max(initial=0.0), np.linalg.norm(change), _psnr(change)))
    if not rows:
        return {"linf": UNDEFINED, "l2": UNDEFINED, "psnr": UNDEFINED}
    linf, l2, ratio = np.array(rows, dtype=np.float64).T
    defined = ratio[~np.isnan(ratio)]
    return {
        "linf": float(linf.max()),
        "l2": float(l2.mean()),
        "psnr": float(defined.mean()) if defined.size else UNDEFINED,
    }


def _difference(poison: NDArray[Any], base: NDArray[Any]) -> Array:
    """`poison - base` in float64 (8-bit integers would wrap around)."""
    check_shapes("poison", poison, "base", base)
    change: Array = np.asarray(poison, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    if not np.isfinite(change).all():
        raise InputError("the poison or its base holds entries that are not finite; repair the samples first.")
    return change


def _psnr(change: Array) -> float:
    """The ratio of a finite difference; NaN where nothing changed."""
    error = float(np.square(change).mean()) if change.size else 0.0
    return float(-10.0 * np.log10(error)) if error > 0 else UNDEFINED
