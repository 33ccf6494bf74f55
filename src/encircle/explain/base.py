"""What an explainer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import InputError

Space = Literal["grid", "columns", "units"]
"""What the entries of a map are: cells of an image, columns of a table, or hidden units of a network."""


@final
class Attribution(NamedTuple):
    """What an explainer computes, in one pass through the model.

    Attributes:
        maps: at full resolution, `(n, h, w)` or `(n, entries)`.
        grid: what they are average-pooled to before scoring; None for as they are.
        logits: of the same pass, `(n, classes)`; None where there was none.
    """

    maps: Tensor
    grid: tuple[int, int] | None = None
    logits: Tensor | None = None


@final
class Explanation(NamedTuple):
    """An explanation of a batch.

    Attributes:
        maps: as they are scored: `(n, h, w)` for images, `(n, entries)` for tables.
        pictures: at full resolution, for looking at.
        logits: of the same pass through the model, `(n, classes)`.
    """

    maps: Tensor
    pictures: Tensor
    logits: Tensor


class Explainer(ABC):
    """An attribution method: which parts of an input mattered for a class.

    Attributes:
        kind: its name in cases.
        title: its name for people.
        about: what it is, in a sentence or two for a report's glossary; empty is not shown.
        differentiable: whether maps can carry a graph back to the model's parameters; attacks need that.
    """

    kind: str
    title: ClassVar[str]
    about: ClassVar[str] = ""
    differentiable: ClassVar[bool] = True

    @final
    def explain(
        self,
        model: nn.Module,
        inputs: Float[Tensor, "n *shape"],
        target: Int[Tensor, "n"],
        *,
        graph: bool = False,
        random: torch.Generator | None = None,
    ) -> Explanation:
        """Maps, pictures and logits, from one pass where the explainer's own gives all of them.

        Args:
            model: the classifier, giving logits `(n, classes)`; in eval mode.
            inputs: a batch, images `(n, c, h, w)` or tables `(n, columns)`.
            target: the class to be explained, for each input.
            graph: whether the result carries a graph to the model's parameters, which costs memory and time.
            random: all randomness of an explainer that draws; None is a generator of seed 0, so that the same call gives the same map.

        Raises:
            InputError: the model does not offer what this explainer needs.

        Example:
            >>> from encircle.explain import Grad
            >>> with torch.no_grad():
            ...     model = nn.Linear(3, 2)
            ...     _ = model.weight.copy_(torch.tensor([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]]))
            >>> explanation = Grad(of="logit").explain(model, torch.rand(1, 3), torch.tensor([0]))
            >>> explanation.maps  # of a linear score: the size of each weight
            tensor([[1., 0., 2.]])
        """
        self.check(model)
        generator = random if random is not None else torch.Generator().manual_seed(0)
        with torch.enable_grad():
            attribution = self._attribute(model, inputs, target, graph, generator)
            logits = model(inputs) if attribution.logits is None else attribution.logits
        maps = attribution.maps if attribution.grid is None else pooled(attribution.maps, attribution.grid)
        if graph:
            return Explanation(maps, attribution.maps, logits)
        return Explanation(maps.detach(), attribution.maps.detach(), logits.detach())

    @final
    def attribute(
        self, model: nn.Module, inputs: Float[Tensor, "n *shape"], target: Int[Tensor, "n"]
    ) -> Float[Tensor, "n *map"]:
        """Maps as they are scored, without a graph.

        Args:
            model: as for `explain`.
            inputs: as for `explain`.
            target: as for `explain`.

        Returns:
            `(n, h, w)` for images, `(n, entries)` for tables.

        Example:
            >>> from encircle.explain import Grad
            >>> model = nn.Linear(3, 2)
            >>> Grad().attribute(model, torch.rand(4, 3), torch.tensor([0, 1, 0, 1])).shape
            torch.Size([4, 3])
        """
        return self.explain(model, inputs, target).maps

    def check(self, model: nn.Module) -> None:  # noqa: B027 - most explainers take any model
        """Refuse a model that this explainer cannot explain.

        Args:
            model: the classifier.

        Raises:
            InputError: the model lacks something that this explainer needs.

        Example:
            >>> from encircle.explain import Cam
            >>> Cam().check(nn.Linear(3, 2))
            Traceback (most recent call last):
            encircle.core.InputError: Linear has no CAM head; wrap its parts in WithCamHead(body, head), or use the explainer grad.
        """

    def space(self, shape: tuple[int, ...]) -> Space:
        """What the entries of maps of inputs of this shape are.

        Hidden units of separately initialised models do not correspond, so that their maps cannot be compared.

        Args:
            shape: of one input, without the batch.

        Example:
            >>> from encircle.explain import Cam, Grad
            >>> Grad().space((3, 32, 32)), Grad().space((30,)), Cam().space((30,))
            ('grid', 'columns', 'units')
        """
        return "grid" if len(shape) == 3 else "columns"

    @abstractmethod
    def _attribute(
        self, model: nn.Module, inputs: Tensor, target: Tensor, graph: bool, random: torch.Generator
    ) -> Attribution:
        """Maps, their grid, and the logits if they came along; each row's depend on that row alone."""


def pooled(maps: Float[Tensor, "n h w"], grid: tuple[int, int]) -> Float[Tensor, "n gh gw"]:
    """Average-pooled to a grid ("discretised to be comparable with CAM", footnote 2).

    Args:
        maps: at full resolution.
        grid: rows and columns of the result.

    Raises:
        InputError: the grid is finer than the map.

    Example:
        >>> pooled(torch.arange(16.0).reshape(1, 4, 4), (2, 2))
        tensor([[[ 2.5000,  4.5000],
                 [10.5000, 12.5000]]])
    """
    if grid[0] > maps.shape[1] or grid[1] > maps.shape[2]:
        raise InputError(f"grid {grid} is finer than the map {tuple(maps.shape[1:])}; use a coarser grid.")
    return F.adaptive_avg_pool2d(maps[:, None], grid)[:, 0]
