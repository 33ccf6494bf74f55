"""A saved run, read back and checked against docs/run-folder.md before anything is drawn from it or taken for finished. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import polars as pl
import polars.selectors as cs
import yaml
from numpy.typing import NDArray
from polars.exceptions import PolarsError
from safetensors import SafetensorError, safe_open

from .core import InputError

_T = TypeVar("_T")

_REMEDY = "run `encircle audit` on its case again to resume the run and write it anew."
_REMEDIES = {"study.json": "run `encircle study resume` on its folder to write it anew."}

_SCORES = (
    *("target", "arm", "seed", "victim_class", "jaccard", "jaccard_soft", "l1", "cosine", "spearman", "ssim"),
    *("topk", "pointing", "mass_goal", "mass_box", "label_kept", "probability", "accuracy", "drift"),
)
_POISONS = ("target", "arm", "count", "share_of_set", "share_of_class", "linf", "l2", "psnr", "bounded")
_HISTORY = ("target", "iteration", "epoch", "member", "upper", "distance", "label", "lower")

FORMER_COLUMNS = {"turned": "ihvp_cosine", "apart": "feature_distance"}
"""What columns of `history.parquet` were called in runs of earlier versions, and are called now."""

NUMBER = (int, float)
MAYBE = (int, float, type(None))
ESTIMATE = {"mean": MAYBE, "low": MAYBE, "high": MAYBE}
_ESTIMATES = (
    *("jaccard", "l1", "jaccard_change", "l1_change"),
    *("label_kept", "accuracy", "accuracy_change", "drift"),
)
_VERDICT = {
    "verdict": str,
    "sentence": str,
    "advice": [str],
    "demonstration": bool,
    "attack": str,
    "threshold": NUMBER,
    "targets": int,
    "victims": int,
    "label_kept": MAYBE,
    "smallest_detectable_shift": MAYBE,
    "case": {"data": str, "model": str, "explainer": str, "goal": str, "budget": str, "start": str},
    "arms": [{"arm": str, "title": str, **dict.fromkeys(_ESTIMATES, ESTIMATE)}],
    "accuracy_resolvable": bool,
    "held_out": int,
}
_ENVIRONMENT = {
    "versions": dict,
    "python": str,
    "platform": str,
    "threads": int,
    "device": str,
    "commit": (str, type(None)),
    "results_version": int,
    "run_id": str,
    "seconds": dict,
    "data": {
        "name": str,
        "kind": str,
        "fingerprint": str,
        **dict.fromkeys(("train", "validation", "test", "pretrain"), (int, type(None))),
        "classes": [str],
    },
    "targets": [{"row": int, "label": int, "class_name": str}],
    "title": str,
}


@final
class DamagedError(InputError):
    """A saved file that cannot be drawn from.

    Args:
        path: the file.
        trouble: what is wrong with it, as the end of a sentence that begins with its name.
        remedy: what to do.
    """

    def __init__(self, path: Path, trouble: str, remedy: str) -> None:
        super().__init__(f"{path} {trouble}; {remedy}")
        self.path, self.trouble = path, trouble


@final
class LazyMaps(Mapping[str, NDArray[np.float32]]):
    """The arrays of a safetensors file, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with safe_open(path, framework="numpy") as archive:
            self._keys = dict.fromkeys(sorted(archive.keys()))

    def __getitem__(self, key: str) -> NDArray[np.float32]:
        if key not in self._keys:
            raise KeyError(key)
        with safe_open(self._path, framework="numpy") as archive:
            return np.asarray(archive.get_tensor(key), dtype=np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@final
@dataclass(frozen=True)
class SavedRun:
    """Everything a run folder holds that the report draws; fields are named after the files."""

    folder: Path
    case: Mapping[str, Any]
    environment: Mapping[str, Any]
    verdict: Mapping[str, Any]
    scores: pl.DataFrame
    poisons: pl.DataFrame
    history: pl.DataFrame
    maps: Mapping[str, NDArray[np.float32]]

    @property
    def attack(self) -> str:
        """The name of the audited attack's arm."""
        return str(self.verdict["attack"])

    @property
    def clean(self) -> str:
        """The name of the arm that the audited one is paired with: clean victims under the same defence."""
        return next((reference_of(arm) for arm in self.verdict["arms"] if arm["arm"] == self.attack), "clean")

    @property
    def poison(self) -> str:
        """The name of the undefended arm whose poison the audited one learns from."""
        return self.attack.partition("+")[0]

    @property
    def space(self) -> str:
        """What the entries of maps are: `"grid"`, `"columns"` or `"units"`."""
        known = self.environment["data"].get("space")
        if known is not None:
            return str(known)
        if self.is_images:
            return "grid"
        # Runs of earlier versions do not say; they knew GRAD and CAM.
        explainer = self.case.get("explainer")
        return "units" if isinstance(explainer, Mapping) and explainer.get("kind") == "cam" else "columns"

    @property
    def is_images(self) -> bool:
        """Whether the run's data are pictures rather than rows of a table."""
        return bool(self.environment["data"]["kind"] == "image")


def reference_of(arm: Mapping[str, Any]) -> str:
    """The name of the arm that an arm of `verdict.json` is paired with: clean victims under the same defence, undefended unless it says so."""
    return str(arm.get("reference", "clean"))


def load_run(folder: Path) -> SavedRun:
    """Read a run folder and check that it holds what docs/run-folder.md promises.

    Raises:
        InputError: the folder is missing; the message names it and the remedy.
        DamagedError: a file in it is missing, damaged or incomplete.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a run folder; run `encircle audit` first, or give the folder it wrote.")
    case = _read(folder / "case.yaml", lambda path: yaml.safe_load(path.read_text(encoding="utf-8")))
    _check(folder / "case.yaml", case, dict)
    environment = read_checked(folder / "environment.json", _ENVIRONMENT)
    verdict = read_checked(folder / "verdict.json", _VERDICT)
    run = SavedRun(
        folder=folder,
        case=case,
        environment=environment,
        verdict=verdict,
        scores=_read_table(folder / "scores.parquet", _SCORES),
        poisons=_read_table(folder / "poisons.parquet", _POISONS),
        history=_read_table(folder / "history.parquet", _HISTORY).rename(lambda name: FORMER_COLUMNS.get(name, name)),
        maps=_read(folder / "maps.safetensors", LazyMaps),
    )
    _check_maps(run)
    return run


def _read(path: Path, reader: Callable[[Path], _T]) -> _T:
    try:
        if not path.is_file():
            raise _unusable(path, "is missing")
        return reader(path)
    except (ValueError, RecursionError, yaml.YAMLError, PolarsError, SafetensorError):
        raise _unusable(path, "is damaged") from None
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror or error})") from None


def read_checked(path: Path, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON file of this shape: a type, several types, `{key: schema}` or `[schema]`.

    Raises:
        DamagedError: it is missing, damaged, or of another shape.
    """
    value: dict[str, Any] = _read(path, lambda file: json.loads(file.read_text(encoding="utf-8")))
    _check(path, value, schema)
    return value


def _read_table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    table = _read(path, lambda file: pl.read_parquet(file.read_bytes()))
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        raise _unusable(path, f"lacks the column {lacking[0]!r}")
    return table.with_columns(cs.float().fill_nan(None))


def _check(path: Path, value: Any, schema: Any, where: str = "") -> None:
    """Raise unless `value` has the shape of `schema`: a type, several types, `{key: schema}` or `[schema]`."""
    if isinstance(schema, Mapping):
        _check(path, value, dict, where)
        for key, inner in schema.items():
            name = f"{where}.{key}".lstrip(".")
            if key not in value:
                raise _unusable(path, f"lacks the entry {name!r}")
            _check(path, value[key], inner, name)
    elif isinstance(schema, list):
        _check(path, value, list, where)
        for index, item in enumerate(value):
            _check(path, item, schema[0], f"{where}[{index}]")
    elif not isinstance(value, schema):
        raise _unusable(path, f"has an entry {where!r} of the wrong kind" if where else "is damaged")


def _check_maps(run: SavedRun) -> None:
    path = run.folder / "maps.safetensors"
    for target in run.environment["targets"]:
        row = target["row"]
        for name in ("input", "goal", "mask", f"{run.clean}/0", f"{run.attack}/0"):
            if f"{row}/{name}" not in run.maps:
                raise _unusable(path, f"lacks the map '{row}/{name}'")
        goal = run.maps[f"{row}/goal"].shape
        dimensions = (3, 2) if run.is_images else (1, 1)
        if (run.maps[f"{row}/input"].ndim, len(goal)) != dimensions:
            raise _unusable(path, f"holds an input or a goal of the wrong shape for target {row}")
        for name in ("mask", f"{run.clean}/0", f"{run.attack}/0"):
            if run.maps[f"{row}/{name}"].shape != goal:
                raise _unusable(path, f"holds a map '{row}/{name}' of another shape than its goal")


def _unusable(path: Path, trouble: str) -> DamagedError:
    return DamagedError(path, trouble, _REMEDIES.get(path.name, _REMEDY))
