"""Random flips and shifts of images, from which victims learn more and which poison must survive."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SHIFT = 8
"""An image is shifted by at most this fraction, one eighth, of its side in each direction."""


def flipped_and_shifted(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each image mirrored left to right or not, and shifted by whole pixels.

    Edge pixels are repeated. Random numbers are torch's global generator's. Every pixel is a copy of a pixel, so that gradients return to their pixels.
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
    image = torch.arange(count, device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)
