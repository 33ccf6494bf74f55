"""Pictures in files: decoded when they are needed, and kept only within a bound."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..core import InputError
from .base import Samples

CACHE_BYTES = 256 << 20
"""Decoded pictures are kept, 8 bits a channel, until they fill so many bytes; all others are decoded again each time."""

LARGEST = 100_000_000
"""Pixels above which a file is refused before anything is decoded."""

_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 274, 258, 262, 339
"""Numbers of TIFF's tags, which EXIF shares."""

_UNSIGNED = 1

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by EXIF's number for its orientation."""

Square = tuple[float, float, float, float]


@final
class PictureFiles(Samples):
    """Colour pictures in files, cut to their central square and resized: `(3, side, side)` in [0, 1], in steps of 1/255.

    Nothing is decoded before it is asked for. What was decoded is kept while there is room: epochs visit every picture equally often, so
    keeping the first ones saves as much work as any other choice.

    Grey of 16 bits is scaled to 8, what is transparent shows white, and pictures are turned upright as their EXIF says. Of several frames the
    first counts. Pictures whose numbers state no range from black to white, such as floats, are refused.

    Args:
        paths: one file a sample; JPEG, PNG or whatever Pillow reads.
        labels: `(n,)`.
        side: pixels of the resized square.
        cache_bytes: how much of the decoded pictures is kept in memory.

    Raises:
        InputError: there is not one label a file.
    """

    waits = True

    def __init__(
        self, paths: Sequence[Path], labels: Int[Tensor, "n"], side: int, *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        if len(paths) != len(labels):
            raise InputError(f"{len(paths)} picture files but {len(labels)} labels; give one label a file.")
        self.paths = paths
        self.labels = labels.long()
        self.side = side
        self._room = cache_bytes // (3 * side * side)
        self._cache: dict[int, NDArray[np.uint8]] = {}

    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b 3 side side"]:
        """The pictures of these rows.

        Raises:
            InputError: a file is missing, damaged or too large, or states no range; it names the file.
        """
        wanted = [int(row) for row in rows]
        missing = sorted({row for row in wanted if row not in self._cache})
        fresh: dict[int, NDArray[np.uint8]] = {}
        if missing:  # Pillow decodes outside of Python's lock
            with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1)) as pool:
                pictures = pool.map(lambda row: decoded(self.paths[row], self.side), missing)
                fresh = dict(zip(missing, pictures, strict=True))
            for row in missing[: max(self._room - len(self._cache), 0)]:
                self._cache[row] = fresh[row]
        out = np.empty((len(wanted), self.side, self.side, 3), np.uint8)
        for index, row in enumerate(wanted):
            out[index] = fresh[row] if row in fresh else self._cache[row]
        return torch.from_numpy(out).permute(0, 3, 1, 2).float().div_(255).contiguous()


def decoded(path: Path, side: int) -> NDArray[np.uint8]:
    """The central square of a picture, resized (bicubic, antialiased): `(side, side, 3)`.

    Args:
        path: the file.
        side: pixels of the result.

    Raises:
        InputError: the file is missing, damaged, too large or no picture, or its numbers state no range.
    """
    try:
        with Image.open(path) as picture:
            _check_size(picture, path)
            width, height = picture.size
            # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size at once; never below twice the side, so that resizing still smooths.
            scale = 2 * side / min(width, height)
            picture.draft("RGB", (int(width * scale), int(height * scale)))
            colour = _upright_colour(picture, path)
        edge = min(colour.size)
        x, y = (colour.width - edge) // 2, (colour.height - edge) // 2
        square = (x, y, x + edge, y + edge)
        return np.asarray(colour.resize((side, side), Image.Resampling.BICUBIC, box=square))
    except FileNotFoundError:
        raise InputError(f"the picture {path} does not exist; put it there, or leave it out of the lists.") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file leads Pillow into errors of every kind
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"the picture {path} cannot be decoded ({reason}); replace or drop it.") from None


def orientation(picture: Image.Image) -> int:
    """How a picture is to be turned, as EXIF numbers it: 1 is upright. What its EXIF cannot say is upright, too."""
    try:
        number = picture.getexif().get(_ORIENTATION)
        return int(number) if number in _TURNS else 1
    except Exception:  # damaged metadata, which every viewer passes over
        return 1


def file_orientation(path: Path) -> int:
    """The `orientation` of a picture in a file; 1 where the file cannot be read, which decoding it will say."""
    try:
        with Image.open(path) as picture:
            return orientation(picture)
    except Exception:
        return 1


def _check_size(picture: Image.Image, path: Path) -> None:
    width, height = picture.size
    if width * height > LARGEST:
        raise InputError(f"{path} has {width}x{height} pixels, more than any photograph; replace it.")


def _upright_colour(picture: Image.Image, path: Path) -> Image.Image:
    """The first frame as RGB of 8 bits, turned upright, on white where it is transparent."""
    stored = [str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in getattr(picture, "tile", [])]
    _check_range(picture, path)
    picture.load()  # TIFF turns itself here, and takes the orientation off
    if picture.mode[0] == "I":
        image = _from_sixteen_bits(picture)
    elif picture.has_transparency_data:
        _scale_transparent_colour(picture, stored)
        layer = picture.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    else:
        image = picture.convert("RGB")
    turn = _TURNS.get(orientation(picture))
    return image if turn is None else image.transpose(turn)


def _check_range(picture: Image.Image, path: Path) -> None:
    """Refuse numbers of which nobody says which is white: floats, 32 bits, and signed ones, which only TIFF has with 8 bits."""
    # Pillow opens 16 bits as mode I in PPM, scaled to the full range, and once did so in PNG; elsewhere I is 32 bits, or signed.
    sixteen_bit = ("PNG", "PPM") if picture.mode == "I" else ("PNG", "PPM", "TIFF", "JPEG2000")
    known = picture.mode[0] not in "IF" or (picture.mode != "F" and picture.format in sixteen_bit)
    if not known or np.any(np.ravel(_tags(picture).get(_SAMPLE_FORMAT, _UNSIGNED)) != _UNSIGNED):
        kind = "floating-point numbers" if picture.mode == "F" else "integers"
        raise InputError(
            f"the picture {path} holds {kind} that state no range from black to white; save it with 8 or 16 bits a channel."
        )


def _tags(picture: Image.Image) -> Mapping[int, Any]:
    """What a TIFF says of itself, by tag; other formats say nothing here."""
    return getattr(picture, "tag_v2", {})


def _from_sixteen_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits as RGB of 8."""
    tags = _tags(picture)
    highest = 2 ** min(int(np.ravel(tags.get(_BITS_PER_SAMPLE, 16))[0]), 16) - 1
    levels = np.asarray(picture).astype(np.float64)
    transparent = levels == picture.info.get("transparency", -1)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow turns round for 8 bits only
        levels = highest - levels
    levels[transparent] = highest
    return Image.fromarray(np.rint(levels * (255 / highest)).clip(0, 255).astype(np.uint8)).convert("RGB")


def _scale_transparent_colour(picture: Image.Image, stored: Sequence[str]) -> None:
    """PNG states its transparent colour in the file's own bits, which Pillow keeps while it turns pixels of 2, 4 and 16 bits into 8."""
    colour = picture.info.get("transparency")
    if isinstance(colour, int) and picture.mode == "L":
        picture.info["transparency"] = colour * {"L;2": 85, "L;4": 17}.get(stored[0] if stored else "", 1)
    elif isinstance(colour, tuple) and "RGB;16B" in stored:
        picture.info["transparency"] = tuple(level >> 8 for level in colour)


def in_central_square(box: Square, size: tuple[int, int]) -> Square | None:
    """A box of pixels in a picture, as shares of the central square's side; None where it lies outside.

    Args:
        box: (top, left, bottom, right) in pixels.
        size: (width, height) of the whole picture.
    """
    width, height = size
    edge = min(width, height)
    y, x = (height - edge) / 2, (width - edge) / 2
    top, x_start, bottom, x_end = (
        min(max((pixel - offset) / edge, 0.0), 1.0) for pixel, offset in zip(box, (y, x, y, x), strict=True)
    )
    return (top, x_start, bottom, x_end) if top < bottom and x_start < x_end else None
