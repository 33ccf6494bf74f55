"""Distances of a poison to its bases, by hand and against scikit-image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import metrics as skimage_metrics

from encircle.core import InputError
from encircle.scoring import distances, psnr

peak_signal_noise_ratio: Callable[..., float] = skimage_metrics.peak_signal_noise_ratio  # scikit-image has no types


@given(
    hnp.arrays(np.float64, (3, 4), elements=st.floats(0, 1)), hnp.arrays(np.float64, (3, 4), elements=st.floats(0, 1))
)
@settings(max_examples=40)
def test_psnr_is_scikit_images(poison: Any, base: Any) -> None:
    if np.abs(poison - base).max() < 1e-6:
        return
    assert psnr(poison, base) == pytest.approx(peak_signal_noise_ratio(base, poison, data_range=1.0))


def test_psnr_of_identical_samples_is_undefined() -> None:
    base = np.full((3, 4, 4), 0.3)
    assert math.isnan(psnr(base, base))
    assert math.isnan(psnr(np.full(4, 1e-200), np.zeros(4)))  # its square is zero
    assert psnr(base + 0.1, base) == pytest.approx(20.0)


def test_distances_by_hand() -> None:
    base = np.zeros((3, 1, 2, 2))
    poison = base.copy()
    poison[0] += 0.1  # 20 dB, length 0.2
    poison[1, 0, 0, 0] = -0.2  # 20 dB, length 0.2
    result = distances(poison, base)
    assert result == pytest.approx({"linf": 0.2, "l2": 0.4 / 3, "psnr": 20.0})
    assert all(type(value) is float for value in result.values())


def test_distances_of_float32_samples_keep_the_budget_readable() -> None:
    rng = np.random.default_rng(0)
    base = rng.random((5, 3, 8, 8)).astype(np.float32)
    poison = base + np.float32(0.1) * rng.choice([-1, 1], size=base.shape).astype(np.float32)
    assert distances(poison, base)["linf"] == pytest.approx(0.1, abs=1e-6)


def test_distances_of_an_untouched_or_empty_poison() -> None:
    base = np.random.default_rng(0).random((4, 6))
    untouched = distances(base, base)
    assert (untouched["linf"], untouched["l2"]) == (0.0, 0.0)
    assert math.isnan(untouched["psnr"])
    assert all(math.isnan(value) for value in distances(base[:0], base[:0]).values())


def test_distances_do_not_wrap_around() -> None:
    assert distances(np.array([[1]], dtype=np.uint8), np.array([[2]], dtype=np.uint8))["linf"] == 1.0


def test_distances_refuse_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="shape"):
        distances(np.zeros((2, 4)), np.zeros((3, 4)))
    with pytest.raises(InputError, match="shape"):
        psnr(np.zeros(4), np.zeros(3))
    with pytest.raises(InputError, match="not finite"):
        distances(np.array([[np.nan]]), np.zeros((1, 1)))
    with pytest.raises(InputError, match="not finite"):
        psnr(np.array([np.inf]), np.zeros(1))
