"""Training: recipes, one model, and the attacker's ensemble."""

from .code_path import CodePath
from .ensemble import Ensemble
from .fit import Learner, Source, correct, fit, read_weights, save_tensors, save_weights
from .recipe import Recipe

__all__ = [
    "CodePath",
    "Ensemble",
    "Learner",
    "Recipe",
    "Source",
    "correct",
    "fit",
    "read_weights",
    "save_tensors",
    "save_weights",
]
