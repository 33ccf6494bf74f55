"""What counts as evidence: the effect of an attack beyond the seed null, its error, and the smallest one that would have been claimed.

**The effect.** For target t and seed s (docs: what counts as evidence)

    change(t, s)   = score(arm, t, s) - score(clean, t, s)
    null(t, s, s') = score(clean, t, s') - score(clean, t, s)        the *seed null*: what another training seed does

and the effect is change minus null. Both contain the *same* clean victim s, which therefore cancels:

    change(t, s) - null(t, s, s') = score(arm, t, s) - score(clean, t, s')

so the effect compares a poisoned victim with a clean victim of a *fresh* seed, on the same target. The draws of s and
of s' are independent and each contributes its variance: a map that wanders from seed to seed needs a larger effect to
be claimed, even where one seed moves arm and clean together and the change alone would look sharp. (Drawing the
s inside the null anew would break the cancellation and count the variance of the clean victim s twice, for nothing.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.stats import t as student

from ..core import InputError
from .arrays import Array
from .bootstrap import Bootstrap, Interval, PerTarget, bootstrap, check_probability, defined_values, seed_values
from .thresholds import LEVEL, MINIMUM_TARGETS, POWER, RESAMPLES, SHORTEST_CEILING_EFFECT


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
    return bootstrap(_paired(arm, clean, null), resamples, seed, shared_seeds).interval(level, minimum_targets)


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
    return bootstrap(_paired(null, null, clean), resamples, seed, shared_seeds).interval(level, minimum_targets)


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
    near = bootstrap([attacked for attacked, _ in both], resamples, seed, shared_seeds)
    far = bootstrap([bent for _, bent in both], resamples, seed, shared_seeds)
    if not both or far.estimate < SHORTEST_CEILING_EFFECT:
        return Interval(float("nan"))
    shares = near.replicates / far.replicates.clip(min=SHORTEST_CEILING_EFFECT)
    return Bootstrap(near.estimate / far.estimate, shares, near.targets).interval(level, minimum_targets)


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
        check_probability("level", level)
        check_probability("power", power)
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
    result = bootstrap(_paired(arm, clean, null), resamples, seed, shared_seeds)
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
        >>> defined_targets([[0.4], [float("nan")]], [[0.1], [0.1]], [[0.1], [0.2]])  # the second was never defined
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
    check_probability("level", level)
    check_probability("power", power)
    error = effect_error(arm, clean, null, resamples=resamples, seed=seed, shared_seeds=shared_seeds)
    return None if error is None else error.detectable(level=level, power=power)


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
        effect, partner, other = seed_values(ours), seed_values(plain), defined_values(fresh)
        if effect.shape != partner.shape:
            raise InputError(
                f"target {number} has {effect.size} seeds with the arm but {partner.size} without it;"
                " give the same seeds in the same order."
            )
        origin = other[0] if other.size else 0.0
        pairs.append((effect[~np.isnan(effect) & ~np.isnan(partner)] - origin, other - origin))
    return pairs
