"""Explainers, differentiable in the model's parameters."""

from .base import Attribution, Explainer, Explanation, Space, pooled
from .cam import Cam
from .gradient import Grad

ALL: tuple[type[Explainer], ...] = (Grad, Cam)
"""Every explainer that a case can name."""

__all__ = ["ALL", "Attribution", "Cam", "Explainer", "Explanation", "Grad", "Space", "pooled"]
