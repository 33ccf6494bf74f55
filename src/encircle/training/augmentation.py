"""Random changes of images that leave what they show: how victims learn more from few of them, and what poison has to survive."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SHIFT = 8
"""An image is shifted by at most one such part of its side, in each direction."""


def flipped_and_shifted(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each image mirrored left to right or not, and shifted by whole pixels, its edge pixels repeated where it was; by torch's global generator.

    What a pixel becomes is a copy of some pixel, so that gradients come back to where they belong.
    """
    count, _, height, width = images.shape
    device = images.device
    flips = torch.rand(count, 1, device=device) < 0.5
    down, right = (
        torch.randint(-(side // SHIFT), side // SHIFT + 1, (count, 1), device=device) for side in (height, width)
    )
    rows = (torch.arange(height, device=device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + right).clamp(0, width - 1)
    columns = torch.where(flips, width - 1 - columns, columns)
    each = torch.arange(count, device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)
