"""The small pieces the report is made of: numbers in words, pictures, coordinates."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from encircle.report.charts import Interval, changes, forest, lines, shortened
from encircle.report.formats import (
    decimal,
    duration,
    estimate,
    p_value,
    percent,
    percent_estimate,
    plain_estimate,
    points,
)
from encircle.report.pictures import Picture, difference, heat, outline, photograph, scaled, strongest_at, wanted


def levels(picture: Picture) -> np.ndarray:
    _, _, content = picture.uri.partition("base64,")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert image.shape[:2] == (picture.height, picture.width)
    return image


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.314, False, "0.31"),
        (0.314, True, "+0.31"),
        (-0.314, True, "−0.31"),
        (-0.001, True, "0.00"),
        (None, False, "undefined"),
        (math.nan, True, "undefined"),
        (math.inf, False, "∞"),
        (-math.inf, False, "−∞"),
        (True, False, "1.00"),
    ],
)
def test_decimals(value: float | None, signed: bool, text: str) -> None:
    assert decimal(value, signed=signed) == text


def test_estimates() -> None:
    assert estimate({"mean": 0.31, "low": 0.22, "high": 0.4}) == "0.31 [0.22,\u00a00.40]"
    assert estimate({"mean": 0.31, "low": None, "high": 0.4}, signed=True) == "+0.31"
    assert estimate({"mean": None, "low": 0.1, "high": 0.2}) == "undefined"
    assert estimate({"mean": -0.004, "low": -0.01, "high": 0.0}, scale=100, digits=1) == "−0.4 [−1.0,\u00a00.0]"
    assert plain_estimate({"mean": 0.31, "low": 0.22, "high": 0.4}) == "+0.31 [+0.22, +0.40]"
    assert plain_estimate({"mean": -0.004, "low": None, "high": 0.4}, "+.1f", scale=100) == "-0.4"
    assert plain_estimate({"mean": None, "low": None, "high": None}) == "undefined"
    assert percent_estimate({"mean": 0.95, "low": 0.9, "high": 1.0}) == "95\u00a0% [90,\u00a0100]"
    assert percent_estimate({"mean": None, "low": None, "high": None}) == "undefined"
    assert percent(0.0126) == "1.3\u00a0%"
    assert percent(0.1) == "10\u00a0%"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (42, "42 s"), (59.7, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (None, "undefined")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == text


def test_scaled_survives_tiny_maps_and_refuses_constant_ones() -> None:
    unit = scaled(np.array([1e-12, 3e-12, 2e-12], np.float32))
    assert unit is not None
    np.testing.assert_allclose(unit, [0, 1, 0.5], atol=1e-6)
    assert scaled(np.full(3, 0.1, np.float32)) is None
    assert scaled(np.array([0, math.nan], np.float32)) is None


def test_wanted_is_the_scored_upper_half() -> None:
    goal, mask = np.array([0, 0.4, 0.6, 1], np.float32), np.array([1, 1, 1, 0], np.float32)
    assert wanted(goal, mask).tolist() == [False, False, True, False]
    assert wanted(np.ones(4, np.float32), mask).tolist() == [True, True, True, False]


def test_outline_encloses_the_marked_cells() -> None:
    marked = np.zeros((3, 3), bool)
    marked[1, 1] = True
    assert sorted(outline(marked).replace("M", " M").split(" M")[1:]) == sorted(["1 1h1", "1 2h1", "1 1v1", "2 1v1"])
    assert outline(np.zeros((3, 3), bool)) == ""
    assert outline(np.ones((2, 2), bool)).count("M") == 8


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 5)), (2, (4, 5)), (3, (4, 5, 3)), (5, (4, 5, 3))])
def test_photographs_keep_their_pixels(channels: int, shape: tuple[int, ...]) -> None:
    sample = np.linspace(0, 1, channels * 20, dtype=np.float32).reshape(channels, 4, 5)
    picture = photograph(sample)
    shown = sample[:3] if channels >= 3 else sample.mean(axis=0, keepdims=True)
    assert levels(picture).shape == shape
    expected = np.rint(shown * 255)
    np.testing.assert_array_equal(levels(picture), expected[0] if len(shape) == 2 else np.moveaxis(expected, 0, -1))
    assert picture.coarse


@pytest.mark.parametrize("size", [0.0, 0.02, 0.098, 0.7])
def test_differences_are_amplified_without_clipping(size: float) -> None:
    base = np.full((1, 2, 2), 0.3, np.float32)
    poison = base + np.array([[[size, -size], [0, 0]]], np.float32)
    picture, factor = difference(poison, base)
    assert factor == (1 if size in {0.0, 0.7} else round(0.5 / size - 0.4))
    shown = levels(picture).astype(float)
    assert set(shown[1]) == {128}
    if factor > 1:
        np.testing.assert_allclose(shown[0], [127.5 + 255 * factor * size, 127.5 - 255 * factor * size], atol=1)


def test_heat_hides_what_is_not_scored() -> None:
    values = np.arange(4, dtype=np.float32).reshape(2, 2)
    image = levels(heat(values, np.array([[1, 0], [1, 1]], np.float32)))
    assert image[..., 3].tolist() == [[255, 0], [255, 255]]
    assert image[1, 1, :3].sum() > image[0, 0, :3].sum()


def test_place() -> None:
    values = np.zeros((8, 8), np.float32)
    values[0, 7] = 1
    assert strongest_at(values) == "top right"
    values[4, 4] = 2
    assert strongest_at(values) == "middle centre"


def test_shortened_keeps_both_ends() -> None:
    assert shortened("age", 10) == "age"
    assert shortened("mean fractal dimension 17", 12) == "mean f…on 17"


def test_forest_is_ordered_along_its_axis() -> None:
    rows = [Interval("a", "", -0.2, -0.3, -0.1, strong=False), Interval("b", "", None, None, None, strong=True)]
    chart = forest(rows, (-0.05, 0.05), 0.1)
    assert chart.band is not None
    assert chart.threshold is not None
    (row, missing) = chart.rows
    assert row.start is not None
    assert row.at is not None
    assert row.end is not None
    assert 0 < row.start < row.at < row.end < chart.band[0] < chart.zero < chart.band[1] < chart.threshold < 360
    assert missing.at is None
    assert [tick.at for tick in chart.ticks] == sorted(tick.at for tick in chart.ticks)


def test_lines_leave_gaps() -> None:
    chart = lines([0, 1, 2, 3], [[1.0, None, 2.0, 3.0]], [None, None, None, None])
    assert chart.members[0].count("M") == 2
    assert chart.mean == ""
    assert lines([0], [[1.0]], [1.0]).members[0].startswith("M")


def test_changes_point_to_their_side() -> None:
    chart = changes([("a", 0.2, 0.3), ("b", 0.3, 0.25)])
    raised, lowered = chart.rows
    assert raised.start == chart.centre
    assert lowered.start + lowered.length == pytest.approx(chart.centre)
    assert raised.length == pytest.approx(2 * lowered.length, abs=0.2)
    assert changes([]).rows == []


def test_points_are_hundredths_with_a_sign() -> None:
    assert [points({"mean": mean}) for mean in (-0.012, 0.0, 0.5, None)] == ["-1.2", "+0.0", "+50.0", "undefined"]


def test_no_p_is_shown_as_nothing() -> None:
    assert [p_value(p) for p in (1.0, 0.0284, 0.001, 0.00099, 0.0)] == ["1.000", "0.028", "0.001", "< 0.001", "< 0.001"]
    assert p_value(None) == p_value(float("nan")) == "none"
