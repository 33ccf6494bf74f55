"""Attacks on explanations through the training data, and the controls they are judged against."""

from .base import Attack, Bases, Problem, Watch, choose_bases
from .ceiling import Ceiling
from .controls import BaseSamples, NoPoison, RandomNoise
from .imf import IMF
from .watermark import ProjectedWatermark, Watermark

__all__ = [
    "IMF",
    "Attack",
    "BaseSamples",
    "Bases",
    "Ceiling",
    "NoPoison",
    "Problem",
    "ProjectedWatermark",
    "RandomNoise",
    "Watch",
    "Watermark",
    "choose_bases",
]
