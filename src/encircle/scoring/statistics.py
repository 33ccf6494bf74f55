r"""What counts as evidence: the hierarchical bootstrap over targets and seeds, and the effect of an attack beyond the seed null.

**The effect.** For target t and seed s (docs: what counts as evidence)

    change(t, s)   = score(arm, t, s) - score(clean, t, s)
    null(t, s, s') = score(clean, t, s') - score(clean, t, s)        the *seed null*: what another training seed does

and the effect is change minus null. Both contain the *same* clean victim s, which therefore cancels:

    change(t, s) - null(t, s, s') = score(arm, t, s) - score(clean, t, s')

so the effect compares a poisoned victim with a clean victim of a *fresh* seed, on the same target. The draws of s and
of s' are independent and each contributes its variance: a map that wanders from seed to seed needs a larger effect to
be claimed, even where one seed moves arm and clean together and the change alone would look sharp. (Drawing the
s inside the null anew would break the cancellation and count the variance of the clean victim s twice, for nothing.)

**The bootstrap.** One resample draws as many targets as there are, with replacement, and within each drawn target as
many seeds as it has, with replacement (s and s' independently). Its value is the mean over drawn targets of the mean
over drawn seeds, so that a target weighs the same however many of its victims are defined. For T targets with S seeds
each, variance τ² between targets and σ² between seeds, the resamples of a mean have the expected variance

    ((T-1)/T · (τ² + σ²/S) + (S-1)/S · σ²/S) / T       against the true       (τ² + σ²/S) / T

so intervals err towards too wide where seeds dominate, and (T-1)/T makes them too narrow where targets do.

**Few targets.** The plain percentile interval of 5 targets covers 85 % instead of 95 % where targets dominate.
Intervals here are Hesterberg's *expanded percentile intervals* (What Teachers Should Know About the Bootstrap, The
American Statistician 2015): the tail probability is `Φ(-√(T/(T-1)) · t)` with t the quantile of Student's distribution
with T-1 degrees of freedom, which tends to the plain percentile as T grows; in the same trials 92 % are covered. With
fewer than `minimum_targets` targets no interval is claimed.

**Shared seeds.** By default seeds are nested in targets: each target has victims of its own. Where one set of victims
serves every target (clean victims never saw a poison; their held-out accuracy is even the same number for all targets)
seed s is one draw and not T of them, and nesting would understate its variance up to T-fold. `shared_seeds=True` draws
the seeds once per resample for all targets (Owen's pigeonhole bootstrap, 2007); the arrays must then list the same
seeds in the same order. The seeds' share of the variance still comes out (S-1)/S of the truth: use more than two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from scipy.stats import t as student

from ..core import InputError
from ..run_folder import Estimate
from .thresholds import LEVEL, MINIMUM_TARGETS, POWER, RESAMPLES, SHORTEST_CEILING_EFFECT

Array = NDArray[np.float64]
PerTarget = Sequence[ArrayLike]
"""For each target, the scores of its victims: one float per seed, NaN where undefined."""


@final
@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval, in the unit of the values.

    Attributes:
        mean: mean over targets of the mean over seeds; NaN if nothing was defined.
        low: lower end, None where no interval is claimed.
        high: upper end, None where no interval is claimed.
    """

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether an effect may be claimed: there is an interval and zero lies outside it.

        Example:
            >>> Interval(0.3, 0.2, 0.4).excludes_zero, Interval(0.3, -0.1, 0.7).excludes_zero, Interval(0.3).excludes_zero
            (True, False, False)
        """
        return self.low is not None and self.high is not None and (self.low > 0.0 or self.high < 0.0)


def facts_of(interval: Interval) -> Estimate:
    """An interval as JSON holds it: `mean`, `low` and `high`, null for what is undefined.

    Example:
        >>> facts_of(Interval(0.2, 0.1, 0.3)), facts_of(Interval(math.nan))
        ({'mean': 0.2, 'low': 0.1, 'high': 0.3}, {'mean': None, 'low': None, 'high': None})
    """
    return {"mean": interval.mean if math.isfinite(interval.mean) else None, "low": interval.low, "high": interval.high}


def hierarchical_bootstrap(
    values: PerTarget,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    minimum_targets: int = MINIMUM_TARGETS,
    shared_seeds: bool = False,
) -> Interval:
    """Mean of scores and its interval, resampling targets and then seeds (see the head of this file).

    Args:
        values: per target, one value per seed `(S_t,)`. NaN is dropped, and a target that holds nothing else with it.
        resamples: number of bootstrap resamples.
        level: coverage of the interval, in (0, 1).
        seed: seed of the resampling; the same seed gives the same interval.
        minimum_targets: with fewer (defined) targets no interval is claimed.
        shared_seeds: whether the same victims serve every target.

    Returns:
        The interval, in the unit of the values.

    Raises:
        InputError: values are infinite or not one-dimensional, or a setting is out of range.

    Example:
        >>> scores = [[0.40, 0.45], [0.50, 0.48], [0.41, 0.39], [0.52, 0.47], [0.61, 0.55]]  # five targets, two victims each
        >>> interval = hierarchical_bootstrap(scores)
        >>> f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
        '0.48 [0.40, 0.57]'
        >>> hierarchical_bootstrap(scores[:2]).low is None  # too few targets for a claim
        True
    """
    defined = [(_defined(target),) for target in values]
    return _bootstrap(defined, resamples, seed, shared_seeds).interval(level, minimum_targets)


def paired_effect(
    arm: PerTarget,
    clean: PerTarget,
    null: PerTarget,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    minimum_targets: int = MINIMUM_TARGETS,
    shared_seeds: bool = False,
) -> Interval:
    """How far an arm moved a score beyond the seed null: change minus null (see the head of this file).

    Args:
        arm: per target, score(arm, t, s) `(S_t,)`.
        clean: per target, score(clean, t, s) of the same seeds in the same order, `(S_t,)`. It cancels from the value
            and decides only which pairs exist: a seed that is NaN in either has no change and is dropped.
        null: per target, score(clean, t, s') of fresh seeds `(S'_t,)`: scores, not differences; NaN is dropped.
        resamples: number of bootstrap resamples.
        level: coverage of the interval, in (0, 1).
        seed: seed of the resampling; the same seed gives the same interval.
        minimum_targets: with fewer targets that have both a change and a null, no interval is claimed.
        shared_seeds: whether the same victims (or victims of the same seeds) serve every target.

    Returns:
        The interval of the effect, in the unit of the scores. An effect is claimed when it excludes zero.

    Raises:
        InputError: the three do not match, hold infinite values, or a setting is out of range.

    Example:
        >>> clean = [[0.10, 0.12], [0.20, 0.18], [0.11, 0.13], [0.15, 0.16], [0.30, 0.28]]  # five targets, two victims each
        >>> null = [[0.11, 0.11], [0.19, 0.20], [0.12, 0.12], [0.16, 0.15], [0.29, 0.29]]  # clean victims of other seeds
        >>> arm = [[0.40, 0.45], [0.50, 0.48], [0.41, 0.39], [0.52, 0.47], [0.61, 0.55]]
        >>> effect = paired_effect(arm, clean, null)
        >>> f"{effect.mean:+.2f} [{effect.low:+.2f}, {effect.high:+.2f}]", effect.excludes_zero
        ('+0.30 [+0.27, +0.35]', True)
    """
    return _bootstrap(_paired(arm, clean, null), resamples, seed, shared_seeds).interval(level, minimum_targets)


def seed_null(
    clean: PerTarget,
    null: PerTarget,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    minimum_targets: int = MINIMUM_TARGETS,
    shared_seeds: bool = False,
) -> Interval:
    """The seed null itself: score(clean, t, s') - score(clean, t, s), zero on average if nothing is amiss.

    Args:
        clean: per target, score(clean, t, s) `(S_t,)`; NaN is dropped.
        null: per target, score(clean, t, s') of fresh seeds `(S'_t,)`; NaN is dropped.
        resamples: number of bootstrap resamples.
        level: coverage of the interval, in (0, 1).
        seed: seed of the resampling; the same seed gives the same interval.
        minimum_targets: with fewer targets that have both, no interval is claimed.
        shared_seeds: whether the same victims serve every target.

    Returns:
        The interval of the null, in the unit of the scores.

    Raises:
        InputError: the two do not match, hold infinite values, or a setting is out of range.

    Example:
        >>> clean = [[0.10, 0.12], [0.20, 0.18], [0.11, 0.13], [0.15, 0.16], [0.30, 0.28]]  # five targets, two victims each
        >>> null = [[0.11, 0.11], [0.19, 0.20], [0.12, 0.12], [0.16, 0.15], [0.29, 0.29]]  # clean victims of other seeds
        >>> interval = seed_null(clean, null)
        >>> f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"  # another seed changes next to nothing
        '+0.001 [-0.008, +0.010]'
    """
    return _bootstrap(_paired(null, null, clean), resamples, seed, shared_seeds).interval(level, minimum_targets)


def fraction_of_ceiling(
    arm: PerTarget,
    clean: PerTarget,
    null: PerTarget,
    ceiling: PerTarget,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    minimum_targets: int = MINIMUM_TARGETS,
    shared_seeds: bool = False,
) -> Interval:
    """The arm's effect as a fraction of the ceiling's: 0 is where clean victims are, 1 where the ceiling is.

    The ratio of two `paired_effect`s over the targets in which both are defined, resampled together. Undefined (NaN, no
    interval) where the ceiling's effect is smaller than `SHORTEST_CEILING_EFFECT`: a fraction of next to nothing says nothing.

    Args:
        arm: as for `paired_effect`.
        clean: as for `paired_effect`.
        null: as for `paired_effect`.
        ceiling: like `arm`, of the models that were bent directly.
        resamples: number of bootstrap resamples.
        level: coverage of the interval, in (0, 1).
        seed: seed of the resampling; the same seed gives the same interval.
        minimum_targets: with fewer targets no interval is claimed.
        shared_seeds: as for `paired_effect`.

    Raises:
        InputError: the four do not match, hold infinite values, or a setting is out of range.

    Example:
        >>> clean = null = [[0.2]] * 5
        >>> round(fraction_of_ceiling([[0.5]] * 5, clean, null, [[0.8]] * 5).mean, 6)  # 0.3 of a possible 0.6
        0.5
        >>> fraction_of_ceiling([[0.5]] * 5, clean, null, [[0.25]] * 5).mean  # where hardly anything is possible
        nan
    """
    pairs = zip(_paired(arm, clean, null), _paired(ceiling, clean, null), strict=True)
    both = [(near, far) for near, far in pairs if all(group.size for group in (*near, *far))]
    # The same seed draws the same targets, and the same seeds of the null, for both.
    near = _bootstrap([attacked for attacked, _ in both], resamples, seed, shared_seeds)
    far = _bootstrap([bent for _, bent in both], resamples, seed, shared_seeds)
    if not both or far.estimate < SHORTEST_CEILING_EFFECT:
        return Interval(float("nan"))
    shares = near.replicates / far.replicates.clip(min=SHORTEST_CEILING_EFFECT)
    return _Bootstrap(near.estimate / far.estimate, shares, near.targets).interval(level, minimum_targets)


@final
@dataclass(frozen=True, slots=True)
class EffectError:
    """How uncertain an effect is, whatever its size.

    Attributes:
        standard_error: bootstrap standard error of `paired_effect`, times `√(T/(T-1))`; in the unit of the scores.
        targets: T, those that have both a change and a null.
    """

    standard_error: float
    targets: int

    def p_value(self, effect: float) -> float:
        """Two-sided p-value of no effect: `effect / standard_error` against Student's t with T-1 degrees of freedom.

        Counting resamples cannot give a p-value below one over their number, which a correction for many comparisons
        needs; this supposes about normal errors instead, like `detectable`. Scores without any spread give 0, or 1 if
        they did not move.

        Args:
            effect: what was measured, in the unit of the scores.

        Returns:
            A probability.

        Example:
            >>> error = EffectError(standard_error=0.1, targets=10)
            >>> round(error.p_value(0.05), 3), round(error.p_value(0.4), 3)
            (0.629, 0.003)
        """
        if self.standard_error == 0:
            return float(effect == 0)
        return float(2 * student.sf(abs(effect) / self.standard_error, self.targets - 1))

    def detectable(self, *, level: float = LEVEL, power: float = POWER) -> float:
        """The effect that would have been claimed at this level with this power, at least 0.

        Args:
            level: coverage of the interval that has to exclude zero, in (0, 1).
            power: probability with which it does, in (0, 1).

        Raises:
            InputError: the level or the power is out of range.

        Example:
            >>> round(EffectError(standard_error=0.1, targets=10).detectable(), 2)
            0.31
        """
        _check_share("level", level)
        _check_share("power", power)
        quantiles = student.ppf((1 + level) / 2, self.targets - 1) + student.ppf(power, self.targets - 1)
        return max(0.0, float(quantiles * self.standard_error))


def effect_error(
    arm: PerTarget,
    clean: PerTarget,
    null: PerTarget,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    shared_seeds: bool = False,
) -> EffectError | None:
    """The uncertainty of `paired_effect`, from the same resamples; None with fewer than 2 targets.

    Args:
        arm: as for `paired_effect`.
        clean: as for `paired_effect`.
        null: as for `paired_effect`.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling; the same seed gives the same number.
        shared_seeds: as for `paired_effect`.

    Raises:
        InputError: the three do not match, hold infinite values, or a setting is out of range.

    Example:
        >>> clean = [[0.10, 0.12], [0.20, 0.18], [0.11, 0.13], [0.15, 0.16], [0.30, 0.28]]  # five targets, two victims each
        >>> null = [[0.11, 0.11], [0.19, 0.20], [0.12, 0.12], [0.16, 0.15], [0.29, 0.29]]  # clean victims of other seeds
        >>> arm = [[0.40, 0.45], [0.50, 0.48], [0.41, 0.39], [0.52, 0.47], [0.61, 0.55]]
        >>> error = effect_error(arm, clean, null)
        >>> f"{error.standard_error:.3f}", error.targets
        ('0.013', 5)
    """
    result = _bootstrap(_paired(arm, clean, null), resamples, seed, shared_seeds)
    if result.targets < 2:
        return None
    return EffectError(float(result.small_sample * result.replicates.std()), result.targets)


def defined_targets(arm: PerTarget, clean: PerTarget, null: PerTarget) -> int:
    """How many targets an effect rests on: those with a defined pair of arm and clean, and a defined score of the null.

    Args:
        arm: as for `paired_effect`.
        clean: as for `paired_effect`.
        null: as for `paired_effect`.

    Raises:
        InputError: the arrays do not fit together.

    Returns:
        A number from 0 to that of the targets.

    Example:
        >>> defined_targets([[0.4], [math.nan]], [[0.1], [0.1]], [[0.1], [0.2]])  # the second was never defined
        1
    """
    return sum(all(group.size for group in groups) for groups in _paired(arm, clean, null))


def smallest_detectable_effect(
    arm: PerTarget,
    clean: PerTarget,
    null: PerTarget,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    power: float = POWER,
    seed: int = 0,
    shared_seeds: bool = False,
) -> float | None:
    """The effect that `paired_effect` would have claimed with the given power, had it been there.

    `(q((1 + level) / 2) + q(power)) · √(T/(T-1)) · SE` with SE the bootstrap standard error of `paired_effect` and q the
    quantiles of Student's distribution with T-1 degrees of freedom. For many targets this is the textbook
    `(z_0.975 + z_0.8) · SE`; for few it grows with the interval that has to exclude zero. It supposes about normal
    errors and an effect that leaves their spread as it is. To judge a design before any attack, pass the clean scores as
    the arm.

    Args:
        arm: as for `paired_effect`.
        clean: as for `paired_effect`.
        null: as for `paired_effect`.
        resamples: number of bootstrap resamples.
        level: coverage of the interval that has to exclude zero, in (0, 1).
        power: probability with which it does, in (0, 1).
        seed: seed of the resampling; the same seed gives the same number.
        shared_seeds: as for `paired_effect`.

    Returns:
        The size of the effect, at least 0, in the unit of the scores; None with fewer than 2 targets.

    Raises:
        InputError: the three do not match, hold infinite values, or a setting is out of range.

    Example:
        >>> clean = [[0.10, 0.12], [0.20, 0.18], [0.11, 0.13], [0.15, 0.16], [0.30, 0.28]]  # five targets, two victims each
        >>> null = [[0.11, 0.11], [0.19, 0.20], [0.12, 0.12], [0.16, 0.15], [0.29, 0.29]]  # clean victims of other seeds
        >>> f"{smallest_detectable_effect(clean, clean, null):.3f}"  # before any attack
        '0.013'
    """
    _check_share("level", level)
    _check_share("power", power)
    error = effect_error(arm, clean, null, resamples=resamples, seed=seed, shared_seeds=shared_seeds)
    return None if error is None else error.detectable(level=level, power=power)


@final
@dataclass(frozen=True, slots=True)
class _Bootstrap:
    """The estimate and its resamples `(R,)` (empty if there was no target)."""

    estimate: float
    replicates: Array
    targets: int

    @property
    def small_sample(self) -> float:
        """`√(T/(T-1))`: T targets drawn from T vary less than T targets drawn from the world."""
        return float(np.sqrt(self.targets / (self.targets - 1)))

    def interval(self, level: float, minimum_targets: int) -> Interval:
        """The expanded percentile interval; a single target has none, whatever the minimum."""
        _check_share("level", level)
        if self.targets < max(2, minimum_targets):
            return Interval(self.estimate)
        tail = norm.cdf(self.small_sample * student.ppf((1 - level) / 2, self.targets - 1))
        low, high = np.quantile(self.replicates, [tail, 1 - tail])
        return Interval(self.estimate, float(low), float(high))


def _bootstrap(targets: Sequence[tuple[Array, ...]], resamples: int, seed: int, shared_seeds: bool) -> _Bootstrap:
    """Resample targets that hold one group of seeds (its mean) or two (the first mean minus the second)."""
    if resamples < 1:
        raise InputError(f"{resamples} resamples say nothing; ask for at least 1.")
    defined = [groups for groups in targets if all(group.size for group in groups)]
    if not defined:
        return _Bootstrap(float("nan"), np.empty(0), 0)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(defined), size=(resamples, len(defined)))
    replicates = np.zeros(resamples)
    estimate = 0.0
    for sign, groups in zip((1.0, -1.0), zip(*defined, strict=True), strict=False):
        replicates += sign * _resampled_means(groups, drawn, rng, shared_seeds).mean(axis=1)
        estimate += sign * float(np.mean([group.mean() for group in groups]))
    return _Bootstrap(estimate, replicates, len(defined))


def _resampled_means(
    groups: Sequence[Array], drawn: NDArray[np.int64], rng: np.random.Generator, shared_seeds: bool
) -> Array:
    """For every drawn target `(R, T)` the mean of as many seeds as it has, drawn with replacement.

    Seeds are drawn as uniform numbers u in [0, 1), seed ⌊u · S_t⌋, so that targets may have unequal numbers of seeds.
    """
    counts = np.array([group.size for group in groups])
    table = np.zeros((len(groups), counts.max()))
    for row, group in zip(table, groups, strict=True):
        row[: group.size] = group
    resamples, targets = drawn.shape
    uniform = rng.random((resamples, 1 if shared_seeds else targets, counts.max()))
    size = counts[drawn][..., None]
    values = table[drawn[..., None], (uniform * size).astype(np.intp)]
    values[np.broadcast_to(np.arange(counts.max()), values.shape) >= size] = 0.0
    means: Array = values.sum(axis=2) / size[..., 0]
    return means


def _paired(arm: PerTarget, clean: PerTarget, null: PerTarget) -> list[tuple[Array, Array]]:
    """Per target the arm's scores whose pair is defined, and the null's.

    Both are given relative to one score of the null: scores that do not differ then give exactly zero, not a rounding
    error that an interval of no width would call an effect.
    """
    if not len(arm) == len(clean) == len(null):
        raise InputError(
            f"the scores are of {len(arm)}, {len(clean)} and {len(null)} targets; give the same targets for each."
        )
    pairs = []
    for number, (ours, plain, fresh) in enumerate(zip(arm, clean, null, strict=True)):
        effect, partner, other = _vector(ours), _vector(plain), _defined(fresh)
        if effect.shape != partner.shape:
            raise InputError(
                f"target {number} has {effect.size} seeds with the arm but {partner.size} without it;"
                " give the same seeds in the same order."
            )
        origin = other[0] if other.size else 0.0
        pairs.append((effect[~np.isnan(effect) & ~np.isnan(partner)] - origin, other - origin))
    return pairs


def _defined(values: ArrayLike) -> Array:
    """The entries that are not NaN."""
    vector = _vector(values)
    return vector[~np.isnan(vector)]


def _vector(values: ArrayLike) -> Array:
    """One value per seed, `(S,)`."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise InputError(f"a target's values have shape {vector.shape}; give one value per seed, shape (S,).")
    if np.isinf(vector).any():
        raise InputError("a target's values hold infinity; mark what is undefined as NaN.")
    return vector


def _check_share(name: str, value: float) -> None:
    """Refuse a probability that is none."""
    if not 0.0 < value < 1.0:
        raise InputError(f"the {name} {value} is out of range; choose one between 0 and 1.")
