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

from .bootstrap import Interval, facts_of, hierarchical_bootstrap
from .comparisons import holm
from .effects import (
    EffectError,
    defined_targets,
    effect_error,
    fraction_of_ceiling,
    paired_effect,
    seed_null,
    smallest_detectable_effect,
)
from .metrics import (
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
from .poison_distances import distances, psnr

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
