"""What scores and distances share: the undefined one, and arrays that must be of one shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import InputError

Array = NDArray[np.float64]

UNDEFINED = float("nan")
"""The value of a score that means nothing."""


def check_shapes(name: str, array: NDArray[Any], other_name: str, other: NDArray[Any]) -> None:
    """Refuse two arrays of different shapes.

    Args:
        name: of the first, for the error.
        array: the first.
        other_name: of the second.
        other: the second.

    Raises:
        InputError: they differ.

    Example:
        >>> check_shapes("map", np.zeros((2, 2)), "goal", np.zeros(4))
        Traceback (most recent call last):
        encircle.core.InputError: the map has shape (2, 2) but the goal has shape (4,); bring both to one shape.
    """
    if array.shape != other.shape:
        raise InputError(
            f"the {name} has shape {array.shape} but the {other_name} has shape {other.shape}; bring both to one shape."
        )
