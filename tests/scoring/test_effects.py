"""Effects and the bootstrap below them, against a slow loop, against closed forms and against what it claims about simulated data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, ttest_1samp
from scipy.stats import t as student

from encircle.core import InputError
from encircle.scoring import (
    EffectError,
    Interval,
    effect_error,
    fraction_of_ceiling,
    hierarchical_bootstrap,
    paired_effect,
    seed_null,
    smallest_detectable_effect,
)
from encircle.scoring.bootstrap import bootstrap

Targets = list[np.ndarray[Any, Any]]


def draw(seed: int, targets: int, seeds: int, *, between: float = 0.0, within: float = 1.0) -> Targets:
    """Scores of a balanced design around zero."""
    rng = np.random.default_rng(seed)
    return list(rng.normal(0, between, (targets, 1)) + rng.normal(0, within, (targets, seeds)))


@st.composite
def ragged(draw_: st.DrawFn) -> tuple[Targets, Targets, int]:
    """Two groups of seeds per target, of unequal sizes."""
    targets = draw_(st.integers(2, 7))
    rng = np.random.default_rng(draw_(st.integers(0, 2**32)))
    first = [rng.normal(size=rng.integers(1, 6)) for _ in range(targets)]
    second = [rng.normal(size=rng.integers(1, 6)) for _ in range(targets)]
    return first, second, draw_(st.integers(0, 1000))


# --- the fast path equals a slow, obvious loop ---


def slow_replicates(groups: list[Targets], resamples: int, seed: int, shared: bool) -> np.ndarray[Any, Any]:
    """The same draws, in the same order, spelt out."""
    rng = np.random.default_rng(seed)
    targets = len(groups[0])
    drawn = rng.integers(targets, size=(resamples, targets))
    total = np.zeros(resamples)
    for sign, group in zip((1.0, -1.0), groups, strict=False):
        uniform = rng.random((resamples, 1 if shared else targets, max(len(g) for g in group)))
        for r in range(resamples):
            means = []
            for slot, chosen in enumerate(drawn[r]):
                scores = group[chosen]
                numbers = uniform[r, 0 if shared else slot]
                picked = [scores[math.floor(numbers[i] * len(scores))] for i in range(len(scores))]
                means.append(sum(picked) / len(picked))
            total[r] += sign * sum(means) / len(means)
    return total


@given(ragged(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_fast_bootstrap_equals_the_slow_loop(case: Any, shared: bool) -> None:
    first, second, seed = case
    single = bootstrap([(a,) for a in first], 20, seed, shared)
    np.testing.assert_allclose(single.replicates, slow_replicates([first], 20, seed, shared), atol=1e-12)
    assert single.estimate == pytest.approx(np.mean([np.mean(a) for a in first]))
    two = bootstrap(list(zip(first, second, strict=True)), 20, seed, shared)
    np.testing.assert_allclose(two.replicates, slow_replicates([first, second], 20, seed, shared), atol=1e-12)


def test_every_seed_of_a_ragged_target_is_drawn_equally_often() -> None:
    values = [np.array([1.0, 10.0, 100.0]), np.array([5.0])]
    result = bootstrap([(v,) for v in values], 20_000, 0, False)
    assert result.replicates.mean() == pytest.approx((37.0 + 5.0) / 2, rel=0.02)


@given(ragged())
@settings(max_examples=15, deadline=None)
def test_deterministic_for_a_seed(case: Any) -> None:
    first, second, seed = case
    options: dict[str, Any] = {"resamples": 50, "minimum_targets": 2}
    assert hierarchical_bootstrap(first, seed=seed, **options) == hierarchical_bootstrap(first, seed=seed, **options)
    assert seed_null(first, second, seed=seed, **options) == seed_null(first, second, seed=seed, **options)


def test_another_seed_gives_another_interval() -> None:
    values = draw(0, 8, 4)
    assert hierarchical_bootstrap(values, seed=0) != hierarchical_bootstrap(values, seed=1)


# --- closed forms ---


def test_standard_error_of_a_balanced_design() -> None:
    """For given data the variance of the resamples has a closed form, with divisors n, not n - 1."""
    values = draw(3, 10, 4, between=1.0)
    means = np.array([v.mean() for v in values])
    analytic = math.sqrt((means.var() + np.mean([v.var() / 4 for v in values])) / 10)
    assert bootstrap([(v,) for v in values], 20_000, 0, False).replicates.std() == pytest.approx(analytic, rel=0.03)


def test_standard_error_of_a_shift_contains_both_seed_draws() -> None:
    arm, null = draw(4, 10, 4, between=0.5), draw(5, 10, 3)
    differences = np.array([a.mean() - b.mean() for a, b in zip(arm, null, strict=True)])
    seeds = np.mean([a.var() / 4 + b.var() / 3 for a, b in zip(arm, null, strict=True)])
    analytic = math.sqrt((differences.var() + seeds) / 10)
    result = bootstrap(list(zip(arm, null, strict=True)), 20_000, 0, False)
    assert result.replicates.std() == pytest.approx(analytic, rel=0.03)


def test_standard_error_with_shared_seeds() -> None:
    """One model per seed that scores the same at every target is S observations, not T·S."""
    seeds = np.random.default_rng(0).normal(size=8)
    values = [seeds] * 10
    shared = bootstrap([(v,) for v in values], 20_000, 0, True).replicates.std()
    nested = bootstrap([(v,) for v in values], 20_000, 0, False).replicates.std()
    assert shared == pytest.approx(seeds.std() / math.sqrt(8), rel=0.03)
    assert nested == pytest.approx(shared / math.sqrt(10), rel=0.03)


def test_interval_is_the_expanded_percentile() -> None:
    values = draw(1, 6, 3)
    replicates = bootstrap([(v,) for v in values], 2000, 7, False).replicates
    tail = norm.cdf(student.ppf(0.05, 5) * math.sqrt(6 / 5))
    result = hierarchical_bootstrap(values, seed=7, level=0.9)
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(replicates, [tail, 1 - tail])))
    plain = np.quantile(replicates, [0.05, 0.95])
    assert result.low is not None
    assert result.high is not None
    assert result.low < plain[0] < result.mean < plain[1] < result.high


def test_zero_variance() -> None:
    result = hierarchical_bootstrap([np.full(3, 0.1)] * 6)
    assert (result.mean, result.low, result.high) == pytest.approx((0.1, 0.1, 0.1))
    same = [np.full(3, 0.1)] * 6
    assert paired_effect(same, same, [np.full(7, 0.1)] * 6) == Interval(0.0, 0.0, 0.0)
    assert smallest_detectable_effect(same, same, same) == 0.0


def test_scores_that_do_not_differ_are_no_shift_despite_rounding() -> None:
    arm = [np.full(3, v) for v in (0.1, 0.2, 0.3, 0.7, 1 / 3)]
    null = [np.full(7, v) for v in (0.1, 0.2, 0.3, 0.7, 1 / 3)]
    result = paired_effect(arm, arm, null)
    assert result == Interval(0.0, 0.0, 0.0)
    assert not result.excludes_zero


def test_a_target_weighs_the_same_however_many_seeds_it_has() -> None:
    assert hierarchical_bootstrap([np.zeros(9), np.ones(1)]).mean == 0.5


# --- coverage, power and what a claim means ---


def coverage(targets: int, seeds: int, between: float, within: float, repetitions: int = 250) -> float:
    hits = 0
    for repetition in range(repetitions):
        values = draw(1000 + repetition, targets, seeds, between=between, within=within)
        result = hierarchical_bootstrap(values, resamples=500, seed=repetition)
        assert result.low is not None
        assert result.high is not None
        hits += result.low <= 0.0 <= result.high
    return hits / repetitions


@pytest.mark.parametrize(
    ("targets", "between", "within", "lowest"),
    [(5, 1.0, 0.0, 0.87), (10, 1.0, 0.0, 0.91), (10, 1.0, 1.0, 0.92), (10, 0.0, 1.0, 0.95)],
)
def test_coverage_on_gaussian_data(targets: int, between: float, within: float, lowest: float) -> None:
    assert coverage(targets, 3, between, within) >= lowest


def test_false_claims_of_a_harmless_arm_are_rare() -> None:
    """An arm that is just more clean victims is claimed at most about as often as the level allows."""
    claims = 0
    for repetition in range(200):
        target = np.random.default_rng(repetition).normal(size=(8, 1))
        victims = target + np.random.default_rng(10_000 + repetition).normal(0, 0.5, (8, 9))
        arm, clean, null = (list(victims[:, i : i + 3]) for i in (0, 3, 6))
        claims += paired_effect(arm, clean, null, resamples=500, seed=repetition).excludes_zero
    assert claims / 200 <= 0.06


def test_power_at_the_smallest_detectable_shift() -> None:
    """A shift of the size a clean design promises to detect is claimed about four times in five."""
    claims = 0
    for repetition in range(200):
        rng = np.random.default_rng(repetition)
        effects = rng.normal(0, 1.0, (10, 1))
        arm, clean, null = (effects * scale + rng.normal(0, 0.1, (10, 3)) for scale in (1.0, 0.0, 0.0))
        size = smallest_detectable_effect(list(arm), list(clean), list(null), resamples=500, seed=repetition)
        assert size is not None
        claims += paired_effect(list(arm + size), list(clean), list(null), resamples=500, seed=repetition).excludes_zero
    assert 0.7 <= claims / 200 <= 0.95


def test_smallest_detectable_shift_formula() -> None:
    arm, clean, null = draw(0, 400, 3), draw(1, 400, 3), draw(2, 400, 3)
    analytic = (norm.ppf(0.975) + norm.ppf(0.8)) * _shift_error(arm, null)
    size = smallest_detectable_effect(arm, clean, null)
    assert size == pytest.approx(analytic, rel=0.06)
    few = smallest_detectable_effect(arm[:5], clean[:5], null[:5], resamples=20_000)
    quantiles = student.ppf(0.975, 4) + student.ppf(0.8, 4)
    assert few == pytest.approx(quantiles * math.sqrt(5 / 4) * _shift_error(arm[:5], null[:5]), rel=0.03)


def _shift_error(arm: Targets, null: Targets) -> float:
    differences = np.array([a.mean() - b.mean() for a, b in zip(arm, null, strict=True)])
    seeds = np.mean([a.var() / a.size + b.var() / b.size for a, b in zip(arm, null, strict=True)])
    return math.sqrt((differences.var() + seeds) / len(arm))


# --- the algebra of the shift ---


def test_shift_is_effect_minus_null() -> None:
    arm, clean, null = draw(0, 6, 3, within=0.2), draw(1, 6, 3), draw(2, 6, 4)
    effect = np.mean([a - c for a, c in zip(arm, clean, strict=True)])
    drift = np.mean([np.subtract.outer(n, c).mean() for n, c in zip(null, clean, strict=True)])
    assert paired_effect(arm, clean, null).mean == pytest.approx(effect - drift)
    assert seed_null(clean, null).mean == pytest.approx(drift)


def test_a_shift_no_larger_than_the_seed_drift_is_not_claimed() -> None:
    """Arm and clean move together with the seed: the paired effect is sharp, yet a new seed moves the map much more."""
    clean, null = draw(0, 8, 3, within=1.0), draw(1, 8, 3, within=1.0)
    arm = [c + 0.05 for c in clean]
    effect = hierarchical_bootstrap([a - c for a, c in zip(arm, clean, strict=True)])
    assert effect.excludes_zero
    assert not paired_effect(arm, clean, null).excludes_zero


def test_a_large_shift_is_claimed_in_its_direction() -> None:
    clean, null = draw(0, 8, 3, within=0.1), draw(1, 8, 3, within=0.1)
    up = paired_effect([c + 1.0 for c in clean], clean, null)
    down = paired_effect([c - 1.0 for c in clean], clean, null)
    assert up.excludes_zero
    assert up.low is not None
    assert up.low > 0
    assert down.excludes_zero
    assert down.high is not None
    assert down.high < 0


def test_what_all_targets_share_cancels() -> None:
    """Adding a constant to every score of a target changes no shift: targets differ, effects need not."""
    arm, clean, null = draw(0, 6, 3), draw(1, 6, 3), draw(2, 6, 3)
    offsets = np.arange(6) * 16.0
    moved = [[v + o for v, o in zip(group, offsets, strict=True)] for group in (arm, clean, null)]
    before, after = paired_effect(arm, clean, null), paired_effect(*moved)
    assert (after.mean, after.low, after.high) == pytest.approx((before.mean, before.low, before.high))


# --- the undefined ---


def test_a_share_of_the_way_is_the_ratio_of_the_shifts() -> None:
    clean, null = draw(1, 8, 3, within=0.02), draw(2, 8, 3, within=0.02)
    ceiling = [scores + 0.8 for scores in draw(3, 8, 3, within=0.02)]
    arm = [scores + 0.2 for scores in draw(4, 8, 3, within=0.02)]
    share = fraction_of_ceiling(arm, clean, null, ceiling)
    expected = paired_effect(arm, clean, null).mean / paired_effect(ceiling, clean, null).mean
    assert share.mean == pytest.approx(expected)
    assert share.low is not None
    assert share.high is not None
    assert share.low < 0.25 < share.high
    assert fraction_of_ceiling(ceiling, clean, null, ceiling) == Interval(1.0, 1.0, 1.0)
    assert fraction_of_ceiling(arm[:4], clean[:4], null[:4], ceiling[:4]).low is None


def test_a_share_of_a_short_way_is_undefined() -> None:
    clean, null = draw(1, 8, 3, within=0.0), draw(2, 8, 3, within=0.0)
    near, far = ([scores + gain for scores in clean] for gain in (0.09, 0.11))
    assert math.isnan(fraction_of_ceiling(near, clean, null, near).mean)
    assert fraction_of_ceiling(near, clean, null, near).low is None
    assert fraction_of_ceiling(far, clean, null, far).mean == pytest.approx(1)
    undefined = [np.full(3, np.nan)] * 8
    assert math.isnan(fraction_of_ceiling(undefined, clean, null, far).mean)


def test_a_target_without_a_ceiling_counts_for_neither_shift() -> None:
    clean, null = draw(1, 8, 3), draw(2, 8, 3)
    arm, ceiling = draw(4, 8, 3), [scores + 5 for scores in draw(3, 8, 3)]
    holed = [*ceiling[:-1], np.full(3, np.nan)]
    assert fraction_of_ceiling(arm, clean, null, holed) == fraction_of_ceiling(
        arm[:-1], clean[:-1], null[:-1], ceiling[:-1]
    )


def test_undefined_scores_are_dropped() -> None:
    nan = math.nan
    values = [np.array([1.0, nan]), np.array([nan, nan]), np.array([]), np.array([3.0, 5.0])]
    result = hierarchical_bootstrap(values, minimum_targets=2)
    assert result == hierarchical_bootstrap([[1.0], [3.0, 5.0]], minimum_targets=2)
    assert result.mean == 2.5
    assert result.low is not None


def test_undefined_pairs_are_dropped() -> None:
    nan = math.nan
    arm = [[1.0, 2.0, nan], [1.0, 1.0, 1.0], [5.0], [7.0]]
    clean = [[0.0, nan, 0.0], [0.0, 0.0, 0.0], [nan], [0.0]]
    null = [[0.5, nan], [0.5], [0.5], [nan]]
    assert paired_effect(arm, clean, null).mean == pytest.approx(((1.0 - 0.5) + (1.0 - 0.5)) / 2)


@pytest.mark.parametrize("values", [[], [[]], [[math.nan], [math.nan, math.nan]]])
def test_nothing_left_is_undefined(values: Any) -> None:
    for result in (
        hierarchical_bootstrap(values),
        paired_effect(values, values, values),
        seed_null(values, values),
    ):
        assert math.isnan(result.mean)
        assert result.low is None
        assert result.high is None
        assert not result.excludes_zero
    assert smallest_detectable_effect(values, values, values) is None


@pytest.mark.parametrize("targets", [1, 2, 4, 5])
def test_too_few_targets_claim_nothing(targets: int) -> None:
    arm, clean, null = draw(0, targets, 3), draw(1, targets, 3), draw(2, targets, 3)
    for result in (hierarchical_bootstrap(arm), paired_effect(arm, clean, null), seed_null(clean, null)):
        assert math.isfinite(result.mean)
        assert (result.low is None) is (result.high is None) is (targets < 5)
        assert targets >= 5 or not result.excludes_zero
    assert (smallest_detectable_effect(arm, clean, null) is None) is (targets < 2)
    assert hierarchical_bootstrap(arm, minimum_targets=1).low is None or targets > 1


def test_a_dropped_target_counts_against_the_minimum() -> None:
    values = [*draw(0, 4, 3), np.full(3, math.nan)]
    assert hierarchical_bootstrap(values).low is None


# --- refusals ---


def test_groups_that_do_not_match_are_refused() -> None:
    values = draw(0, 5, 3)
    with pytest.raises(InputError, match="5, 4 and 5 targets"):
        paired_effect(values, values[:4], values)
    with pytest.raises(InputError, match="targets"):
        seed_null(values, values[:4])
    with pytest.raises(InputError, match="target 0 has 3 seeds with the arm but 2 without it"):
        paired_effect(values, [v[:2] for v in values], values)


def test_values_that_are_no_scores_are_refused() -> None:
    with pytest.raises(InputError, match="infinity"):
        hierarchical_bootstrap([[1.0, math.inf]])
    with pytest.raises(InputError, match="one value per seed"):
        hierarchical_bootstrap([np.zeros((2, 2))])


@pytest.mark.parametrize(
    "call",
    [
        lambda v: hierarchical_bootstrap(v, level=1.0),
        lambda v: hierarchical_bootstrap(v, level=95),
        lambda v: hierarchical_bootstrap(v[:1], level=0.0),
        lambda v: hierarchical_bootstrap(v, resamples=0),
        lambda v: smallest_detectable_effect(v, v, v, power=1.0),
        lambda v: smallest_detectable_effect(v, v, v, level=0.0),
    ],
)
def test_settings_out_of_range_are_refused(call: Callable[[Targets], object]) -> None:
    with pytest.raises(InputError):
        call(draw(0, 5, 3))


def test_shared_seeds_reach_every_function() -> None:
    """The same clean models at every target, as for held-out accuracy: nesting understates the drift's spread."""
    rng = np.random.default_rng(0)
    clean, null = [rng.normal(size=6)] * 8, [rng.normal(size=6)] * 8
    for nested, shared in (
        (hierarchical_bootstrap(clean), hierarchical_bootstrap(clean, shared_seeds=True)),
        (seed_null(clean, null), seed_null(clean, null, shared_seeds=True)),
        (paired_effect(clean, clean, null), paired_effect(clean, clean, null, shared_seeds=True)),
    ):
        assert nested.low is not None
        assert nested.high is not None
        assert shared.low is not None
        assert shared.high is not None
        assert shared.high - shared.low > 1.8 * (nested.high - nested.low)
    small, large = (smallest_detectable_effect(clean, clean, null, shared_seeds=flag) for flag in (False, True))
    assert small is not None
    assert large is not None
    assert large > 1.8 * small


def test_the_p_value_of_one_seed_a_target_is_near_that_of_the_t_test() -> None:
    """With as good as no spread between seeds, the bootstrap's error is the standard error of the mean."""
    rng = np.random.default_rng(0)
    arm = [[value] * 3 for value in rng.normal(0.1, 0.2, size=40)]
    zero = [[0.0] * 3] * 40
    error = effect_error(arm, zero, zero, resamples=20_000)
    assert error is not None
    means = [target[0] for target in arm]
    assert error.p_value(float(np.mean(means))) == pytest.approx(ttest_1samp(means, 0.0).pvalue, rel=0.1)


def test_p_values_of_no_effect_are_uniform_enough() -> None:
    """Between and within variation, no effect: about a twentieth of p-values lies below 0.05."""
    below = 0
    for number in range(300):
        rng = np.random.default_rng(number)
        target = rng.normal(size=(10, 1))
        arm, clean, null = (list(target + rng.normal(size=(10, 3))) for _ in range(3))
        error = effect_error(arm, clean, null, resamples=300)
        assert error is not None
        below += error.p_value(paired_effect(arm, clean, null, resamples=1).mean) < 0.05
    assert 0.005 < below / 300 < 0.09


def test_scores_without_spread_have_a_p_value_of_zero_or_one() -> None:
    error = EffectError(0.0, 5)
    assert error.p_value(0.0) == 1.0
    assert error.p_value(0.1) == 0.0
    assert error.detectable() == 0.0
    assert effect_error([[1.0]], [[1.0]], [[1.0]]) is None
