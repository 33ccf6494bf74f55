"""A saved run, read back and checked against docs/run-folder.md before use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray
from safetensors import safe_open

from ..core import InputError
from .checked import DamagedError, NewerError, check_shape, read_checked, read_file, read_table
from .shapes import (
    FORMER_COLUMNS,
    NEEDED_HISTORY,
    POISON_COLUMNS,
    SCORE_COLUMNS,
    SHAPE_VERSION,
    ArmSummary,
    Environment,
    Verdict,
    Versioned,
)


@final
class LazyMaps(Mapping[str, NDArray[np.float32]]):
    """The arrays of a safetensors file, each read when accessed."""

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
    """The content of a run folder, as the report needs it (docs/run-folder.md).

    Attributes:
        folder: the run folder.
        case: `case.yaml`.
        environment: `environment.json`.
        verdict: `verdict.json`.
        scores: `scores.parquet`, NaN being null.
        poisons: `poisons.parquet`.
        history: `history.parquet`, its columns under today's names.
        maps: `maps.safetensors`, read array by array.
    """

    folder: Path
    case: Mapping[str, Any]
    environment: Environment
    verdict: Verdict
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
        """The name of the audited arm's reference: clean victims under the same defence."""
        return next((reference_of(arm) for arm in self.verdict["arms"] if arm["arm"] == self.attack), "clean")

    @property
    def poison(self) -> str:
        """The name of the undefended arm with the audited arm's poison."""
        return self.attack.partition("+")[0]

    @property
    def space(self) -> str:
        """The entries of maps: `"grid"`, `"columns"` or `"units"`."""
        known = self.environment["data"].get("space")
        if known is not None:
            return str(known)
        if self.is_images:
            return "grid"
        # Runs of earlier versions lack this entry; they knew GRAD and CAM.
        explainer = self.case.get("explainer")
        return "units" if isinstance(explainer, Mapping) and explainer.get("kind") == "cam" else "columns"

    @property
    def is_images(self) -> bool:
        """Whether the run's data are pictures rather than rows of a table."""
        return bool(self.environment["data"]["kind"] == "image")


def reference_of(arm: ArmSummary | Mapping[str, Any]) -> str:
    """The name of an arm's reference: clean victims under the same defence, undefended by default."""
    return str(arm.get("reference", "clean"))


def load_run(folder: Path) -> SavedRun:
    """Read a run folder and check it against docs/run-folder.md.

    Raises:
        InputError: the folder is missing; the message names it and the remedy.
        DamagedError: a file in it is missing, damaged or incomplete.
        NewerError: a newer version of encircle made it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a run folder; run `encircle audit` first, or give the folder it wrote.")
    case = read_file(folder / "case.yaml", lambda path: yaml.safe_load(path.read_text(encoding="utf-8")))
    check_shape(folder / "case.yaml", case, dict)
    _check_version(folder / "environment.json")
    environment = read_checked(folder / "environment.json", Environment)
    verdict = read_checked(folder / "verdict.json", Verdict)
    history = read_table(folder / "history.parquet", NEEDED_HISTORY)
    run = SavedRun(
        folder=folder,
        case=case,
        environment=environment,
        verdict=verdict,
        scores=read_table(folder / "scores.parquet", SCORE_COLUMNS),
        poisons=read_table(folder / "poisons.parquet", POISON_COLUMNS),
        history=history.rename(lambda name: FORMER_COLUMNS.get(name, name)),
        maps=read_file(folder / "maps.safetensors", LazyMaps),
    )
    _check_maps(run)
    return run


def _check_version(path: Path) -> None:
    """Before anything else is: a newer version may have other entries."""
    if (version := read_checked(path, Versioned).get("shape_version", 1)) > SHAPE_VERSION:
        raise NewerError(path, version)


def _check_maps(run: SavedRun) -> None:
    path = run.folder / "maps.safetensors"
    for target in run.environment["targets"]:
        row = target["row"]
        for name in ("input", "goal", "mask", f"{run.clean}/0", f"{run.attack}/0"):
            if f"{row}/{name}" not in run.maps:
                raise DamagedError(path, f"lacks the map '{row}/{name}'")
        goal = run.maps[f"{row}/goal"].shape
        dimensions = (3, 2) if run.is_images else (1, 1)
        if (run.maps[f"{row}/input"].ndim, len(goal)) != dimensions:
            raise DamagedError(path, f"holds an input or a goal of the wrong shape for target {row}")
        for name in ("mask", f"{run.clean}/0", f"{run.attack}/0"):
            if run.maps[f"{row}/{name}"].shape != goal:
                raise DamagedError(path, f"holds a map '{row}/{name}' of another shape than its goal")
