"""Scores against independent implementations, their identities, and what they refuse or leave undefined."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from skimage import metrics as skimage_metrics
from sklearn.metrics import jaccard_score

from encircle.core import InputError
from encircle.scoring import (
    cosine,
    jaccard,
    jaccard_soft,
    l1,
    minmax,
    pointing_game,
    relevance_mass,
    score,
    spearman,
    ssim,
    topk_intersection,
)

structural_similarity: Callable[..., float] = skimage_metrics.structural_similarity  # scikit-image has no types

COLUMNS = [
    "jaccard",
    "jaccard_soft",
    "l1",
    "cosine",
    "spearman",
    "ssim",
    "topk",
    "pointing",
    "mass_goal",
    "mass_box",
]
PAIRWISE: dict[str, Callable[..., float]] = {
    "jaccard": jaccard,
    "jaccard_soft": jaccard_soft,
    "l1": l1,
    "cosine": cosine,
    "spearman": spearman,
    "ssim": ssim,
    "topk": topk_intersection,
    "pointing": pointing_game,
}
SIZES = [1e-300, 1e-12, 1.0, 1e12, 1e300]

shapes = st.one_of(
    st.tuples(st.integers(2, 40)),
    st.tuples(st.integers(2, 16), st.integers(2, 16)),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A map, a goal and a mask that holds at least two entries; neither map is constant."""
    shape = draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    attribution, goal = rng.normal(size=shape), rng.normal(size=shape)
    if draw(st.booleans()):
        attribution = np.maximum(attribution, 0.0)  # many ties, as in a rectified map
    if draw(st.booleans()):
        goal = (goal > 0).astype(float)
    for values in (attribution, goal):
        values.flat[0], values.flat[-1] = 0.0, 1.0  # never constant
    mask = rng.random(shape) < draw(st.floats(0.1, 1.0))
    mask.flat[0] = mask.flat[-1] = True
    return attribution, goal, mask


def random_pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.random(shape)


def naive_minmax(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    scaled: np.ndarray[Any, Any] = (values - values.min()) / (values.max() - values.min())
    return scaled


# --- scaling ---


@given(cases())
def test_minmax_equals_the_plain_formula_bit_for_bit_on_ordinary_maps(case: Any) -> None:
    attribution, _, _ = case
    np.testing.assert_array_equal(minmax(attribution), naive_minmax(attribution))


@pytest.mark.parametrize("exponent", [-1060, -900, -40, 40, 900, 1020])
def test_minmax_is_exact_under_powers_of_two(exponent: int) -> None:
    attribution = np.array([0.0, 0.25, 0.5, 1.0, -2.0, 3.0])
    np.testing.assert_array_equal(minmax(np.ldexp(attribution, exponent)), naive_minmax(attribution))


def test_minmax_of_the_widest_range_there_is() -> None:
    largest = np.finfo(np.float64).max
    np.testing.assert_array_equal(minmax(np.array([-largest, 0.0, largest])), [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(minmax(np.array([0.0, 5e-324, 1e-323])), [0.0, 0.5, 1.0])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_])
def test_minmax_takes_any_real_type(kind: type) -> None:
    scaled = minmax(np.array([0, 1, 1, 0]).astype(kind))
    assert scaled is not None
    assert scaled.dtype == np.float64
    np.testing.assert_array_equal(scaled, [0, 1, 1, 0])


@pytest.mark.parametrize(
    "attribution",
    [
        np.zeros(5),
        np.full((3, 3), 7.0),
        np.full(4, 1e-12),
        np.full(4, -1e308),
        np.ones(1),
        np.empty(0),
        np.array([0.0, 1.0, np.nan]),
        np.array([0.0, 1.0, np.inf]),
        np.array([0.3, np.nextafter(0.3, 1.0), 0.3]),
        np.array([0.3, 0.3 + 6e-8], dtype=np.float32),
        np.zeros(3, dtype=bool),
    ],
    ids=str,
)
def test_minmax_of_constant_or_broken_maps_is_undefined(attribution: Any) -> None:
    assert minmax(attribution) is None


def test_minmax_keeps_small_structure_on_a_large_offset() -> None:
    scaled = minmax(1.0 + np.ldexp(np.array([0.0, 1.0, 2.0, 4.0]), -45))
    np.testing.assert_array_equal(scaled, [0.0, 0.25, 0.5, 1.0])


# --- against independent implementations ---


@given(cases())
@settings(max_examples=60)
def test_scores_equal_independent_implementations(case: Any) -> None:
    attribution, goal, mask = case
    ours, wanted = naive_minmax(attribution)[mask], naive_minmax(goal)[mask]
    if (np.maximum(ours, wanted) >= 0.5).any():
        assert jaccard(attribution, goal, mask) == pytest.approx(jaccard_score(wanted >= 0.5, ours >= 0.5))
    else:
        assert math.isnan(jaccard(attribution, goal, mask))
    assert l1(attribution, goal, mask) == pytest.approx(
        np.mean([abs(a - b) for a, b in zip(ours, wanted, strict=True)])
    )
    assert jaccard_soft(attribution, goal, mask) == pytest.approx(
        sum(min(a, b) for a, b in zip(ours, wanted, strict=True))
        / sum(max(a, b) for a, b in zip(ours, wanted, strict=True))
    )
    assert cosine(attribution, goal, mask) == pytest.approx(pearsonr(attribution[mask], goal[mask])[0], abs=1e-12)
    assert spearman(attribution, goal, mask) == pytest.approx(spearmanr(attribution[mask], goal[mask])[0], abs=1e-12)


@given(cases(), st.integers(1, 6))
@settings(max_examples=60)
def test_topk_equals_a_slow_ranking(case: Any, k: int) -> None:
    attribution, goal, mask = case

    def best(values: Any, many: int) -> set[int]:
        return {i for _, i in sorted((-v, i) for i, v in enumerate(values[mask].tolist()))[:many]}

    k = min(k, int(mask.sum()))
    expected = len(best(attribution, k) & best(goal, k)) / k
    assert topk_intersection(attribution, goal, mask, k=k) == pytest.approx(expected)
    default = int((naive_minmax(goal)[mask] >= 0.5).sum())
    if default == 0:
        assert math.isnan(topk_intersection(attribution, goal, mask))
    else:
        assert topk_intersection(attribution, goal, mask) == topk_intersection(attribution, goal, mask, k=default)


@pytest.mark.parametrize(
    ("shape", "window"), [((3, 3), 3), ((4, 4), 3), ((7, 7), 3), ((10, 12), 5), ((14, 14), 7), ((3, 20), 3)]
)
def test_ssim_is_scikit_images(shape: tuple[int, int], window: int) -> None:
    attribution, goal = random_pair(shape)
    expected = structural_similarity(naive_minmax(attribution), naive_minmax(goal), win_size=window, data_range=1.0)
    assert ssim(attribution, goal) == pytest.approx(expected)
    assert ssim(attribution, goal, np.ones(shape, dtype=bool)) == pytest.approx(expected)


def test_ssim_of_a_mask_is_the_mean_over_the_windows_centred_in_it() -> None:
    attribution, goal = random_pair((7, 7))
    mask = np.zeros((7, 7), dtype=bool)
    mask[2:5, 0:3] = True
    ours, wanted = naive_minmax(attribution), naive_minmax(goal)
    centres = [(i, j) for i in range(1, 6) for j in range(1, 6) if mask[i, j]]
    windows = [(ours[i - 1 : i + 2, j - 1 : j + 2], wanted[i - 1 : i + 2, j - 1 : j + 2]) for i, j in centres]
    expected = np.mean([structural_similarity(a, b, win_size=3, data_range=1.0) for a, b in windows])
    assert ssim(attribution, goal, mask) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(9,), (2, 8), (8, 2), (1, 9)])
def test_ssim_needs_a_grid(shape: tuple[int, ...]) -> None:
    assert math.isnan(ssim(*random_pair(shape)))


def test_ssim_needs_a_window_centred_in_the_mask() -> None:
    mask = np.zeros((5, 5), dtype=bool)
    mask[0] = True
    assert math.isnan(ssim(*random_pair((5, 5)), mask))


# --- invariances and identities ---


@given(cases(), st.integers(-900, 900), st.integers(-900, 900))
@settings(max_examples=60)
def test_scores_do_not_change_with_the_scale(case: Any, map_exponent: int, goal_exponent: int) -> None:
    """Powers of two scale exactly, so that not even a tie at the threshold may move."""
    attribution, goal, mask = case
    box = goal > 0.25
    other = score(np.ldexp(attribution, map_exponent), np.ldexp(goal, goal_exponent), mask, box)
    assert other == pytest.approx(score(attribution, goal, mask, box), nan_ok=True, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(18,), (4, 4), (14, 14)])
def test_scores_survive_tiny_and_huge_maps(size: float, shape: tuple[int, ...]) -> None:
    attribution, goal = random_pair(shape)
    expected = score(attribution, goal, box=goal > 0.5)
    assert score(size * attribution, goal, box=goal > 0.5) == pytest.approx(expected, nan_ok=True, rel=1e-9)
    assert not math.isnan(expected["l1"])


def test_float32_maps_of_a_saturated_probability_are_scored() -> None:
    attribution, goal = random_pair((4, 4))
    tiny = (1e-12 * attribution).astype(np.float32)
    expected = score(attribution, goal)
    assert score(tiny, goal) == pytest.approx(expected, nan_ok=True, abs=1e-5)


@given(cases(), st.integers(-8, 8))
@settings(max_examples=60)
def test_scores_do_not_change_with_an_offset(case: Any, offset: int) -> None:
    attribution, goal, mask = case
    attribution, goal = np.round(attribution * 1024) / 1024, np.round(goal * 1024) / 1024  # the shift is exact
    before, after = score(attribution, goal, mask), score(attribution + offset, goal - offset, mask)
    for name in PAIRWISE:
        assert after[name] == pytest.approx(before[name], nan_ok=True, abs=1e-9), name


@given(cases())
@settings(max_examples=60)
def test_a_map_equal_to_its_goal(case: Any) -> None:
    goal, _, mask = case
    mask.flat[goal.argmax()] = True  # otherwise there may be nothing highlighted to compare
    scores = score(3e-12 * goal, goal, mask, box=np.ones(goal.shape, dtype=bool))
    for name in ("jaccard", "jaccard_soft", "cosine", "spearman", "topk", "pointing", "mass_box"):
        assert scores[name] == pytest.approx(1.0), name
    assert scores["l1"] == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(scores["ssim"]) or scores["ssim"] == pytest.approx(1.0)


def test_a_map_opposite_to_its_goal() -> None:
    goal = np.zeros((4, 4))
    goal[:, :2] = 1.0
    scores = score(-goal, goal)
    assert (scores["jaccard"], scores["jaccard_soft"], scores["l1"]) == (0.0, 0.0, 1.0)
    assert (scores["topk"], scores["pointing"]) == (0.0, 0.0)
    assert scores["cosine"] == pytest.approx(-1.0)
    assert scores["spearman"] == pytest.approx(-1.0)
    assert math.isnan(scores["mass_goal"])  # nothing is positive


@given(cases())
@settings(max_examples=60)
def test_scores_stay_in_range_and_are_symmetric(case: Any) -> None:
    attribution, goal, mask = case
    scores, mirrored = score(attribution, goal, mask, mask), score(goal, attribution, mask, mask)
    for name, value in scores.items():
        lowest = -1.0 if name in ("cosine", "spearman", "ssim") else 0.0
        assert math.isnan(value) or lowest <= value <= 1.0, name
    for name in ("jaccard", "jaccard_soft", "l1", "cosine", "spearman", "ssim"):
        assert scores[name] == pytest.approx(mirrored[name], nan_ok=True, abs=1e-12), name


@given(cases())
@settings(max_examples=30)
def test_entries_outside_the_mask_only_set_the_scale(case: Any) -> None:
    """Shuffling them changes nothing; no mask is the same as a full one."""
    attribution, goal, mask = case
    shuffled = attribution.copy()
    shuffled[~mask] = shuffled[~mask][::-1]
    full = np.ones(mask.shape, dtype=bool)
    assert score(attribution, goal) == pytest.approx(score(attribution, goal, full), nan_ok=True)
    for name in set(PAIRWISE) - {"ssim"}:  # its windows reach beyond the mask
        function = PAIRWISE[name]
        assert function(shuffled, goal, mask) == pytest.approx(function(attribution, goal, mask), nan_ok=True), name


def test_scaling_looks_at_the_whole_map() -> None:
    attribution, goal = np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.0, 1.0, 1.0, 1.0])
    mask = np.array([True, True, True, False])
    assert l1(attribution, goal, mask) == pytest.approx((0.0 + 0.75 + 0.5) / 3)
    assert jaccard(attribution, goal, mask) == pytest.approx(1 / 2)
    assert jaccard_soft(attribution, goal, mask) == pytest.approx(0.75 / 2)


def test_threshold_is_a_parameter_and_inclusive() -> None:
    attribution, goal = np.array([0.0, 0.3, 0.5, 1.0]), np.array([0.0, 0.0, 1.0, 1.0])
    assert jaccard(attribution, goal) == 1.0
    assert jaccard(attribution, goal, threshold=0.3) == pytest.approx(2 / 3)
    assert jaccard(attribution, goal, threshold=1.0) == 0.5
    assert pointing_game(goal, attribution, threshold=0.6) == 0.0  # the first of two equal maxima, where 0.5 is wanted


# --- the undefined ---


@pytest.mark.parametrize("constant", [0.0, 1e-12, 1.0, -3.5, 1e300])
@pytest.mark.parametrize("shape", [(6,), (5, 5)])
def test_every_score_of_a_constant_map_is_undefined(constant: float, shape: tuple[int, ...]) -> None:
    _, goal = random_pair(shape)
    flat = np.full(shape, constant)
    region = goal > 0.5
    assert all(math.isnan(value) for value in score(flat, goal, box=region).values())
    against_flat = score(goal, flat, box=region)
    assert all(math.isnan(value) for name, value in against_flat.items() if name != "mass_box")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_every_score_of_a_broken_map_is_undefined(bad: float) -> None:
    attribution, goal = random_pair((5, 5))
    attribution[4, 4] = bad
    mask = np.ones((5, 5), dtype=bool)
    mask[4, 4] = False  # a broken entry is a broken map, even where nobody looks
    assert all(math.isnan(value) for value in score(attribution, goal, mask, box=mask).values())


@pytest.mark.parametrize("name", PAIRWISE)
def test_an_empty_mask_is_undefined(name: str) -> None:
    assert math.isnan(PAIRWISE[name](*random_pair((5, 5)), np.zeros((5, 5), dtype=bool)))


def test_empty_denominators_are_undefined() -> None:
    low = np.array([0.0, 0.0, 1.0])
    mask = np.array([True, True, False])
    for name in ("jaccard", "jaccard_soft", "cosine", "spearman", "topk"):
        assert math.isnan(PAIRWISE[name](low, low, mask)), name
    assert l1(low, low, mask) == 0.0  # two zeros do agree
    assert pointing_game(low, low, mask) == 0.0


def test_a_single_masked_entry() -> None:
    attribution, goal = np.array([0.0, 1.0, 0.2]), np.array([0.0, 1.0, 0.4])
    mask = np.array([False, True, False])
    scores = score(attribution, goal, mask)
    assert (scores["l1"], scores["jaccard"], scores["pointing"]) == (0.0, 1.0, 1.0)
    assert math.isnan(scores["cosine"])
    assert math.isnan(scores["spearman"])


# --- pointing, mass, the whole row ---


def test_pointing_game_by_hand() -> None:
    goal = np.array([[0.0, 0.2], [0.9, 1.0]])
    assert pointing_game(np.array([[0, 0], [5e-12, 0]]), goal) == 1.0
    assert pointing_game(np.array([[0, 5e-12], [0, 0]]), goal) == 0.0
    mask = np.array([[True, True], [True, False]])
    assert pointing_game(np.array([[0, 0], [1, 9]]), goal, mask) == 1.0
    assert pointing_game(np.array([[0, 2], [1, 9]]), goal, mask) == 0.0


def test_relevance_mass_by_hand() -> None:
    attribution = np.array([-5.0, 1.0, 2.0, 3.0])
    region = np.array([True, True, False, True])
    assert relevance_mass(attribution, region) == pytest.approx(4 / 6)
    assert relevance_mass(attribution, region, np.array([True, True, True, False])) == pytest.approx(1 / 3)
    assert relevance_mass(1e-320 * attribution, region) == pytest.approx(4 / 6, rel=1e-3)
    assert relevance_mass(np.array([-1.0, 1.7e308, 1.7e308, 0.0]), region) == pytest.approx(0.5)
    assert relevance_mass(attribution, np.array([True, False, False, False])) == 0.0
    assert math.isnan(relevance_mass(attribution, np.zeros(4, dtype=bool)))
    assert math.isnan(relevance_mass(-np.abs(attribution), region))


@given(cases())
@settings(max_examples=30)
def test_masses_of_a_region_and_its_complement_add_up(case: Any) -> None:
    attribution, _, region = case
    if not region.all():
        inside, outside = relevance_mass(attribution, region), relevance_mass(attribution, ~region)
        assert inside + outside == pytest.approx(1.0)


def test_score_is_its_functions_under_the_columns_of_the_run_folder() -> None:
    attribution, goal = random_pair((7, 7))
    mask, box = np.arange(49).reshape(7, 7) > 10, goal > 0.3
    scores = score(attribution, goal, mask, box)
    assert list(scores) == COLUMNS
    assert all(type(value) is float for value in scores.values())
    for name, function in PAIRWISE.items():
        assert scores[name] == function(attribution, goal, mask), name
    assert scores["mass_goal"] == relevance_mass(attribution, naive_minmax(goal) >= 0.5, mask)
    assert scores["mass_box"] == relevance_mass(attribution, box)
    assert math.isnan(score(attribution, goal, mask)["mass_box"])


def test_scores_leave_their_arguments_alone() -> None:
    attribution, goal = random_pair((7, 7))
    before = attribution.copy(), goal.copy()
    score(attribution, goal, goal > 0.2, goal > 0.5)
    np.testing.assert_array_equal(attribution, before[0])
    np.testing.assert_array_equal(goal, before[1])


# --- refusals ---


@pytest.mark.parametrize("name", PAIRWISE)
def test_shapes_that_do_not_match_are_refused(name: str) -> None:
    attribution, goal = random_pair((4, 4))
    with pytest.raises(InputError, match=r"shape \(4, 4\) but the goal has shape \(7, 7\)"):
        PAIRWISE[name](attribution, np.zeros((7, 7)))
    with pytest.raises(InputError, match="mask has shape"):
        PAIRWISE[name](attribution, goal, np.ones((4,), dtype=bool))
    with pytest.raises(InputError, match="convert it to bool"):
        PAIRWISE[name](attribution, goal, np.ones((4, 4)))
    with pytest.raises(InputError, match="cannot be scored"):
        PAIRWISE[name](np.zeros((1, 4, 4)), np.zeros((1, 4, 4)))
    with pytest.raises(InputError, match="cannot be scored"):
        PAIRWISE[name](np.zeros(0), np.zeros(0))


def test_regions_that_do_not_match_are_refused() -> None:
    attribution, goal = random_pair((4, 4))
    with pytest.raises(InputError, match="shape"):
        score(attribution, goal, box=np.ones((3, 3), dtype=bool))
    with pytest.raises(InputError, match="region has type"):
        relevance_mass(attribution, np.ones((4, 4)))  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, math.nan])
@pytest.mark.parametrize("function", [jaccard, topk_intersection, pointing_game])
def test_thresholds_out_of_range_are_refused(function: Callable[..., float], threshold: float) -> None:
    with pytest.raises(InputError, match="threshold"):
        function(*random_pair((4, 4)), threshold=threshold)


@pytest.mark.parametrize("k", [0, -1, 17])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(InputError, match="between 1 and 16"):
        topk_intersection(*random_pair((4, 4)), k=k)
