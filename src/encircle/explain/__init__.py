"""Explainers, differentiable in the model's parameters."""

from .base import Explainer, Explanation, pooled
from .cam import Cam
from .gradient import Grad

__all__ = ["Cam", "Explainer", "Explanation", "Grad", "pooled"]
