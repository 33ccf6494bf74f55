"""Grid cells that a box touches."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cells(box: tuple[float, float, float, float], shape: tuple[int, int]) -> Tensor:
    """1 in every grid cell that the box touches, 0 elsewhere."""
    (top, left, bottom, right), (height, width) = box, shape
    values = torch.zeros(shape)
    slack = 1e-6  # 0.1 * 10 is not 1
    rows = slice(math.floor(top * height + slack), math.ceil(bottom * height - slack))
    columns = slice(math.floor(left * width + slack), math.ceil(right * width - slack))
    values[rows, columns] = 1
    return values
