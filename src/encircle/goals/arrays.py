"""Maps and pictures in files, as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps

from ..core import InputError


def read_array(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A file's numbers: an array as it is, a picture in [0, 1] as `(3, h, w)`, or `(h, w)` where it is grey in whatever mode.

    Args:
        path: `.npy`, or an image that Pillow reads.

    Raises:
        InputError: the file is missing or damaged, or its numbers state no range.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/map.npy", np.eye(2))
        ...     read_array(Path(folder, "map.npy"))
        array([[1., 0.],
               [0., 1.]])
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)  # a pickle could run code
            if array.dtype.kind not in "biuf":
                _refuse(path, f"cannot be read as numbers, as it holds {array.dtype}")
            return np.asarray(array, dtype=np.float64)
        with Image.open(path) as image:
            return _pixels(image, path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give an existing .npy or image file.") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file leads numpy and Pillow into errors of every kind
        raise InputError(f"{path} cannot be read as an array or image; {_READABLE}.") from error


_READABLE = "give a .npy of numbers, a PNG of 8 or 16 bits, or a JPEG"


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InputError(f"{path} {reason}; {_READABLE}.")


def _pixels(image: Image.Image, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    # Only in PNG do all numbers of more than 8 bits have 16, and black at 0.
    deep = image.mode[0] in "IF"
    if deep and (image.mode == "F" or image.format != "PNG"):
        _refuse(path, "holds numbers that state no range from black to white")
    if image.mode != "P" and "transparency" in image.info:
        _refuse(path, "has a transparent colour, which states no value")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            _refuse(path, "is transparent somewhere, which states no value")
    image = ImageOps.exif_transpose(image)
    if deep:
        return np.asarray(image, dtype=np.float64) / 65535
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    grey = bool((pixels == pixels[:, :, :1]).all())
    return pixels[:, :, 0] if grey else pixels.transpose(2, 0, 1)
