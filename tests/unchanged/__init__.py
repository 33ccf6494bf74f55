"""Two small audits and a study, whose scores, intervals, verdicts and poison stay what they were: `python -m tests.unchanged` saves them anew."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import torch

HERE = Path(__file__).parent
TABLES = ("scores", "poisons", "intervals", "verdicts", "cells")
SCORES = (
    *("target", "arm", "seed", "victim_class", "jaccard", "jaccard_soft", "l1", "cosine", "spearman", "ssim"),
    *("topk", "pointing", "mass_goal", "mass_box", "label_kept", "probability", "accuracy", "drift"),
)
NUMBERS = ("label_kept", "smallest_detectable_shift", "standard_error", "p_value")
CELL_NUMBERS = ("p", "p_adjusted", "smallest_detectable_shift", "label_kept")


def machine() -> str:
    """What rounding depends on: other versions and processors give other last bits, and training magnifies them."""
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, Python {sys.version_info[:2]}"


def make(folder: Path) -> dict[str, pl.DataFrame]:
    """Run the audits and the study by the commands that people use; their tables."""
    runs = folder / "runs"
    _encircle("audit", HERE / "digits.yaml", HERE / "table.yaml", "--runs", runs, "--exit-zero")
    _encircle("study", "run", HERE / "study.yaml", "--folder", folder / "study", "--exit-zero")
    return tables([*runs.glob("*-*"), *(folder / "study" / "runs").glob("*-*")], folder / "study" / "study.json")


def _encircle(*arguments: object) -> None:
    command = [sys.executable, "-m", "encircle", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def tables(runs: list[Path], study: Path) -> dict[str, pl.DataFrame]:
    """What must not change of runs and of a study, as tables in a fixed order."""
    scores, poisons, intervals, verdicts = [], [], [], []
    for folder in sorted(runs, key=lambda run: run.name):
        run = folder.name
        verdict = json.loads((folder / "verdict.json").read_text())
        table = pl.read_parquet((folder / "scores.parquet").read_bytes()).select(SCORES)
        scores.append(table.select(pl.lit(run).alias("run"), *SCORES).sort("target", "arm", "seed"))
        for path in sorted((folder / "poison").rglob("*")):
            if path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                poisons.append({"run": run, "file": str(path.relative_to(folder)), "sha256": digest})
        for arm in verdict["arms"]:
            ends = {name: value for name, value in arm.items() if isinstance(value, dict)}
            intervals += [{"run": run, "arm": arm["arm"], "name": name, **ends[name]} for name in sorted(ends)]
        numbers = {name: verdict[name] for name in NUMBERS}
        verdicts.append({"run": run, "verdict": verdict["verdict"], **numbers})
    cells = [
        {
            "title": cell["title"],
            "verdict": cell["verdict"],
            **cell["shift"],
            **{key: cell[key] for key in CELL_NUMBERS},
        }
        for cell in json.loads(study.read_text())["cells"]
    ]
    content: dict[str, Any] = {"poisons": poisons, "intervals": intervals, "verdicts": verdicts, "cells": cells}
    made = {name: pl.DataFrame(rows, infer_schema_length=None) for name, rows in content.items()}
    return {"scores": pl.concat(scores), **made}


def save(made: dict[str, pl.DataFrame]) -> None:
    """Write the tables, and what they were made on."""
    for name, table in made.items():
        table.write_parquet(HERE / f"{name}.parquet", compression="zstd", compression_level=19)
    (HERE / "machine.txt").write_text(machine() + "\n", encoding="utf-8")


def load() -> dict[str, pl.DataFrame]:
    """The tables that were saved."""
    return {name: pl.read_parquet((HERE / f"{name}.parquet").read_bytes()) for name in TABLES}
