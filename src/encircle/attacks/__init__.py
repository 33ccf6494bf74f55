"""Attacks on explanations through the training data, and the controls they are judged against."""

from .back_gradient import BackGradient
from .base import Attack, Bases, Problem, Watch
from .bases import choose_bases
from .ceiling import Ceiling
from .controls import BaseSamples, NoPoison, RandomNoise
from .encirclement import FeatureEncirclement
from .imf import IMF
from .influence import Influence
from .matching import GradientMatching
from .optimised import OptimisedAttack
from .surrogate import SurrogateAttack
from .unrolled import Unrolled
from .watermark import ProjectedWatermark, Watermark

ALL: tuple[type[Attack], ...] = (
    IMF,
    Influence,
    BackGradient,
    GradientMatching,
    Unrolled,
    FeatureEncirclement,
    Watermark,
    ProjectedWatermark,
)
"""Every attack that a case can name."""

__all__ = [
    "ALL",
    "IMF",
    "Attack",
    "BackGradient",
    "BaseSamples",
    "Bases",
    "Ceiling",
    "FeatureEncirclement",
    "GradientMatching",
    "Influence",
    "NoPoison",
    "OptimisedAttack",
    "Problem",
    "ProjectedWatermark",
    "RandomNoise",
    "SurrogateAttack",
    "Unrolled",
    "Watch",
    "Watermark",
    "choose_bases",
]
