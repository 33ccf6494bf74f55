"""Samples and maps as small PNG pictures at their own resolution; the page enlarges them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOURS = "inferno"
"""Perceptually even, readable for the colour-blind and in grey; dark is least relevant."""


def _colours(values: NDArray[Any]) -> NDArray[np.uint8]:
    """RGBA of values in [0, 1]."""
    from matplotlib import colormaps  # noqa: PLC0415 - slow to load, and most commands draw nothing

    return np.asarray(colormaps[_COLOURS](values, bytes=True))


_HIGHLIGHTED = 0.5
"""`scoring.thresholds.HIGHLIGHTED`, to which a test holds it: a report is drawn without loading the scores' libraries."""

_COARSE = 64
"""Pictures with fewer pixels a side are enlarged as blocks, so that no detail is invented."""

_THIRDS = ("top", "middle", "bottom"), ("left", "centre", "right")


@final
@dataclass(frozen=True)
class Picture:
    """A PNG as a data address, its size in pixels, and whether it is shown as blocks."""

    uri: str
    width: int
    height: int
    coarse: bool


def scaled(values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The map min-max scaled to [0, 1], as for the L1 score; None if it is constant or not finite."""
    if not np.isfinite(values).all():
        return None
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return None
    return cast(NDArray[np.float32], ((values.astype(np.float64) - low) / (high - low)).astype(np.float32))


def wanted(goal: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The entries that the desired map marks: scored ones in its upper half. A constant goal marks all or nothing."""
    unit = scaled(goal)
    marked = goal > 0 if unit is None else unit >= _HIGHLIGHTED
    return marked & (mask > 0.5)


def photograph(sample: NDArray[np.float32]) -> Picture:
    """A `(C, H, W)` sample in [0, 1] in its own colours (one channel: grey; two: their mean; more: the first three)."""
    channels = sample.shape[0]
    shown = sample[:3] if channels >= 3 else sample.mean(axis=0, keepdims=True)
    levels = np.rint(np.clip(np.nan_to_num(shown), 0, 1) * 255).astype(np.uint8)
    return _encoded(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1))


def difference(poison: NDArray[np.float32], base: NDArray[np.float32]) -> tuple[Picture, int]:
    """Poison minus base around mid-grey, amplified by the returned whole factor so that the largest change shows."""
    change = np.nan_to_num(poison - base)
    largest = float(np.abs(change).max())
    factor = max(1, int(0.5 / largest + 0.01)) if largest > 0 else 1  # 0.01 against float32's 0.02 being a little more
    return photograph(cast(NDArray[np.float32], 0.5 + factor * change)), factor


def heat(values: NDArray[np.float32], mask: NDArray[np.float32]) -> Picture:
    """An `(h, w)` map in colours, scaled to its own range; entries outside the mask are left transparent."""
    unit = scaled(values)
    colours = _colours(np.zeros_like(values) if unit is None else unit)
    if mask.shape == values.shape:
        colours[..., 3] = np.where(mask > 0.5, 255, 0)
    return _encoded(colours)


def scale() -> Picture:
    """The colours from least to most relevant, as a strip."""
    return _encoded(_colours(np.linspace(0, 1, 128)[None].repeat(2, axis=0))[..., :3])


def outline(marked: NDArray[np.bool_]) -> str:
    """The border of the marked cells as an SVG path, in cells."""
    padded = np.pad(marked, 1)
    across = [f"M{x} {y}h1" for y, x in zip(*np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1]), strict=True)]
    down = [f"M{x} {y}v1" for y, x in zip(*np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1]), strict=True)]
    return "".join(across + down)


def strongest_at(values: NDArray[np.float32]) -> str:
    """The strongest position of an `(h, w)` map in words, for screen readers: 'top left', 'middle centre'."""
    row, column = np.unravel_index(int(np.argmax(np.nan_to_num(values, nan=-np.inf))), values.shape)
    rows, columns = _THIRDS
    return f"{rows[int(3 * row / values.shape[0])]} {columns[int(3 * column / values.shape[1])]}"


def _encoded(levels: NDArray[np.uint8]) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(buffer, format="PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    height, width = levels.shape[:2]
    return Picture(uri, width, height, coarse=min(width, height) < _COARSE)
