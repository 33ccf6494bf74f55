"""Samples that can be read in batches, and data sets split into parts."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, cast, final

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from ..core import EncircleError, InputError
from ..seeds import generator
from ..threat import Column
from .class_names import as_integer, class_names, column_names, plain_scalar

Kind = Literal["image", "table"]

_COMPARED = 16
"""About so many items are asked whether they agree with the labels that a data set states."""

_READ_AGAIN = 32
"""So many rows are read twice to see whether they stay the same: half of them mirrored at random do so once in 2^32."""


class Samples(Dataset[tuple[Tensor, int]], ABC):
    """An ordinary map-style `Dataset` whose items can also be fetched as a batch, so that sets need not fit in memory.

    Attributes:
        labels: `(N,)` int64.
        waits: whether a batch must be read from somewhere first, so that it pays to fetch it ahead of time.
    """

    labels: Int[Tensor, "n"]
    waits: bool = False

    @abstractmethod
    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b *shape"]:
        """The inputs of these rows, in this order."""

    @final
    def __len__(self) -> int:
        return len(self.labels)

    @final
    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.batch(torch.tensor([row]))[0], int(self.labels[row])

    @final
    def chunks(self, size: int = 256) -> Iterator[Float[Tensor, "b *shape"]]:
        """All inputs in order, `size` at a time."""
        for rows in torch.arange(len(self)).split(size):
            yield self.batch(rows)

    @final
    def subset(self, rows: Int[Tensor, "b"]) -> Samples:
        """These rows as samples of their own; nothing is copied."""
        return _Subset(self, rows)

    @final
    def with_poison(
        self, inputs: Float[Tensor, "p *shape"], labels: Int[Tensor, "p"], overwritten: Int[Tensor, "p"]
    ) -> PoisonedSamples:
        """This set with poison in it.

        Args:
            inputs: `(p, *shape)`.
            labels: `(p,)`.
            overwritten: `(p,)`, the row that each poison sample replaces, or -1 to add it at the end.
        """
        return PoisonedSamples(self, inputs, labels, overwritten)


@final
class TensorSamples(Samples):
    """Samples held in memory.

    Raises:
        InputError: there is not one label an input.
    """

    def __init__(self, inputs: Float[Tensor, "n *shape"], labels: Int[Tensor, "m"]) -> None:
        if len(inputs) != len(labels):
            raise InputError(f"{len(inputs)} inputs but {len(labels)} labels; give one label an input.")
        self.inputs = inputs
        self.labels = labels.long()

    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b *shape"]:
        """The inputs of these rows."""
        return self.inputs[rows]


@final
class DatasetSamples(Samples):
    """Your own map-style `Dataset` of `(input, label)` pairs; inputs are read when needed and never kept.

    Labels are read once, from `dataset.targets` where there is such an attribute that a few items agree with, and from the items otherwise.

    Attributes:
        classes: the data set's own class names, if it has well-formed `classes` or `class_to_idx` as torchvision's have; else None.

    Args:
        dataset: the pairs; float32 inputs of one shape, and labels that are whole numbers, also as arrays of one number.
        name: what errors call it.

    Raises:
        InputError: it is empty, is not map-style, or an item or label cannot be read.
    """

    waits = True

    def __init__(self, dataset: Dataset[Any] | Sequence[Any], *, name: str = "your data set") -> None:
        self.dataset = dataset
        self.name = name
        self._shape: torch.Size | None = None
        count = _count(dataset, name)
        labels = _stated_labels(dataset, count)
        # A `target_transform` changes the items and not the attribute.
        compared = range(0, count, max(count // _COMPARED, 1))
        if labels is None or any(labels[row] != self._label(row) for row in compared):
            labels = [self._label(row) for row in range(count)]
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.classes = _own_classes(dataset)

    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b *shape"]:
        """The inputs of these rows.

        Raises:
            InputError: an item cannot be read, such as an image that does not decode, is not float32, or its shape differs.
        """
        return torch.stack([self._input(int(row)) for row in rows]) if len(rows) else self._input(0)[None][:0]

    def _item(self, row: int) -> tuple[Any, Any]:
        try:
            item = self.dataset[row]
        except (EncircleError, MemoryError):
            raise
        except Exception as error:  # whatever the data set's own code raises
            raise InputError(
                f"item {row} of {self.name} cannot be read ({_reason(error)}); mend or drop it."
            ) from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            kind = f"{type(item).__name__} of {len(item)}" if isinstance(item, tuple | list) else type(item).__name__
            raise InputError(f"item {row} of {self.name} is a {kind}; items must be pairs (input, label).")
        return item[0], item[1]

    def _label(self, row: int) -> int:
        label = self._item(row)[1]
        try:
            return _class_number(label)
        except ValueError as error:
            raise InputError(
                f"the label of item {row} of {self.name} is {error}, not a whole number; number the classes from 0."
            ) from None

    def _input(self, row: int) -> Tensor:
        content = _float32(f"item {row} of {self.name}", self._item(row)[0])
        self._shape = self._shape or content.shape
        if content.shape != self._shape:
            raise InputError(
                f"item {row} of {self.name} is {tuple(content.shape)}, others are {tuple(self._shape)}; crop or resize them alike."
            )
        return content


def _count(dataset: object, name: str) -> int:
    """How many items there are."""
    remedy = "give a map-style one, with __len__ and __getitem__; list(dataset) makes one where it fits in memory"
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__") or isinstance(dataset, str | bytes):
        raise InputError(f"{name} is a {type(dataset).__name__}, which has no items by number; {remedy}.")
    try:
        count = len(cast(Sized, dataset))
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(f"{name} has no length ({_reason(error)}); {remedy}.") from error
    if count == 0:
        raise InputError(f"{name} is empty; give it at least one sample.")
    return count


def _stated_labels(dataset: object, count: int) -> list[int] | None:
    """The labels that a data set states in `targets`, or None if it states none that can be labels."""
    try:
        targets = dataset.targets  # type: ignore[attr-defined]
        if len(targets) != count:
            return None
        return [_class_number(label) for label in targets]
    except MemoryError:
        raise
    except Exception:  # a property may raise anything; the items have labels too
        return None


def _class_number(label: object) -> int:
    """A label as a number of a class; arrays of one number count as that number.

    Raises:
        ValueError: it is something else; the text says what.
    """
    if isinstance(label, Tensor | np.ndarray):
        size = math.prod(label.shape)
        if size != 1:
            raise ValueError(f"an array of {size} numbers (of a one-hot vector, give its argmax)")
        label = plain_scalar(label.reshape(()))
    number = as_integer(label)
    if number is None or not -(2**63) <= number < 2**63:
        simple = label is None or isinstance(label, str | int | float | np.generic)
        raise ValueError(repr(label) if simple else f"a {type(label).__name__}")
    return number


def _own_classes(dataset: object) -> tuple[str, ...] | None:
    """A data set's own class names, also of one that a `Subset` is of."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if getattr(dataset, "target_transform", None) is not None:
        return None  # which gives the labels another meaning
    for attribute in ("classes", "class_to_idx"):
        with suppress(Exception):  # a property may raise anything, and what it gives need not be names
            return class_names(getattr(dataset, attribute))
    return None


def _float32(item: str, content: object) -> Tensor:
    """An input as a float32 tensor. Other types are refused: only their owner knows the scale."""
    if isinstance(content, Image.Image):
        raise InputError(
            f"{item} is a picture of Pillow ({content.mode}); convert it to a float32 tensor (c, h, w) in [0, 1]."
        )
    try:
        values = content if isinstance(content, Tensor | np.ndarray) else torch.as_tensor(content)
        kind = str(values.dtype).removeprefix("torch.")
        if kind == "float32":
            if isinstance(values, np.ndarray):
                values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
            return values.detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{item} is a {type(content).__name__}, not numbers; convert it to a float32 tensor in [0, 1]."
        ) from None
    scale = "divide it by 255 as float32" if kind == "uint8" else "convert it to float32"
    raise InputError(f"{item} is {kind} and must be float32 in [0, 1]; {scale}.")


def _reason(error: Exception) -> str:
    """What an exception says, in one line; its type too, as the text of a KeyError is only the key."""
    text = str(error).partition("\n")[0]
    if isinstance(error, OSError) and text:
        return text  # of image readers: a sentence
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@final
class _Subset(Samples):
    def __init__(self, samples: Samples, rows: Int[Tensor, "b"]) -> None:
        self.samples = samples
        self.rows = rows
        self.waits = samples.waits
        self.labels = samples.labels[rows]

    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b *shape"]:
        return self.samples.batch(self.rows[rows])


@final
class PoisonedSamples(Samples):
    """A clean set with poison in it; see `Samples.with_poison`.

    Args:
        clean: the clean set.
        inputs: `(p, *shape)`.
        labels: `(p,)`.
        overwritten: `(p,)`, the row that each poison sample replaces, or -1 where it is added at the end.

    Attributes:
        source: `(N,)`, the poison sample that each row holds, -1 for rows of the clean set.
    """

    def __init__(self, clean: Samples, inputs: Tensor, labels: Tensor, overwritten: Tensor) -> None:
        self.clean = clean
        self.inputs = inputs
        self.waits = clean.waits
        added = overwritten < 0
        self.labels = torch.cat([clean.labels, labels[added]])
        self.source = torch.full((len(self.labels),), -1)
        self.source[len(clean) :] = added.nonzero()[:, 0]
        self.source[overwritten[~added]] = (~added).nonzero()[:, 0]
        self.labels[overwritten[~added]] = labels[~added]

    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b *shape"]:
        """The inputs of these rows."""
        source = self.source[rows]
        poisoned = source >= 0
        if not bool(poisoned.any()):
            return self.clean.batch(rows)
        if bool(poisoned.all()):
            return self.inputs[source]
        clean = self.clean.batch(rows[~poisoned])
        out = clean.new_empty((len(rows), *clean.shape[1:]))
        out[~poisoned] = clean
        out[poisoned] = self.inputs[source[poisoned]].to(clean)
        return out


@final
@dataclass(frozen=True)
class DataSet:
    """A data set in its parts, with what goals, budgets and reports need to know about it.

    Attributes:
        name: its name in cases and reports.
        kind: `"image"` (inputs `(c, h, w)` in [0, 1]) or `"table"` (inputs `(columns,)` scaled to [0, 1]).
        train: what victims learn from, and what the attacker adds to.
        validation: held out; may be empty.
        test: the pool of targets; held out too.
        pretrain: a part disjoint from the others, never poisoned, that starting weights may be learnt from.
        classes: class names, the one of class 0 first; whatever `class_names` takes becomes a list of texts.
        features: column names of a table; likewise.
        boxes: for images, the object's box in a test row, as `(top, left, bottom, right)` shares of the sides.
        columns: for tables, how a column may change, by name (see `threat.Legal`); all others are continuous.
        notes: sentences about what was left out or changed while the data were read.

    Raises:
        InputError: names are missing, alike or in no order.
    """

    name: str
    kind: Kind
    train: Samples
    validation: Samples
    test: Samples
    pretrain: Samples | None
    classes: Sequence[str]
    features: Sequence[str] = ()
    boxes: Mapping[int, tuple[float, float, float, float]] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", list(class_names(self.classes)))
        object.__setattr__(self, "features", list(column_names(self.features)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train.batch(torch.tensor([0])).shape[1:])

    def check(self) -> str:
        """Read everything once: float32, finite, in [0, 1], labels in range. Returns the fingerprint (SHA-256, hex).

        Raises:
            InputError: names the first offending part and row.
        """
        hasher = hashlib.sha256()
        parts = {"train": self.train, "validation": self.validation, "test": self.test, "pretrain": self.pretrain}
        for part, samples in parts.items():
            if samples is None or (part == "validation" and len(samples) == 0):
                continue
            _check_labels(f"{self.name} ({part})", samples.labels, len(self.classes))
            hasher.update(part.encode() + samples.labels.numpy().tobytes())
            row = 0
            rows = torch.arange(min(_READ_AGAIN, len(samples)))
            first, again = samples.batch(rows), samples.batch(rows)
            if first.shape[1:] != self.shape:
                raise InputError(
                    f"{self.name} ({part}) holds inputs of {tuple(first.shape[1:])}, the training set of {self.shape}; make them alike."
                )
            if not torch.equal(first.nan_to_num(), again.nan_to_num()):
                raise InputError(f"{self.name} ({part}) reads differently each time; turn random augmentation off.")
            for chunk in samples.chunks():
                _check_inputs(f"{self.name} ({part})", chunk, row)
                hasher.update(chunk.contiguous().numpy().tobytes())
                row += len(chunk)
        return hasher.hexdigest()


def _check_labels(where: str, labels: Tensor, classes: int) -> None:
    if len(labels) == 0:
        raise InputError(f"{where} is empty; give it at least one sample.")
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{where}, row {row}: label {int(labels[row])} is not in 0..{classes - 1}; correct the label.")


def _check_inputs(where: str, chunk: Tensor, first: int) -> None:
    if chunk.dtype != torch.float32:
        raise InputError(f"{where} holds {chunk.dtype} inputs; give float32 scaled to [0, 1].")
    flat = chunk.flatten(1)
    wrong = (~flat.isfinite()).any(dim=1).nonzero()
    if len(wrong):
        raise InputError(f"{where}, row {first + int(wrong[0])} holds NaN or infinity; drop or impute such values.")
    wrong = ((flat < 0) | (flat > 1)).any(dim=1).nonzero()
    if len(wrong):
        raise InputError(
            f"{where}, row {first + int(wrong[0])} leaves [0, 1]; scale inputs to [0, 1] (epsilon is in that scale)."
        )


def split_rows(count: int, seed: int, pretrain: float, held_out: float = 0.1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of the train, validation, test and pre-training parts: the paper's random 90/5/5 split (§5.1).

    The pre-training part is cut off the training part, so the other two are the same whatever its share.

    Args:
        count: of rows.
        seed: of the order they are drawn in.
        pretrain: share of the training part that becomes the pre-training part.
        held_out: share of the rows that the validation and test parts have in equal halves.
    """
    order = torch.randperm(count, generator=generator("split", seed))
    train, validation = int((1 - held_out) * count), int(held_out / 2 * count)
    cut = int(pretrain * train)
    return (
        order[cut:train],
        order[train : train + validation],
        order[train + validation :],
        order[:cut],
    )
