"""Finished steps of a run: one file a victim, from which the run's tables are assembled and a killed run resumes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, final

import numpy as np
import polars as pl

from ..run_folder import FORMER_COLUMNS, HISTORY_COLUMNS, POISON_COLUMNS, SCORE_COLUMNS
from ..storage import read_arrays, write_arrays, write_parquet

Arrays = dict[str, np.ndarray[Any, Any]]


@final
class StepResults:
    """The finished steps of one run.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts = folder / "parts"

    def has(self, name: str) -> bool:
        """Whether this step is finished."""
        return (self._parts / f"{name}.safetensors").is_file()

    def write(self, name: str, maps: Arrays, rows: list[dict[str, Any]], table: str) -> None:
        """Save the result of a step in one file.

        Args:
            name: of the step.
            maps: by their names in the run's `maps.safetensors`.
            rows: of a table.
            table: `"scores"`, `"poisons"`, `"history"` or `"goals"`.
        """
        facts = {"table": table, "rows": json.dumps([_plain(row) for row in rows])}
        write_arrays(self._parts / f"{name}.safetensors", maps, facts)

    def discard(self) -> None:
        """Delete the step results, once the run's tables hold them all."""
        shutil.rmtree(self._parts, ignore_errors=True)

    def assemble(self) -> tuple[pl.DataFrame, list[str]]:
        """Write the run's tables and maps from all steps; returns the scores, and the desired maps' names by target.

        Rows and maps are sorted, so that the files do not depend on the order of the steps.
        """
        maps: Arrays = {}
        rows: dict[str, list[dict[str, Any]]] = {"scores": [], "poisons": [], "history": [], "goals": []}
        for path in sorted(self._parts.glob("*.safetensors")):
            arrays, facts = read_arrays(path)
            maps.update(arrays)
            rows[facts["table"]].extend(json.loads(facts["rows"]))
        # A step result may come from an interrupted run of an earlier version.
        rows["history"] = [
            {FORMER_COLUMNS.get(key, key): value for key, value in row.items()} for row in rows["history"]
        ]
        scores = _frame(rows["scores"], SCORE_COLUMNS, ["target", "arm", "seed"])
        write_parquet(self._folder / "scores.parquet", scores)
        write_parquet(self._folder / "poisons.parquet", _frame(rows["poisons"], POISON_COLUMNS, ["target", "arm"]))
        history = _frame(rows["history"], HISTORY_COLUMNS, ["target", "iteration", "member"])
        write_parquet(self._folder / "history.parquet", history)
        write_arrays(self._folder / "maps.safetensors", dict(sorted(maps.items())))
        return scores, [goal["label"] for goal in sorted(rows["goals"], key=lambda goal: int(goal["target"]))]


def _frame(rows: list[dict[str, Any]], columns: dict[str, Any], order: list[str]) -> pl.DataFrame:
    filled = [{name: row.get(name) for name in columns} for row in rows]
    return pl.DataFrame(filled, schema=columns).sort(order)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
