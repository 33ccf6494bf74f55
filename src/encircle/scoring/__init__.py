"""How near a map came to the desired one, how far a poison went from its bases, and what of it is evidence.

The words, in names and docstrings:

- *change*: a score with an arm minus the score of the clean victim of the same seed.
- *seed null*: what another training seed does, clean victim against clean victim.
- *effect*: change minus seed null; what an attack did beyond another training seed. A verdict is decided by it.
- *effect over X*: paired difference of two attacks, by target and seed.
- *fraction of the ceiling*: an effect over that of models that were bent directly.
- *collateral drift*: how far the maps of *other* samples turned, in the column `drift`.

Files keep their keys: `jaccard_change` and `shift` hold effects, `share_of_way` a fraction of the ceiling.
"""

from .comparisons import holm
from .metrics import (
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
from .statistics import (
    EffectError,
    Interval,
    defined_targets,
    effect_error,
    facts_of,
    fraction_of_ceiling,
    hierarchical_bootstrap,
    paired_effect,
    seed_null,
    smallest_detectable_effect,
)

__all__ = [
    "Interval",
    "EffectError",
    "cosine",
    "defined_targets",
    "distances",
    "facts_of",
    "fraction_of_ceiling",
    "hierarchical_bootstrap",
    "holm",
    "jaccard",
    "jaccard_soft",
    "l1",
    "minmax",
    "paired_effect",
    "pointing_game",
    "psnr",
    "relevance_mass",
    "score",
    "seed_null",
    "effect_error",
    "smallest_detectable_effect",
    "spearman",
    "ssim",
    "topk_intersection",
]
