"""Judge finished runs anew from their scores, after the rules of judging changed: `python tools/rejudge.py results runs/evidence ...`.

Rewrites the verdicts below the folders: each `verdict.json` that has its `scores.parquet` beside it, and those in packed studies. Nothing is trained, and no
score changes. Pages that are made of verdicts are to be made again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from encircle.reproduce.packed import FACTS, pack, unpack
from encircle.scoring.thresholds import LABEL_KEPT, MINIMUM_TARGETS
from encircle.scoring.verdicts import judge
from encircle.storage import write_json


def judged_anew(verdict: Mapping[str, Any], scores: pl.DataFrame) -> dict[str, Any]:
    """What scores come to by the rules as they are, with the settings that a verdict was reached by."""
    return judge(
        scores,
        attack=verdict["attack"],
        titles={arm["arm"]: arm["title"] for arm in verdict["arms"]},
        victims=verdict["victims"],
        accuracy_rows=verdict["held_out"],
        threshold=verdict["threshold"],
        # Verdicts from before these were kept are of the defaults.
        label_threshold=verdict.get("label_kept_threshold", LABEL_KEPT),
        minimum_targets=verdict.get("minimum_targets", MINIMUM_TARGETS),
    )


def change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """What became of a verdict; None if nothing did."""
    if new == old:
        return None
    return f"{old['verdict']} -> {new['verdict']}" if old["verdict"] != new["verdict"] else "intervals"


def rejudge_run(file: Path) -> str | None:
    """Judge a run's folder anew; returns what became of its verdict."""
    old = json.loads(file.read_text("utf-8"))
    new = {**old, **judged_anew(old, pl.read_parquet(file.parent / "scores.parquet"))}
    if (what := change(old, new)) is not None:
        write_json(file, new)
    return what


def rejudge_packed(folder: Path) -> Iterator[tuple[str, str]]:
    """Judge the runs of a packed study anew; gives those that changed and what became of their verdicts."""
    runs = unpack(folder)
    judged = {
        name: replace(run, verdict={**run.verdict, **judged_anew(run.verdict, run.table("scores"))})
        for name, run in runs.items()
    }
    changes = {name: change(runs[name].verdict, run.verdict) for name, run in judged.items()}
    if any(changes.values()):
        pack(judged, folder)
    yield from ((name, what) for name, what in changes.items() if what is not None)


def main() -> None:
    """Judge what lies below the folders that are named."""
    if not sys.argv[1:]:
        sys.exit("name at least one folder of finished runs, such as results.")
    for folder in map(Path, sys.argv[1:]):
        for file in sorted(folder.rglob("verdict.json")):
            if (file.parent / "scores.parquet").is_file() and (what := rejudge_run(file)) is not None:
                sys.stdout.write(f"{file.parent}: {what}\n")
        for file in sorted(folder.rglob(FACTS)):
            for name, what in rejudge_packed(file.parent):
                sys.stdout.write(f"{file.parent}, {name}: {what}\n")


if __name__ == "__main__":
    main()
