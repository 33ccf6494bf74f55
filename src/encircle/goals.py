"""Desired maps: what the attacker wants an explanation to look like, resolved once before anything is crafted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from .core import CONFIGURED, InputError, unknown_name
from .seeds import generator

REGIONS: dict[str, tuple[float, float, float, float]] = {
    "mid-left": (0.25, 0.0, 0.75, 0.5),
    "mid-right": (0.25, 0.5, 0.75, 1.0),
    "top-left": (0.0, 0.0, 0.5, 0.5),
    "top-right": (0.0, 0.5, 0.5, 1.0),
    "bottom-left": (0.5, 0.0, 1.0, 0.5),
    "bottom-right": (0.5, 0.5, 1.0, 1.0),
    "top": (0.0, 0.0, 0.5, 1.0),
    "bottom": (0.5, 0.0, 1.0, 1.0),
    "left": (0.0, 0.0, 1.0, 0.5),
    "right": (0.0, 0.5, 1.0, 1.0),
    "center": (0.25, 0.25, 0.75, 0.75),
}
"""Named regions as (top, left, bottom, right) shares of the sides; cells they touch belong to them (rounded outward)."""


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
        speaking: hidden units that speak for the class at the target; None where map entries are not hidden units.
        features: column names of a table, when map entries are columns.
        box: the object's box in the target, where known.
        of_class: draws a training sample `(1, ...)` of a class.
        draw: a number that is different for every target; seeds random goals.
    """

    shape: tuple[int, ...]
    explain: Callable[[Tensor, int], Tensor]
    target: Tensor
    label: int
    speaking: Tensor | None
    features: Sequence[str]
    box: tuple[float, float, float, float] | None
    of_class: Callable[[int], Tensor]
    draw: int


class Goal(ABC):
    """A rule for the desired map of a target."""

    @final
    def resolve(self, context: GoalContext) -> DesiredMap:
        """The desired map for this target.

        Raises:
            InputError: it does not fit the map's shape, is not finite, or is constant over the entries that matter.
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


def _image_shape(goal: str, context: GoalContext) -> tuple[int, int]:
    if len(context.shape) != 2:
        raise InputError(
            f"the goal {goal!r} is for images, but this map has {context.shape[0]} entries; use features or units."
        )
    return context.shape[0], context.shape[1]


def _entries(goal: str, context: GoalContext) -> int:
    if len(context.shape) != 1:
        raise InputError(f"the goal {goal!r} is for tables, but this map is {context.shape}; use region or box.")
    return context.shape[0]


def cells(box: tuple[float, float, float, float], shape: tuple[int, int]) -> Tensor:
    """1 in every grid cell that the box touches, 0 elsewhere."""
    (top, left, bottom, right), (height, width) = box, shape
    values = torch.zeros(shape)
    slack = 1e-6  # 0.1 * 10 is not 1
    rows = slice(math.floor(top * height + slack), math.ceil(bottom * height - slack))
    columns = slice(math.floor(left * width + slack), math.ceil(right * width - slack))
    values[rows, columns] = 1
    return values


@final
@dataclass(frozen=True, config=CONFIGURED)
class Region(Goal):
    """A named region of the image, such as the paper's mid-left (Fig. 4); `REGIONS` defines them all in numbers.

    Args:
        name: one of the named regions.
    """

    name: str = "mid-left"
    kind: Literal["region"] = Field(default="region", kw_only=True)

    def _desired(self, context: GoalContext) -> DesiredMap:
        shape = _image_shape(self.name, context)
        if self.name not in REGIONS:
            raise unknown_name("region", self.name, REGIONS)
        return DesiredMap(cells(REGIONS[self.name], shape), None, f"the {self.name} of the image")


QUARTERS = ("mid-left", "mid-right", "top-left", "top-right", "bottom-left", "bottom-right")
"""Named regions that are a quarter of the image each, so that a score means the same for all of them."""


@final
@dataclass(frozen=True, config=CONFIGURED)
class DrawnRegion(Goal):
    """For each target one of several named regions, drawn by the seeded rule before anything is crafted.

    Args:
        names: of the regions to draw from.
    """

    names: tuple[str, ...] = QUARTERS
    kind: Literal["drawn-region"] = Field(default="drawn-region", kw_only=True)

    def _desired(self, context: GoalContext) -> DesiredMap:
        if not self.names:
            raise InputError("the goal 'drawn-region' has no names to draw from; give at least one.")
        for name in self.names:
            if name not in REGIONS:
                raise unknown_name("region", name, REGIONS)
        place = torch.randint(len(self.names), (1,), generator=generator("goal", "region", context.draw))
        return Region(self.names[int(place)])._desired(context)


@final
@dataclass(frozen=True, config=CONFIGURED)
class Box(Goal):
    """A box, as shares of the image's sides from the top left; grid cells it touches belong to it.

    Args:
        top: its upper edge as a share of the height, from 0 to below 1 and above `bottom`.
        left: its left edge as a share of the width, from 0 to below 1 and left of `right`.
        bottom: its lower edge as a share of the height, at most 1.
        right: its right edge as a share of the width, at most 1.
    """

    top: float = Field(ge=0, lt=1)
    left: float = Field(ge=0, lt=1)
    bottom: float = Field(gt=0, le=1)
    right: float = Field(gt=0, le=1)
    kind: Literal["box"] = Field(default="box", kw_only=True)

    def _desired(self, context: GoalContext) -> DesiredMap:
        if self.top >= self.bottom or self.left >= self.right:
            raise InputError("the goal's box is empty; top must be above bottom and left must be left of right.")
        box = (self.top, self.left, self.bottom, self.right)
        return DesiredMap(cells(box, _image_shape("box", context)), None, f"the box {box} of the image")


_Share = Annotated[float, Field(ge=0, le=1)]


@final
@dataclass(frozen=True, config=CONFIGURED)
class Away(Goal):
    """Everywhere but the object: outside `box`, or outside the object's box where the data set knows it.

    Args:
        box: (top, left, bottom, right) as shares of the image's sides, from 0 to 1; None is the data set's own.
    """

    box: tuple[_Share, _Share, _Share, _Share] | None = None
    kind: Literal["away"] = Field(default="away", kw_only=True)

    def _desired(self, context: GoalContext) -> DesiredMap:
        box = self.box or context.box
        if box is None:
            raise InputError(
                "the goal 'away' needs the object's box and the data set knows none; give box=(top, left, bottom, right)."
            )
        return DesiredMap(1 - cells(box, _image_shape("away", context)), None, "away from the object")


@final
@dataclass(frozen=True, config=CONFIGURED)
class Features(Goal):
    """Columns of a table: those named, or `count` of them drawn for each target by the seeded rule.

    Args:
        names: column names of the table; give these or `count`.
        count: how many columns are drawn, fewer than there are.

    Raises:
        ValueError: neither is given, or both, as pydantic's `ValidationError`.
    """

    names: tuple[str, ...] = ()
    count: int = Field(default=0, ge=0)
    kind: Literal["features"] = Field(default="features", kw_only=True)

    @model_validator(mode="after")
    def _one_choice(self) -> Features:
        if bool(self.names) == bool(self.count):
            raise ValueError("give either names or count")
        return self

    def _desired(self, context: GoalContext) -> DesiredMap:
        entries = _entries("features", context)
        if entries != len(context.features):
            raise InputError(
                "the goal 'features' needs a map over columns; for CAM, whose map is over hidden units, use units."
            )
        for name in self.names:
            if name not in context.features:
                raise unknown_name("feature", name, context.features)
        named = [context.features.index(name) for name in self.names]
        chosen = named or _drawn(torch.arange(entries), self.count, "features", context.draw)
        return DesiredMap(
            _ones_at(chosen, entries), None, "the features " + ", ".join(context.features[i] for i in chosen)
        )


@final
@dataclass(frozen=True, config=CONFIGURED)
class Units(Goal):
    """Hidden units of a table network (CAM): those given, or `count` drawn by the seeded rule.

    Units are drawn among those that speak for the class at the target (a positive entry of the map) on the attacker's own
    models: no small change of the weights revives a dead unit or turns one round, so others could not be reached by anything.

    Args:
        units: numbers of hidden units, from 0; give these or `count`.
        count: how many units are drawn; where fewer speak for the class, all of those are.

    Raises:
        ValueError: neither is given, or both, as pydantic's `ValidationError`.
    """

    units: tuple[int, ...] = ()
    count: int = Field(default=0, ge=0)
    kind: Literal["units"] = Field(default="units", kw_only=True)

    @model_validator(mode="after")
    def _one_choice(self) -> Units:
        if bool(self.units) == bool(self.count):
            raise ValueError("give either units or count")
        return self

    def _desired(self, context: GoalContext) -> DesiredMap:
        entries = _entries("units", context)
        if any(not 0 <= unit < entries for unit in self.units):
            raise InputError(f"the goal names a unit outside 0..{entries - 1}; correct it.")
        pool = torch.arange(entries) if context.speaking is None else context.speaking.nonzero()[:, 0]
        if not self.units and not len(pool):
            raise InputError("the goal 'units' has nothing to draw from: no unit speaks for the class; name some.")
        wanted = self.count if context.speaking is None else min(self.count, len(pool))
        chosen = list(self.units) or _drawn(pool, wanted, "units", context.draw)
        return DesiredMap(_ones_at(chosen, entries), None, "the units " + ", ".join(map(str, chosen)))


def _drawn(pool: Tensor, count: int, kind: str, draw: int) -> list[int]:
    if count > len(pool):
        raise InputError(
            f"the goal {kind!r} has count={count} but there are {len(pool)} to draw from; lower it or name some."
        )
    order = torch.randperm(len(pool), generator=generator("goal", kind, draw))
    return sorted(int(pool[i]) for i in order[:count])


def _ones_at(chosen: Sequence[int], entries: int) -> Tensor:
    values = torch.zeros(entries)
    values[list(chosen)] = 1
    return values


@final
@dataclass(frozen=True, config=CONFIGURED)
class OfClass(Goal):
    """The explanation of a training sample of another class, drawn by the seeded rule, on the attacker's own models.

    Args:
        label: number of that class, from 0.
    """

    label: int = Field(ge=0)
    kind: Literal["of-class"] = Field(default="of-class", kw_only=True)

    def _desired(self, context: GoalContext) -> DesiredMap:
        sample = context.of_class(self.label)
        return DesiredMap(
            context.explain(sample, self.label), None, f"the explanation of a sample of class {self.label}"
        )


@final
@dataclass(frozen=True, config=CONFIGURED)
class Like(Goal):
    """The explanation of another picture (PNG or JPEG of the input's shape, or a `.npy` array), for the target's class.

    Args:
        path: the picture, or the array with values in [0, 1].
    """

    path: Path
    kind: Literal["like"] = Field(default="like", kw_only=True)

    def _desired(self, context: GoalContext) -> DesiredMap:
        sample = torch.from_numpy(_read_array(self.path)).float()
        shape = context.target.shape[1:]
        if sample.dim() == len(shape) - 1:
            sample = sample[None].expand(*shape[:1], *sample.shape)
        if sample.shape != shape:
            raise InputError(
                f"{self.path} is {tuple(sample.shape)} but inputs are {tuple(shape)}; give a sample of that shape."
            )
        if not bool(((sample >= 0) & (sample <= 1)).all()):
            raise InputError(f"{self.path} holds values outside of [0, 1]; scale them as inputs are.")
        return DesiredMap(context.explain(sample[None], context.label), None, f"the explanation of {self.path.name}")


@final
@dataclass(frozen=True, config=CONFIGURED)
class FromFile(Goal):
    """A desired map from a `.npy` array of the map's shape or a grey PNG.

    Args:
        path: the map, in any unit: neither the default distance nor a score depends on its scale and offset.
        mask: a file of the same shape, non-zero where the map matters; None is everywhere.
    """

    path: Path
    mask: Path | None = None
    kind: Literal["from-file"] = Field(default="from-file", kw_only=True)

    def _desired(self, context: GoalContext) -> DesiredMap:
        values = torch.from_numpy(_read_array(self.path)).float()
        mask = None if self.mask is None else _read_mask(self.mask)
        if mask is not None and mask.shape != values.shape:
            raise InputError(
                f"{self.mask} is {tuple(mask.shape)} but {self.path} is {tuple(values.shape)}; give them one shape."
            )
        return DesiredMap(values, mask, f"the map in {self.path.name}")


def _read_mask(path: Path) -> Tensor:
    values = torch.from_numpy(_read_array(path))
    if bool(values.isnan().any()):
        raise InputError(f"the mask {path} holds NaN; write 0 where the map does not matter and 1 where it does.")
    return values != 0


def _read_array(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A file's numbers: an array as it is, a picture in [0, 1] as `(3, h, w)`, or `(h, w)` where it is grey in whatever mode."""
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
