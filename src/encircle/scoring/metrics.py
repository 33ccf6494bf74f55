"""Scores of a map against the desired map: pure functions over numpy arrays.

A map and its goal have the same shape, `(h, w)` for images or `(F,)` for tables, and no common scale: every score is
the same after a map is multiplied by a positive number, and all but `relevance_mass` are the same after one is added.
An optional boolean mask of that shape says which entries the goal concerns (Zhang, Gao and Su 2021, footnote 1).
Scaling to [0, 1] always looks at the whole map; only then are the masked entries taken.

A score that means nothing is NaN, never 0 or 1: every score of a constant or non-finite map (or goal), and those whose
denominator is empty. Nothing here warns. Arrays that cannot be compared at all raise `encircle.core.InputError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..core import InputError
from .arrays import UNDEFINED, Array, check_shapes
from .thresholds import HIGHLIGHTED

Mask = NDArray[np.bool_]

ROUNDING = 4
"""A map whose range is at most so many rounding steps of its own largest entry is constant but for rounding."""


def minmax(attribution: NDArray[Any]) -> Array | None:
    """A map scaled so that its smallest entry is 0 and its largest is 1.

    Entries are first multiplied by a power of two, which is exact, so that gradients of a saturated probability (1e-12
    and far below) neither vanish nor does the range of a huge map overflow.

    Args:
        attribution: the map, any shape, any real type.

    Returns:
        float64 of the same shape, or None where the scaled map is undefined: empty, not finite everywhere, or constant
        up to rounding (`ROUNDING`) in the type the map came in.

    Example:
        >>> minmax(np.array([2.0, 3.0, 6.0]))
        array([0.  , 0.25, 1.  ])
        >>> minmax(np.array([1.0, 1.0])) is None  # a constant map has no shape
        True
    """
    precision = np.finfo(attribution.dtype if np.issubdtype(attribution.dtype, np.floating) else np.float64).eps
    values = attribution.astype(np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        return None
    _, exponent = np.frexp(np.abs(values).max())
    values = np.ldexp(values, -exponent)  # now the largest size lies in [0.5, 1)
    low, high = values.min(), values.max()
    if high - low <= ROUNDING * precision:
        return None
    scaled: Array = (values - low) / (high - low)
    return scaled


def l1(attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None = None) -> float:
    """Mean absolute difference of the scaled maps over the masked entries.

    §5.3.1 of the paper, divided by the number of masked entries so that it lies in [0, 1].

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries that count, same shape; all by default.

    Returns:
        A number in [0, 1], 0 for equal maps: lower is better. NaN where undefined.

    Raises:
        InputError: the arrays cannot be compared.

    Example:
        >>> goal = np.array([0.0, 0.0, 1.0, 1.0])
        >>> l1(np.array([0.0, 5.0, 10.0, 10.0]), goal)  # scaled to [0, 0.5, 1, 1]
        0.125
        >>> l1(-goal, goal)  # the opposite
        1.0
    """
    pair = _scaled(attribution, goal, mask)
    return UNDEFINED if pair is None else float(np.abs(pair[0] - pair[1]).mean())


def jaccard(
    attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None = None, *, threshold: float = HIGHLIGHTED
) -> float:
    """Intersection over union of the highlighted masked entries (§5.3.1 of the paper, its text).

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries that count, same shape; all by default.
        threshold: an entry is highlighted when its scaled value is at least this; in (0, 1].

    Returns:
        A number in [0, 1], 1 for the same highlighted entries. NaN where undefined (neither highlights a masked entry).

    Raises:
        InputError: the arrays cannot be compared, or the threshold is out of range.

    Example:
        >>> goal = np.array([0.0, 0.0, 1.0, 1.0])
        >>> round(jaccard(np.array([0.0, 0.9, 1.0, 0.1]), goal), 3)  # one of three entries that either highlights
        0.333
        >>> jaccard(3 * goal + 1, goal)  # scale and offset do not matter
        1.0
        >>> jaccard(np.ones(4), goal)  # a constant map highlights nothing
        nan
    """
    _check_threshold(threshold)
    pair = _scaled(attribution, goal, mask)
    if pair is None:
        return UNDEFINED
    ours, wanted = pair[0] >= threshold, pair[1] >= threshold
    return _ratio((ours & wanted).sum(), (ours | wanted).sum())


def jaccard_soft(attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None = None) -> float:
    """Sum of the smaller over sum of the larger of the scaled masked entries (§5.3.1 of the paper, its formula).

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries that count, same shape; all by default.

    Returns:
        A number in [0, 1], 1 for equal maps. NaN where undefined (both are 0 on the whole mask).

    Raises:
        InputError: the arrays cannot be compared.

    Example:
        >>> jaccard_soft(np.array([0.0, 0.5, 1.0, 0.5]), np.array([0.0, 0.0, 1.0, 1.0]))  # 1.5 of 2.5
        0.6
    """
    pair = _scaled(attribution, goal, mask)
    return UNDEFINED if pair is None else _ratio(np.minimum(*pair).sum(), np.maximum(*pair).sum())


def cosine(attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None = None) -> float:
    """Centred cosine of the masked entries, which is Pearson's correlation.

    Centred because the attack's objective is, and because the plain cosine of two non-negative maps is high whatever
    they show.

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries that count, same shape; all by default.

    Returns:
        A number in [-1, 1]. NaN where undefined (also where either is constant on the mask).

    Raises:
        InputError: the arrays cannot be compared.

    Example:
        >>> goal = np.array([0.0, 0.0, 1.0, 1.0])
        >>> round(cosine(2 * goal + 5, goal), 6), round(cosine(-goal, goal), 6)
        (1.0, -1.0)
    """
    if _scaled(attribution, goal, mask) is None:
        return UNDEFINED
    return _pearson(_select(attribution, mask), _select(goal, mask))


def spearman(attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None = None) -> float:
    """Spearman's rank correlation of the masked entries: Pearson's of the ranks, tied entries sharing their mean rank.

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries that count, same shape; all by default.

    Returns:
        A number in [-1, 1]. NaN where undefined (also where either is constant on the mask).

    Raises:
        InputError: the arrays cannot be compared.

    Example:
        >>> round(spearman(np.array([1.0, 10.0, 100.0, 1000.0]), np.arange(4.0)), 6)  # the order is the same
        1.0
    """
    if _scaled(attribution, goal, mask) is None:
        return UNDEFINED
    return _pearson(rankdata(_select(attribution, mask)), rankdata(_select(goal, mask)))


def ssim(attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None = None) -> float:
    """Structural similarity of the scaled maps (Wang et al. 2004, scikit-image, uniform window, data range 1).

    The window is the largest odd side up to half the map's shorter side, within 3 … 7 cells (7 at 14×14, 3 at 7×7 and
    4×4), so that the mean is over several windows even on a CAM grid. It is over the windows that lie wholly inside the
    map and are centred on a masked entry.

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries that count, same shape; all by default.

    Returns:
        A number in [-1, 1], 1 for equal maps. NaN where undefined: also for `(F,)`, for grids with a side below 3, and
        where no window is centred on a masked entry.

    Raises:
        InputError: the arrays cannot be compared.

    Example:
        >>> goal = np.zeros((6, 6))
        >>> goal[:3] = 1  # the upper half
        >>> ssim(goal, goal), round(ssim(goal.T, goal), 2)
        (1.0, 0.13)
    """
    _check(attribution, goal, mask)
    ours, wanted = minmax(attribution), minmax(goal)
    if ours is None or wanted is None or ours.ndim != 2 or min(ours.shape) < 3:
        return UNDEFINED
    half = max(3, min(7, min(ours.shape) // 2))
    window = half - (half + 1) % 2
    from skimage.metrics import structural_similarity  # noqa: PLC0415 - slow to load, and most commands score nothing

    compare: Callable[..., tuple[float, Array]] = structural_similarity  # scikit-image has no types
    similarity = compare(ours, wanted, win_size=window, data_range=1.0, full=True)[1]
    border = window // 2
    inside = np.zeros(ours.shape, dtype=np.bool_)
    inside[border:-border, border:-border] = True
    chosen = similarity[inside if mask is None else inside & mask]
    return float(chosen.mean()) if chosen.size else UNDEFINED


def topk_intersection(
    attribution: NDArray[Any],
    goal: NDArray[Any],
    mask: Mask | None = None,
    *,
    k: int | None = None,
    threshold: float = HIGHLIGHTED,
) -> float:
    """Share of the goal's k highest masked entries that are among the map's k highest (Ghorbani et al. 2019).

    Among equal entries the one that comes first in the array ranks higher. If k is the number of masked entries the
    share is 1 whatever the map.

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries that count, same shape; all by default.
        k: how many; by default as many as the goal highlights.
        threshold: an entry is highlighted when its scaled value is at least this; in (0, 1].

    Returns:
        A number in [0, 1]. NaN where undefined (the goal highlights no masked entry).

    Raises:
        InputError: the arrays cannot be compared, or k or the threshold is out of range.

    Example:
        >>> goal = np.array([0.0, 0.0, 1.0, 1.0])
        >>> topk_intersection(np.array([0.0, 3.0, 9.0, 1.0]), goal)  # its two highest share one with the goal's
        0.5
    """
    _check_threshold(threshold)
    pair = _scaled(attribution, goal, mask)
    if pair is None:
        return UNDEFINED
    ours, wanted = pair
    if k is None:
        k = int((wanted >= threshold).sum())
    elif not 1 <= k <= wanted.size:
        raise InputError(f"k = {k} entries cannot be chosen from {wanted.size}; give a k between 1 and {wanted.size}.")
    highest, wanted_highest = (np.argsort(-values, kind="stable")[:k] for values in (ours, wanted))
    return _ratio(np.isin(wanted_highest, highest).sum(), k)


def pointing_game(
    attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None = None, *, threshold: float = HIGHLIGHTED
) -> float:
    """Whether the map's largest masked entry lies where the goal is highlighted (Zhang et al. 2018, pointing game).

    Of several equally large entries the first in the array is taken.

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries that count, same shape; all by default.
        threshold: an entry is highlighted when its scaled value is at least this; in (0, 1].

    Returns:
        1.0 or 0.0. NaN where undefined.

    Raises:
        InputError: the arrays cannot be compared, or the threshold is out of range.

    Example:
        >>> goal = np.array([0.0, 0.0, 1.0, 1.0])
        >>> pointing_game(np.array([0.0, 3.0, 9.0, 1.0]), goal), pointing_game(np.array([0.0, 9.0, 3.0, 1.0]), goal)
        (1.0, 0.0)
    """
    _check_threshold(threshold)
    pair = _scaled(attribution, goal, mask)
    return UNDEFINED if pair is None else float(pair[1][pair[0].argmax()] >= threshold)


def relevance_mass(attribution: NDArray[Any], region: Mask, mask: Mask | None = None) -> float:
    """Share of the positive relevance that lies inside a region (Arras et al. 2022, relevance mass accuracy).

    Zero means "no relevance" here, so this score alone changes when a constant is added to the map.

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        region: true inside the region, same shape.
        mask: the entries that count, in the region and around it, same shape; all by default.

    Returns:
        A number in [0, 1]. NaN where undefined: the map is constant, nothing positive is counted or the
            region is empty.

    Raises:
        InputError: the arrays cannot be compared.

    Example:
        >>> region = np.array([False, False, True, True])
        >>> relevance_mass(np.array([1.0, -5.0, 2.0, 1.0]), region)  # 3 of 4; what is negative does not count
        0.75
    """
    _check(attribution, region, mask)
    _check_boolean("region", region)
    inside = _select(region, mask)
    if minmax(attribution) is None or not inside.any():
        return UNDEFINED
    positive = np.maximum(_select(attribution, mask).astype(np.float64), 0.0)
    if positive.max() == 0.0:
        return UNDEFINED
    positive /= positive.max()  # the sum of a huge map stays finite, that of a tiny one positive
    return min(1.0, _ratio(positive[inside].sum(), positive.sum()))


def relevance_mass_in_goal(attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None = None) -> float:
    """Share of the positive relevance in the entries that the goal highlights (see `relevance_mass`).

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries that count, same shape; all by default.

    Returns:
        A number in [0, 1]. NaN where undefined.

    Raises:
        InputError: the arrays cannot be compared.

    Example:
        >>> relevance_mass_in_goal(np.array([1.0, -5.0, 2.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
        0.75
    """
    scaled = minmax(goal)
    return UNDEFINED if scaled is None else relevance_mass(attribution, scaled >= HIGHLIGHTED, mask)


SCORED_AGAINST_GOAL: dict[str, Callable[[NDArray[Any], NDArray[Any], Mask | None], float]] = {
    "jaccard": jaccard,
    "jaccard_soft": jaccard_soft,
    "l1": l1,
    "cosine": cosine,
    "spearman": spearman,
    "ssim": ssim,
    "topk": topk_intersection,
    "pointing": pointing_game,
    "mass_goal": relevance_mass_in_goal,
}
"""The function of every score of a map against its goal, by the key of its row in `encircle.score_names.MAP_SCORES`."""


def score(
    attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None = None, box: Mask | None = None
) -> dict[str, float]:
    """Every score of one map, under the column names of `scores.parquet`.

    Args:
        attribution: the map, `(h, w)` or `(F,)`.
        goal: the desired map, same shape.
        mask: the entries the goal concerns, same shape; all by default. `mass_box` does not look at it.
        box: true inside the object's box, same shape, where it is known.

    Returns:
        `jaccard`, `jaccard_soft`, `l1`, `cosine`, `spearman`, `ssim`, `topk`, `pointing`, `mass_goal` (in the entries
        the goal highlights) and `mass_box` (NaN without a box), each NaN where undefined.

    Raises:
        InputError: the arrays cannot be compared.

    Example:
        >>> scores = score(np.array([0.0, 0.9, 1.0, 0.1]), np.array([0.0, 0.0, 1.0, 1.0]))
        >>> round(scores["jaccard"], 2), round(scores["l1"], 2), scores["pointing"]
        (0.33, 0.45, 1.0)
    """
    scores = {key: function(attribution, goal, mask) for key, function in SCORED_AGAINST_GOAL.items()}
    return scores | {"mass_box": UNDEFINED if box is None else relevance_mass(attribution, box)}


def _scaled(attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None) -> tuple[Array, Array] | None:
    """The masked entries `(n,)` of both maps after each was scaled as a whole; None where that is undefined."""
    _check(attribution, goal, mask)
    ours, wanted = minmax(attribution), minmax(goal)
    if ours is None or wanted is None or (mask is not None and not mask.any()):
        return None
    return _select(ours, mask), _select(wanted, mask)


def _select(values: NDArray[Any], mask: Mask | None) -> NDArray[Any]:
    """The masked entries `(n,)` in the order of the array."""
    return values.ravel() if mask is None else values[mask]


def _pearson(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson's correlation of two vectors `(n,)`; NaN where one is constant."""
    a, b = minmax(first), minmax(second)
    if a is None or b is None:
        return UNDEFINED
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1.0, 1.0))


def _ratio(part: int | float | np.number[Any], total: int | float | np.number[Any]) -> float:
    """A share; NaN where there is nothing to have a share of."""
    return float(part / total) if total > 0 else UNDEFINED


def _check(attribution: NDArray[Any], goal: NDArray[Any], mask: Mask | None) -> None:
    """Refuse arrays that cannot be compared entry by entry."""
    check_shapes("map", attribution, "goal", goal)
    if attribution.ndim not in (1, 2) or attribution.size == 0:
        raise InputError(f"a map of shape {attribution.shape} cannot be scored; give one of shape (h, w) or (F,).")
    if mask is not None:
        check_shapes("map", attribution, "mask", mask)
        _check_boolean("mask", mask)


def _check_boolean(name: str, array: NDArray[Any]) -> None:
    """Refuse numbers where true and false are meant: as an index they would pick rows."""
    if array.dtype != np.bool_:
        raise InputError(f"the {name} has type {array.dtype}; convert it to bool.")


def _check_threshold(threshold: float) -> None:
    """Refuse a threshold that highlights everything or nothing."""
    if not 0.0 < threshold <= 1.0:
        raise InputError(f"the threshold {threshold} is out of range; choose one above 0 and at most 1.")
