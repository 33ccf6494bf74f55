"""Pictures in files: decoded when they are needed, and kept only within a bound."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..core import InputError
from .base import Samples

KEPT_BYTES = 256 << 20
"""Decoded pictures are kept, 8 bits a channel, until they fill so many bytes; all others are decoded again each time."""

LARGEST = 100_000_000
"""Pixels above which a file is refused before anything is decoded."""

Square = tuple[float, float, float, float]


@final
class PictureFiles(Samples):
    """Colour pictures in files, cut to their central square and resized: `(3, side, side)` in [0, 1], in steps of 1/255.

    Nothing is decoded before it is asked for. What was decoded is kept while there is room: epochs visit every picture equally often, so
    keeping the first ones saves as much work as any other choice.

    Args:
        paths: one file a sample; JPEG, PNG or whatever Pillow reads, of any colour mode.
        labels: `(n,)`.
        side: pixels of the resized square.
        kept: bytes of decoded pictures to keep.

    Raises:
        InputError: there is not one label a file.
    """

    waits = True

    def __init__(self, paths: Sequence[Path], labels: Int[Tensor, "n"], side: int, *, kept: int = KEPT_BYTES) -> None:
        if len(paths) != len(labels):
            raise InputError(f"{len(paths)} picture files but {len(labels)} labels; give one label a file.")
        self.paths = paths
        self.labels = labels.long()
        self.side = side
        self._room = kept // (3 * side * side)
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b 3 side side"]:
        """The pictures of these rows.

        Raises:
            InputError: a file is missing, damaged or too large; it names the file.
        """
        wanted = [int(row) for row in rows]
        missing = sorted({row for row in wanted if row not in self._kept})
        fresh: dict[int, NDArray[np.uint8]] = {}
        if missing:  # Pillow decodes outside of Python's lock
            with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1)) as pool:
                found = pool.map(lambda row: decoded(self.paths[row], self.side), missing)
                fresh = dict(zip(missing, found, strict=True))
            for row in missing[: max(self._room - len(self._kept), 0)]:
                self._kept[row] = fresh[row]
        out = np.empty((len(wanted), self.side, self.side, 3), np.uint8)
        for place, row in enumerate(wanted):
            out[place] = fresh[row] if row in fresh else self._kept[row]
        return torch.from_numpy(out).permute(0, 3, 1, 2).float().div_(255).contiguous()


def decoded(path: Path, side: int) -> NDArray[np.uint8]:
    """The central square of a picture, resized (bicubic, antialiased): `(side, side, 3)`.

    Args:
        path: the file.
        side: pixels of the result.

    Raises:
        InputError: the file is missing, damaged, too large or no picture.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if width * height > LARGEST:
                raise InputError(f"{path} has {width}x{height} pixels, more than any photograph; replace it.")
            # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size at once; never below twice the side, so that resizing still smooths.
            scale = 2 * side / min(width, height)
            picture.draft("RGB", (int(width * scale), int(height * scale)))
            colour = picture.convert("RGB")
        edge = min(colour.size)
        left, top = (colour.width - edge) // 2, (colour.height - edge) // 2
        square = (left, top, left + edge, top + edge)
        return np.asarray(colour.resize((side, side), Image.Resampling.BICUBIC, box=square))
    except FileNotFoundError:
        raise InputError(f"the picture {path} does not exist; put it there, or leave it out of the lists.") from None
    except (OSError, SyntaxError, ValueError, EOFError, Warning, Image.DecompressionBombError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"the picture {path} cannot be decoded ({reason}); replace or drop it.") from None


def in_central_square(box: Square, size: tuple[int, int]) -> Square | None:
    """A box of pixels in a picture, as shares of the central square's side; None where it lies outside.

    Args:
        box: (top, left, bottom, right) in pixels.
        size: (width, height) of the whole picture.
    """
    width, height = size
    edge = min(width, height)
    across, down = (width - edge) / 2, (height - edge) / 2
    top, bottom = ((each - down) / edge for each in (box[0], box[2]))
    left, right = ((each - across) / edge for each in (box[1], box[3]))
    top, left, bottom, right = (min(max(each, 0.0), 1.0) for each in (top, left, bottom, right))
    return (top, left, bottom, right) if top < bottom and left < right else None
