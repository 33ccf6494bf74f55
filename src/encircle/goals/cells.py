"""Grid cells that a box touches."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cells(box: tuple[float, float, float, float], shape: tuple[int, int]) -> Tensor:
    """1 in every grid cell that the box touches, 0 elsewhere.

    Args:
        box: (top, left, bottom, right) as shares of the sides, in [0, 1].
        shape: rows and columns of the grid.

    Returns:
        `(rows, columns)` float32.

    Example:
        >>> cells((0.0, 0.5, 0.5, 1.0), (2, 4))  # the upper right quarter
        tensor([[0., 0., 1., 1.],
                [0., 0., 0., 0.]])
    """
    values = torch.zeros(shape)
    rows, columns = (_touched(box[axis], box[axis + 2], shape[axis]) for axis in (0, 1))
    values[rows, columns] = 1
    return values


def _touched(start: float, end: float, cells_along: int) -> slice:
    """The cells of an axis that a span of it touches."""
    slack = 1e-6  # 0.1 * 10 is not 1
    return slice(math.floor(start * cells_along + slack), math.ceil(end * cells_along - slack))
