"""Training: recipes, one model, and the attacker's ensemble."""

from .ensemble import Ensemble
from .fit import Learner, Source, accuracy, fit, read_weights, save_tensors, save_weights
from .recipe import Recipe

__all__ = ["Ensemble", "Learner", "Recipe", "Source", "accuracy", "fit", "read_weights", "save_tensors", "save_weights"]
