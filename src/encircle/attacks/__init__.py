"""Attacks on explanations through the training data, and the controls they are judged against."""

from .base import Attack, Bases, Problem, Watch
from .bases import choose_bases
from .ceiling import Ceiling
from .controls import BaseSamples, NoPoison, RandomNoise
from .encirclement import FeatureEncirclement
from .imf import IMF
from .influence import Influence
from .matching import GradientMatching
from .surrogate import SurrogateAttack
from .unrolled import Unrolled
from .watermark import ProjectedWatermark, Watermark

__all__ = [
    "IMF",
    "Attack",
    "BaseSamples",
    "Bases",
    "Ceiling",
    "FeatureEncirclement",
    "GradientMatching",
    "Influence",
    "NoPoison",
    "Problem",
    "ProjectedWatermark",
    "RandomNoise",
    "SurrogateAttack",
    "Unrolled",
    "Watch",
    "Watermark",
    "choose_bases",
]
