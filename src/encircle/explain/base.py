"""What an explainer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import InputError


class Explanation(NamedTuple):
    """What an explainer finds.

    Attributes:
        maps: at full resolution, `(n, h, w)` or `(n, entries)`.
        grid: what they are average-pooled to before scoring; None for as they are.
        logits: of the same pass through the model, `(n, classes)`; None where there was none.
    """

    maps: Tensor
    grid: tuple[int, int] | None = None
    logits: Tensor | None = None


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
        return _scored(self._checked(model, inputs, target))

    @final
    def explain(
        self, model: nn.Module, inputs: Float[Tensor, "n *shape"], target: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n *map"], Float[Tensor, "n classes"]]:
        """Maps as they are scored, and the logits, of one pass through the model where the explainer's own gives both."""
        found = self._checked(model, inputs, target)
        return _scored(found), model(inputs) if found.logits is None else found.logits

    @final
    def picture(
        self, model: nn.Module, inputs: Float[Tensor, "n *shape"], target: Int[Tensor, "n"]
    ) -> Float[Tensor, "n *map"]:
        """Maps at their full resolution, for looking at."""
        return self._checked(model, inputs, target).maps

    @final
    def _checked(self, model: nn.Module, inputs: Tensor, target: Tensor) -> Explanation:
        self.check(model)
        with torch.enable_grad():
            return self._attribute(model, inputs, target)

    def check(self, model: nn.Module) -> None:  # noqa: B027 - most explainers take any model
        """Raise an `InputError` if this explainer cannot explain this model."""

    def needs_shared_start(self, shape: tuple[int, ...]) -> bool:
        """Whether maps (of inputs of this shape) of separately initialised models cannot be compared."""
        return False

    @abstractmethod
    def _attribute(self, model: nn.Module, inputs: Tensor, target: Tensor) -> Explanation:
        """Maps, their grid, and the logits if they came along; each row's depend on that row alone."""


def _scored(found: Explanation) -> Tensor:
    return found.maps if found.grid is None else pooled(found.maps, found.grid)


def pooled(maps: Float[Tensor, "n h w"], grid: tuple[int, int]) -> Float[Tensor, "n gh gw"]:
    """Average-pooled to a grid ("discretised to be comparable with CAM", footnote 2).

    Raises:
        InputError: the grid is finer than the map.
    """
    if grid[0] > maps.shape[1] or grid[1] > maps.shape[2]:
        raise InputError(f"grid {grid} is finer than the map {tuple(maps.shape[1:])}; use a coarser grid.")
    return F.adaptive_avg_pool2d(maps[:, None], grid)[:, 0]
