"""The results of a reproduction: a page can be made from them without models, data or pictures of dogs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from ..core import InputError
from ..goals import REGIONS
from ..run_folder import SavedRun, load_run
from ..scoring.thresholds import STABLE_LAST_EPOCHS, STABLE_RANGE
from ..storage import write_bytes
from ..study.folder import noted_runs, reopen
from .packed import RunRecord, pack, read_run, unpack

FIGURE4 = "figure4.safetensors"


def runs_of(root: Path) -> dict[str, Path | None]:
    """The run folders of a study by the names of their cells; None for one that is not finished."""
    study = reopen(root)
    folders: dict[str, Path | None] = {}
    for planned in noted_runs(root, study):
        labels = [axis.labels[index] for axis, index in zip(study.axes, planned.run.at, strict=True)]
        folder = root / "runs" / planned.folder
        folders[" · ".join(labels) or study.title] = folder if (folder / "verdict.json").is_file() else None
    return folders


def collect(root: Path, out: Path, *, history: bool = False) -> dict[str, str]:
    """Pack a study's finished runs.

    Args:
        root: the study.
        out: the folder to pack them into.
        history: whether to pack what crafting recorded, too.

    Returns:
        Why other cells are not finished, by name.
    """
    summaries = json.loads((root / "study.json").read_text("utf-8"))["cells"]
    reasons = {cell["title"]: missing["why"] for cell in summaries for missing in cell["missing"]}
    folders = runs_of(root)
    names = sorted(folders, key=str.casefold)
    finished = {name: folder for name in names if (folder := folders[name]) is not None}
    pack({name: read_run(folder, history=history) for name, folder in finished.items()}, out)
    return {name: reasons.get(name, "it is not done yet.") for name in folders if name not in finished}


@final
@dataclass(frozen=True)
class CellResult:
    """The result of one cell of a study.

    Attributes:
        name: of the cell.
        run: its case, environment, verdict and tables.
    """

    name: str
    run: RunRecord

    @property
    def verdict(self) -> Mapping[str, Any]:
        """What is in its `verdict.json`."""
        return self.run.verdict

    @property
    def environment(self) -> Mapping[str, Any]:
        """What is in its `environment.json`."""
        return self.run.environment

    def arm(self, name: str) -> Mapping[str, Any]:
        """The scores of an arm.

        Raises:
            InputError: the cell has no such arm.
        """
        for arm in self.verdict["arms"]:
            if arm["arm"] == name:
                return arm  # type: ignore[no-any-return]
        raise InputError(f"the cell {self.name!r} has no arm {name}; it was made by other settings.")

    @property
    def attack(self) -> Mapping[str, Any]:
        """The scores of the audited attack."""
        return self.arm(self.verdict["attack"])

    @property
    def targets(self) -> list[int]:
        """Their rows, in order."""
        return sorted(target["row"] for target in self.environment["targets"])

    def table(self, name: str) -> pl.DataFrame:
        """One of its tables: `scores`, `poisons` or `history`."""
        return self.run.table(name)


def read_cells(folder: Path) -> dict[str, CellResult]:
    """The cells that were packed into a folder, by name.

    Raises:
        InputError: a file is missing or damaged.
    """
    return {name: CellResult(name, run) for name, run in unpack(folder).items()}


# -- figures -----------------------------------------------------------------------------------------------------------


def keep_figure4(root: Path, out: Path) -> SavedRun | None:
    """Keep the maps of the first dog whose desired region is the mid-left, of both explainers, without the dog.

    Args:
        root: the study of Table 1.
        out: where `figure4.safetensors` goes.

    Returns:
        The CAM run, which the full figure shows the photograph and the poison of; None if there is no such dog yet.
    """
    runs = {name: load_run(folder) for name, folder in runs_of(root).items() if folder is not None}
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, run in runs.items():
        row = figure4_target(run)
        if row is None:
            continue
        explainer = name.partition("-")[2]
        for arm in ("clean", run.attack):
            key = f"{row}/{arm}/0/full" if f"{row}/{arm}/0/full" in run.maps else f"{row}/{arm}/0"
            arrays[f"{explainer}/{'normal' if arm == 'clean' else 'manipulated'}"] = np.asarray(run.maps[key])
            arrays[f"{explainer}/{'normal' if arm == 'clean' else 'manipulated'}/scored"] = np.asarray(
                run.maps[f"{row}/{arm}/0"]
            )
        arrays[f"{explainer}/goal"] = np.asarray(run.maps[f"{row}/goal"])
    if not {"grad/goal", "cam/goal"} <= set(arrays):
        return None
    write_bytes(out / FIGURE4, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
    return runs["dogs-cam"]


def figure4_target(run: SavedRun) -> int | None:
    """The first target whose desired map is the mid-left region."""
    y0, x0, y1, x1 = REGIONS["mid-left"]
    for target in run.environment["targets"]:
        goal = np.asarray(run.maps[f"{target['row']}/goal"])
        rows = slice(int(np.floor(y0 * goal.shape[0])), int(np.ceil(y1 * goal.shape[0])))
        columns = slice(int(np.floor(x0 * goal.shape[1])), int(np.ceil(x1 * goal.shape[1])))
        wanted = np.zeros_like(goal)
        wanted[rows, columns] = 1
        if np.array_equal(goal > 0, wanted > 0):
            return int(target["row"])
    return None


def read_figure4(folder: Path) -> dict[str, NDArray[np.float32]] | None:
    """The maps that `keep_figure4` kept."""
    path = folder / FIGURE4
    return load_file(path) if path.is_file() else None


@final
@dataclass(frozen=True)
class Convergence:
    """Both levels of the objective along a crafting.

    Attributes:
        epochs: at the end of which the means are.
        upper: mean of L_adv over the iterations and models of each epoch.
        lower: mean of L_train.
    """

    epochs: list[int]
    upper: list[float]
    lower: list[float]

    def stable_from(self, level: str) -> int:
        """The first epoch from which on a level stays within a tenth of its whole range of its mean in the last five.

        One that never settles is stable from the epoch after the last.
        """
        values = getattr(self, level)
        last = values[-STABLE_LAST_EPOCHS:]
        slack, end = STABLE_RANGE * (max(values) - min(values)), sum(last) / len(last)
        outside = [epoch for epoch, value in zip(self.epochs, values, strict=True) if abs(value - end) > slack + 1e-12]
        return max(outside, default=0) + 1


def convergence(history: pl.DataFrame) -> Convergence:
    """Means by epoch of a run's recorded history."""
    by_epoch = (
        history.with_columns(full_epoch=pl.col("epoch").floor().cast(pl.Int64) + 1)
        .group_by("full_epoch")
        .agg(pl.col("upper").mean(), pl.col("lower").mean())
        .sort("full_epoch")
    )
    return Convergence(by_epoch["full_epoch"].to_list(), by_epoch["upper"].to_list(), by_epoch["lower"].to_list())
