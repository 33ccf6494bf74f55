"""The runs of a study in few files: a table of every victim's scores, a table of the poisons, and a file of facts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import polars as pl

from ..core import InputError
from ..storage import write_json, write_parquet, write_text

FACTS = "facts.json"
"""Case, environment and verdict of every run; written last."""

TABLES = ("scores", "poisons")
"""What is packed of every run. Maps, poison and pictures stay behind: they hold the data themselves."""

HISTORY = "history"
"""Packed where it is asked for: it is larger than all the rest."""

_RUN = "cell"
"""The column that says which run a row is of: a cell of the study's grid."""


@final
@dataclass(frozen=True)
class RunRecord:
    """A run without its maps and poison.

    Attributes:
        case: the text of `case.yaml`.
        environment: the content of `environment.json`.
        verdict: the content of `verdict.json`.
        tables: `scores`, `poisons`, and `history` where it was asked for.
    """

    case: str
    environment: Mapping[str, Any]
    verdict: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)

    def table(self, name: str) -> pl.DataFrame:
        """One of its tables.

        Raises:
            InputError: it has no such table.
        """
        if name not in self.tables:
            raise InputError(f"the run {self.environment.get('title', '')!r} was packed without its {name}.")
        return self.tables[name]


def read_run(folder: Path, *, history: bool = False) -> RunRecord:
    """Read a finished run's folder.

    Raises:
        InputError: a file is missing or damaged.
    """
    with _readable(folder, "run the audit again to make it whole."):
        return RunRecord(
            (folder / "case.yaml").read_bytes().decode(),
            json.loads((folder / "environment.json").read_text("utf-8")),
            json.loads((folder / "verdict.json").read_text("utf-8")),
            {name: _read_table(folder, name) for name in (*TABLES, *([HISTORY] if history else []))},
        )


def write_run(run: RunRecord, folder: Path) -> None:
    """Write a run's folder, as `read_run` reads it."""
    write_text(folder / "case.yaml", run.case)
    write_json(folder / "environment.json", run.environment)
    write_json(folder / "verdict.json", run.verdict)
    for name, table in run.tables.items():
        write_parquet(folder / f"{name}.parquet", table)


def pack(runs: Mapping[str, RunRecord], folder: Path) -> None:
    """Write runs by name; what was packed there before is replaced, other files stay."""
    (folder / FACTS).unlink(missing_ok=True)  # a write that is cut short leaves nothing that looks finished
    columns: dict[str, list[str]] = {}
    for name in (*TABLES, HISTORY):
        tables = [
            run.tables[name].select(pl.lit(title).alias(_RUN), pl.all())
            for title, run in runs.items()
            if name in run.tables
        ]
        path = folder / f"{name}.parquet"
        if tables:
            packed = pl.concat(tables, how="diagonal")
            columns[name] = packed.columns[1:]
            write_parquet(path, packed)
        else:
            path.unlink(missing_ok=True)
    write_json(folder / FACTS, {"columns": columns, "runs": {name: _facts(run, columns) for name, run in runs.items()}})


def _facts(run: RunRecord, packed: Mapping[str, list[str]]) -> dict[str, Any]:
    """What is not in tables, and the columns of tables that are not as packed: other ones, or None for no such table."""
    own = {name: run.tables[name].columns if name in run.tables else None for name in packed}
    facts = {"case": run.case.split("\n"), "environment": run.environment, "verdict": run.verdict}
    deviating = {name: own[name] for name in packed if own[name] != packed[name]}
    return facts | ({"columns": deviating} if deviating else {})


def unpack(folder: Path) -> dict[str, RunRecord]:
    """The runs that were packed into a folder, by name; none where nothing was.

    Raises:
        InputError: a file is missing or damaged.
    """
    if not any((folder / name).exists() for name in (FACTS, *(f"{table}.parquet" for table in TABLES))):
        return {}
    with _readable(folder, "restore it, or run again the command that wrote it."):
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        packed = {name: _read_table(folder, name) for name in facts["columns"]}
        return {
            title: RunRecord(
                "\n".join(run["case"]),
                run["environment"],
                run["verdict"],
                {
                    name: packed[name].filter(pl.col(_RUN) == title).select(columns)
                    for name, columns in (facts["columns"] | run.get("columns", {})).items()
                    if columns is not None
                },
            )
            for title, run in facts["runs"].items()
        }


def _read_table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet((folder / f"{name}.parquet").read_bytes())


@contextmanager
def _readable(folder: Path, remedy: str) -> Iterator[None]:
    """Name the folder whose files cannot be read."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pl.exceptions.PolarsError):
        raise InputError(f"a file of {folder} is missing or damaged; {remedy}") from None
