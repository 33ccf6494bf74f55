"""Training: recipes, one model, and the attacker's ensemble."""

from .code_path import CodePath
from .ensemble import Ensemble
from .fit import correct, fit
from .learner import Learner
from .recipe import Recipe
from .source import Source
from .weights import read_weights, save_tensors, save_weights

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
