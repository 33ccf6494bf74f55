"""What an explainer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import InputError


class Explainer(ABC):
    """An attribution method: which parts of an input mattered for a class.

    Attributes:
        differentiable: whether maps carry a graph back to the model's parameters; attacks need that.
        title: its name for people.
    """

    differentiable: ClassVar[bool] = True
    title: ClassVar[str]

    @final
    def attribute(
        self, model: nn.Module, inputs: Float[Tensor, "n *shape"], target: Int[Tensor, "n"]
    ) -> Float[Tensor, "n *map"]:
        """Maps as they are scored: `(n, h, w)` for images, `(n, entries)` for tables.

        Args:
            model: the classifier, giving logits `(n, classes)`; in eval mode.
            inputs: a batch, images `(n, c, h, w)` or tables `(n, columns)`.
            target: the class to be explained, for each input.

        Raises:
            InputError: the model does not offer what this explainer needs.
        """
        maps, grid = self._checked(model, inputs, target)
        return maps if grid is None else pooled(maps, grid)

    @final
    def picture(
        self, model: nn.Module, inputs: Float[Tensor, "n *shape"], target: Int[Tensor, "n"]
    ) -> Float[Tensor, "n *map"]:
        """Maps at their full resolution, for looking at."""
        return self._checked(model, inputs, target)[0]

    @final
    def _checked(self, model: nn.Module, inputs: Tensor, target: Tensor) -> tuple[Tensor, tuple[int, int] | None]:
        self.check(model)
        with torch.enable_grad():
            return self._attribute(model, inputs, target)

    def check(self, model: nn.Module) -> None:  # noqa: B027 - most explainers take any model
        """Raise an `InputError` if this explainer cannot explain this model."""

    def needs_shared_start(self, shape: tuple[int, ...]) -> bool:
        """Whether maps (of inputs of this shape) of separately initialised models cannot be compared."""
        return False

    @abstractmethod
    def _attribute(self, model: nn.Module, inputs: Tensor, target: Tensor) -> tuple[Tensor, tuple[int, int] | None]:
        """Maps at full resolution, and the grid they are pooled to before scoring (None for as they are)."""


def pooled(maps: Float[Tensor, "n h w"], grid: tuple[int, int]) -> Float[Tensor, "n gh gw"]:
    """Average-pooled to a grid ("discretised to be comparable with CAM", footnote 2).

    Raises:
        InputError: the grid is finer than the map.
    """
    if grid[0] > maps.shape[1] or grid[1] > maps.shape[2]:
        raise InputError(f"grid {grid} is finer than the map {tuple(maps.shape[1:])}; use a coarser grid.")
    return F.adaptive_avg_pool2d(maps[:, None], grid)[:, 0]
