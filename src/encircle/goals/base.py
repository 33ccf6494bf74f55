"""What a goal is: a rule for the desired map of a target, resolved once before anything is crafted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass as plain_dataclass
from typing import ClassVar, final

from jaxtyping import Bool, Float
from torch import Tensor

from ..core import InputError


@final
@plain_dataclass(frozen=True)
class DesiredMap:
    """The desired map `values` (the shape of a scored map, finite, not constant where it matters) and where that is.

    Attributes:
        values: `(h, w)` or `(entries,)`.
        mask: same shape, True where the map matters (footnote 1 of the paper); None for everywhere.
        label: what it is, in words.
    """

    values: Float[Tensor, "*shape"]
    mask: Bool[Tensor, "*shape"] | None
    label: str


@final
@plain_dataclass(frozen=True)
class GoalContext:
    """What a goal may look at.

    Attributes:
        shape: shape of a scored map.
        explain: the mean map over the attacker's own models of an input `(1, ...)` for a class: no victim is consulted.
        target: the target input `(1, ...)`.
        label: its class.
        positive_units: hidden units that speak for the class at the target; None where map entries are not hidden units.
        features: column names of a table, when map entries are columns.
        box: the object's box in the target, where known.
        of_class: draws a training sample `(1, ...)` of a class.
        draw: a number that is different for every target; seeds random goals.
    """

    shape: tuple[int, ...]
    explain: Callable[[Tensor, int], Tensor]
    target: Tensor
    label: int
    positive_units: Tensor | None
    features: Sequence[str]
    box: tuple[float, float, float, float] | None
    of_class: Callable[[int], Tensor]
    draw: int


class Goal(ABC):
    """A rule for the desired map of a target.

    Attributes:
        kind: its name in cases.
        about: what it is, in a sentence or two for a report's glossary; empty is not shown.
    """

    kind: str
    about: ClassVar[str] = ""

    @final
    def resolve(self, context: GoalContext) -> DesiredMap:
        """The desired map for this target.

        Args:
            context: what the goal may look at.

        Raises:
            InputError: it does not fit the map's shape, is not finite, or is constant over the entries that matter.

        Example:
            >>> import torch
            >>> from encircle.goals import Region
            >>> context = GoalContext(
            ...     shape=(2, 4),  # of a scored map, here a grid of two rows
            ...     explain=lambda inputs, label: torch.zeros(2, 4),
            ...     target=torch.zeros(1, 3, 16, 32),
            ...     label=0,
            ...     positive_units=None,
            ...     features=(),
            ...     box=None,
            ...     of_class=lambda label: torch.zeros(1, 3, 16, 32),
            ...     draw=0,
            ... )
            >>> Region("top-left").resolve(context).values
            tensor([[1., 1., 0., 0.],
                    [0., 0., 0., 0.]])
        """
        desired = self._desired(context)
        values = desired.values.float()
        if tuple(values.shape) != context.shape:
            raise InputError(
                f"the goal's shape is {tuple(values.shape)} but the explainer's map is {context.shape}; give a goal of that shape."
            )
        if not bool(values.isfinite().all()):
            raise InputError("the goal holds NaN or infinity; give a finite map.")
        if not bool((values != 0).any()):
            raise InputError("the goal is zero everywhere, so nothing is asked for; highlight at least one entry.")
        if desired.mask is not None and not bool(desired.mask.any()):
            raise InputError("the goal's mask leaves no entry to compare; include at least one.")
        low, high = (values if desired.mask is None else values[desired.mask]).aminmax()
        if bool(low == high):
            raise InputError(
                "the goal is the same at every entry that matters, so nothing is asked for; highlight some and not others."
            )
        return DesiredMap(values, desired.mask, desired.label)

    @abstractmethod
    def _desired(self, context: GoalContext) -> DesiredMap:
        """The desired map, unchecked."""


def image_shape(goal: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """The grid of a map of an image.

    Args:
        goal: what asks, for the error.
        shape: of a scored map.

    Returns:
        Its rows and columns.

    Raises:
        InputError: the map is one of a table.

    Example:
        >>> image_shape("region", (8, 8))
        (8, 8)
    """
    if len(shape) != 2:
        raise InputError(
            f"the goal {goal!r} is for images, but this map has {shape[0]} entries; use features or units."
        )
    return shape[0], shape[1]


def entries_of(goal: str, shape: tuple[int, ...]) -> int:
    """How many entries a map of a table has.

    Args:
        goal: what asks, for the error.
        shape: of a scored map.

    Raises:
        InputError: the map is one of an image.

    Example:
        >>> entries_of("features", (30,))
        30
    """
    if len(shape) != 1:
        raise InputError(f"the goal {goal!r} is for tables, but this map is {shape}; use region or box.")
    return shape[0]
