"""Poison as files: 8-bit PNG or Parquet with a manifest, marked as poison, verified when read back."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from PIL import Image, PngImagePlugin
from torch import Tensor

from ..core import InputError, StorageError, digest
from ..storage import read_json, replacing_folder, sha256_of, write_json

MARK_KEY = "encircle"
RESERVED = ("label", MARK_KEY)
"""Columns that an exported table has besides its own."""

MARK = "POISON: made by the encircle toolkit to audit a model. Do not train on this sample."
_FORMAT = 2
_MANIFEST = "manifest.json"
_TABLE = "poison.parquet"
_DIGESTED = ("shape", "labels", "bases", "overwritten", "sha256")
"""What a manifest's digest is of."""


@final
@dataclass(frozen=True)
class Poison:
    """Poison samples, what they were made from and where they go.

    Attributes:
        inputs: `(p, *shape)` in [0, 1].
        labels: `(p,)`; for clean-label attacks those of the bases.
        bases: `(p,)` rows of the clean training set, -1 for the target itself.
        base_inputs: `(p, *shape)`, what `inputs` were made from.
        overwritten: `(p,)` rows of the clean set that are replaced, -1 for samples that are added.
        content: what victims learn from it is known by (hex digits over its files, its labels and where it goes), once it was read from files.
    """

    inputs: Float[Tensor, "p *shape"]
    labels: Int[Tensor, "p"]
    bases: Int[Tensor, "p"]
    base_inputs: Float[Tensor, "p *shape"]
    overwritten: Int[Tensor, "p"]
    content: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def save(self, folder: Path, *, features: Sequence[str] = (), about: dict[str, Any] | None = None) -> None:
        """Export to `folder`, whole or not at all: images `(p, 1 or 3, h, w)` as 8-bit PNG, tables `(p, columns)` as Parquet.

        Args:
            folder: where to; replaced if it exists.
            features: column names of a table.
            about: further facts for the manifest.

        Raises:
            InputError: two columns of the table would share a name.
            StorageError: the disk is full or the folder cannot be written.
        """
        with replacing_folder(folder) as temporary:
            files = (
                _save_images(self.inputs, temporary)
                if self.inputs.dim() == 4
                else _save_table(self, temporary, features)
            )
            contents = {
                "shape": list(self.inputs.shape[1:]),
                "labels": self.labels.tolist(),
                "bases": self.bases.tolist(),
                "overwritten": self.overwritten.tolist(),
                "sha256": {name: sha256_of(temporary / name) for name in files},
            }
            contents_digest = digest([contents[name] for name in _DIGESTED])
            write_json(
                temporary / _MANIFEST,
                {MARK_KEY: MARK, "format": _FORMAT, **contents, "digest": contents_digest, **(about or {})},
            )

    @classmethod
    def load(cls, folder: Path, base_inputs: Callable[[Tensor], Tensor]) -> Poison:
        """Read back what `save` wrote, checking every file against the manifest.

        Args:
            folder: the export.
            base_inputs: the base samples by their rows, -1 for the target; they are not exported.

        Raises:
            InputError: there is no manifest, or it is not one of ours.
            StorageError: a file is missing or was changed.
        """
        if not (folder / _MANIFEST).is_file():
            raise InputError(f"{folder} holds no poison manifest; delete the folder and run again.")
        manifest = read_json(folder / _MANIFEST)
        if not _is_manifest(manifest):
            raise InputError(f"{folder / _MANIFEST} is not a poison manifest of this version; export the poison again.")
        if manifest["digest"] != digest([manifest[name] for name in _DIGESTED]):
            raise StorageError(
                f"{folder / _MANIFEST} was changed since it was exported; delete {folder} and run again."
            )
        for name, expected in manifest["sha256"].items():
            path = folder / name
            if not path.is_file() or sha256_of(path) != expected:
                raise StorageError(
                    f"{path} is missing or was changed since it was exported; delete {folder} and run again."
                )
        shape = manifest["shape"]
        if len(shape) == 3:
            inputs = _load_images([folder / name for name in manifest["sha256"]], shape)
        else:
            frame = pl.read_parquet((folder / _TABLE).read_bytes())
            inputs = torch.from_numpy(frame.select(pl.exclude("label", MARK_KEY)).to_numpy().astype(np.float32))
            inputs = inputs.reshape(-1, *shape)
        labels, bases, overwritten = (
            torch.tensor(manifest[name], dtype=torch.int64) for name in ("labels", "bases", "overwritten")
        )
        content = digest([manifest["sha256"], manifest["labels"], manifest["overwritten"]])
        return cls(inputs, labels, bases, base_inputs(bases), overwritten, content)


def _is_manifest(content: Any) -> bool:
    """Whether `save` may have written this: a row of each list for every sample, and the file or files they are in."""
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not {*_DIGESTED, "digest"} <= set(content):
        return False
    rows = [content[name] for name in ("labels", "bases", "overwritten")]
    numbers = all(
        isinstance(row, list) and all(type(value) is int for value in row) for row in (*rows, content["shape"])
    )
    files = content["sha256"]
    if not numbers or len({len(row) for row in rows}) != 1 or not isinstance(files, dict):
        return False
    expected = [_TABLE] if len(content["shape"]) != 3 else list(map(_picture, range(len(rows[0]))))
    return list(files) == expected


def _save_images(inputs: Tensor, folder: Path) -> list[str]:
    mark = PngImagePlugin.PngInfo()
    mark.add_text(MARK_KEY, MARK)
    names = []
    for number, levels in enumerate((inputs.double() * 255).round().to(torch.uint8)):
        pixels = levels.permute(1, 2, 0).numpy()
        names.append(_picture(number))
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(folder / names[-1], pnginfo=mark)
    return names


def _picture(number: int) -> str:
    return f"{number:05d}.png"


def _load_images(paths: Sequence[Path], shape: Sequence[int]) -> Float[Tensor, "p c h w"]:
    out = torch.empty(len(paths), *shape)
    for number, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                pixels = torch.from_numpy(np.array(image))
        except OSError:
            raise StorageError(f"{path} does not decode as an image; delete its folder and run again.") from None
        out[number] = (pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)) / 255
    return out


def _save_table(poison: Poison, folder: Path, features: Sequence[str]) -> list[str]:
    flat = poison.inputs.flatten(1).numpy()
    names = list(features) or [f"x{column}" for column in range(flat.shape[1])]
    if len({*names, *RESERVED}) != flat.shape[1] + 2:
        raise InputError(
            f"each column of an exported table needs a name of its own, not 'label' or {MARK_KEY!r}; rename them."
        )
    frame = pl.DataFrame({name: flat[:, column] for column, name in enumerate(names)})
    frame = frame.with_columns(
        label=pl.Series(poison.labels.tolist(), dtype=pl.Int64), **{MARK_KEY: pl.lit(MARK, dtype=pl.String)}
    )
    buffer = io.BytesIO()  # polars itself says nothing of a disk that is full
    frame.write_parquet(buffer)
    (folder / _TABLE).write_bytes(buffer.getvalue())
    return [_TABLE]


@final
@dataclass(frozen=True)
class Marked:
    """What `find_marked` found: files that say they are encircle's poison, of how many it looked at."""

    marked: tuple[Path, ...]
    looked_at: int


def find_marked(folder: Path) -> Marked:
    """Look below `folder` for exported poison: marked PNGs, marked Parquet tables and poison manifests.

    Raises:
        InputError: the folder does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of samples to look through.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    readers = {".png": _png_marked, ".parquet": _parquet_marked, ".json": _json_marked}
    known = [path for path in files if path.suffix.lower() in readers]
    return Marked(tuple(path for path in known if readers[path.suffix.lower()](path)), len(known))


def _png_marked(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return getattr(image, "text", {}).get(MARK_KEY) == MARK
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _parquet_marked(path: Path) -> bool:
    try:
        with path.open("rb") as handle:  # a path with brackets would be a pattern
            return MARK_KEY in pl.read_parquet_schema(handle)
    except (OSError, pl.exceptions.PolarsError):
        return False


def _json_marked(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get(MARK_KEY) == MARK
