"""How near a map came to the desired one, how far a poison went from its bases, and what of it is evidence."""

from encircle.scoring.metrics import (
    cosine,
    distances,
    jaccard,
    jaccard_soft,
    l1,
    minmax,
    pointing_game,
    psnr,
    relevance_mass,
    score,
    spearman,
    ssim,
    topk_intersection,
)
from encircle.scoring.statistics import (
    Interval,
    hierarchical_bootstrap,
    paired_shift,
    seed_drift,
    smallest_detectable_shift,
)

__all__ = [
    "Interval",
    "cosine",
    "distances",
    "hierarchical_bootstrap",
    "jaccard",
    "jaccard_soft",
    "l1",
    "minmax",
    "paired_shift",
    "pointing_game",
    "psnr",
    "relevance_mass",
    "score",
    "seed_drift",
    "smallest_detectable_shift",
    "spearman",
    "ssim",
    "topk_intersection",
]
