"""What a victim is scored by: one row a score, in the order of the columns of `scores.parquet`.

`encircle.scoring` computes the scores of maps; reports and run folders only name them. They all take the names from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final


@final
@dataclass(frozen=True, slots=True)
class Score:
    """One score of a victim.

    Attributes:
        key: its column in `scores.parquet`.
        title: its name for people.
        direction: which values suit the attacker: a map nearer to the desired one, a victim that behaves as before.
    """

    key: str
    title: str
    direction: Literal["higher", "lower"] = "higher"


MAP_SCORES = (
    Score("jaccard", "Jaccard"),
    Score("jaccard_soft", "soft Jaccard"),
    Score("l1", "L1", "lower"),
    Score("cosine", "cosine"),
    Score("spearman", "Spearman"),
    Score("ssim", "SSIM"),
    Score("topk", "top-k"),
    Score("pointing", "pointing game"),
    Score("mass_goal", "mass in goal"),
    Score("mass_box", "mass in box"),
)
"""Scores of the target's map against the desired one, as `encircle.scoring.score` computes them."""

VICTIM_SCORES = (
    Score("label_kept", "label kept"),
    Score("probability", "probability"),
    Score("accuracy", "accuracy"),
    Score("drift", "drift of others", "lower"),
)
"""What else is measured of a victim: its prediction of the target, its held-out accuracy, other samples' maps."""

JUDGED_SCORES = ("jaccard", "l1")
"""Scores that `verdict.json` holds intervals of, and of whose changes it does; the verdict is decided by the first."""
