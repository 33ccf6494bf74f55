"""A data set in files without decoding: NumPy arrays, mapped into memory if large."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from ..core import InputError, StorageError
from ..data import DataSet, Samples, TensorSamples
from ..storage import read_json, replacing, write_json
from ..threat import Column

_PARTS = ("train", "validation", "test", "pretrain")
_IN_MEMORY = 256 << 20
"""Bytes (as float32). Smaller parts are read at once, larger ones batch by batch."""

_COLUMNS = TypeAdapter(dict[str, Column])


def save_data(data: DataSet, folder: Path) -> None:
    """Write a data set, chunk by chunk: inputs as `.npy` (8 bit if lossless), labels and facts as JSON.

    Raises:
        StorageError: it cannot be written.
    """
    facts: dict[str, Any] = {
        "name": data.name,
        "kind": data.kind,
        "classes": list(data.classes),
        "features": list(data.features),
        "boxes": {str(row): list(box) for row, box in data.boxes.items()},
        "columns": _COLUMNS.dump_python(dict(data.columns), mode="json"),
        "notes": list(data.notes),
        "labels": {},
    }
    for part in _PARTS:
        samples: Samples | None = getattr(data, part)
        if samples is None:
            continue
        facts["labels"][part] = samples.labels.tolist()
        if len(samples):
            _save_inputs(samples, folder / f"{part}.npy")
    write_json(folder / "data.json", facts)


def load_data(folder: Path) -> DataSet:
    """The data set written by `save_data`: the same values.

    Raises:
        StorageError: a file is missing or damaged.
    """
    try:
        facts = read_json(folder / "data.json")
        parts: dict[str, Samples] = {}
        shape = np.load(folder / "train.npy", mmap_mode="r", allow_pickle=False).shape[1:]
        for part, labels in facts["labels"].items():
            target = torch.tensor(labels, dtype=torch.int64)
            parts[part] = (
                _load_inputs(folder / f"{part}.npy", target)
                if len(labels)
                else TensorSamples(torch.zeros(0, *shape), target)
            )
        return DataSet(
            name=facts["name"],
            kind=facts["kind"],
            train=parts["train"],
            validation=parts["validation"],
            test=parts["test"],
            pretrain=parts.get("pretrain"),
            classes=facts["classes"],
            features=facts["features"],
            boxes={int(row): (box[0], box[1], box[2], box[3]) for row, box in facts["boxes"].items()},
            columns=_COLUMNS.validate_python(facts["columns"]),
            notes=tuple(facts.get("notes", ())),
        )
    except (InputError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise StorageError(
            f"the data set in {folder} is missing or damaged; delete the folder and run again."
        ) from None


@final
class _Mapped(Samples):
    """Samples in a file, read batch by batch."""

    def __init__(self, inputs: NDArray[Any], labels: Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b *shape"]:
        return _as_float(self.inputs[rows.numpy()])


def _save_inputs(samples: Samples, path: Path) -> None:
    is_bytes = all(bool((_as_float(_as_bytes(chunk)) == chunk).all()) for chunk in samples.chunks())
    shape = (len(samples), *samples.batch(torch.tensor([0])).shape[1:])
    kind = np.dtype(np.uint8 if is_bytes else np.float32)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    # Not through a map of the file: on a full disk, writing into a map kills the process.
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in samples.chunks():
            file.write(np.ascontiguousarray(_as_bytes(chunk) if is_bytes else chunk.numpy(), kind).tobytes())


def _load_inputs(path: Path, labels: Tensor) -> Samples:
    inputs = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(inputs) != len(labels):
        raise ValueError("as many labels as inputs")
    if 4 * inputs.size > _IN_MEMORY:
        return _Mapped(inputs, labels)
    return TensorSamples(_as_float(np.array(inputs)), labels)


def _as_bytes(chunk: Tensor) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = (chunk * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return levels


def _as_float(inputs: NDArray[Any]) -> Tensor:
    values = torch.from_numpy(inputs)
    return values.float() / 255 if values.dtype == torch.uint8 else values
