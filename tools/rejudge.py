"""Judge finished runs anew from their scores, after the rules of judging changed: `python tools/rejudge.py results runs/evidence ...`.

Rewrites each `verdict.json` below the folders that has its `scores.parquet` beside it. Nothing is trained, and no score changes; pages that are made of
verdicts are to be made again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

from encircle.audit.verdicts import judge
from encircle.storage import write_json


def judged_anew(file: Path) -> dict[str, Any]:
    """What the scores beside a `verdict.json` come to by the rules as they are, with the settings that it was judged by."""
    old = json.loads(file.read_text("utf-8"))
    return judge(
        pl.read_parquet(file.parent / "scores.parquet"),
        attack=old["attack"],
        titles={arm["arm"]: arm["title"] for arm in old["arms"]},
        victims=old["victims"],
        held_out=old["held_out"],
        threshold=old["threshold"],
        label_kept=old.get("label_kept_threshold", 0.9),  # verdicts from before they were kept are of the defaults
        minimum_targets=old.get("minimum_targets", 5),
    )


def rejudge(file: Path) -> str | None:
    """Judge one run anew; returns what became of its verdict, None if nothing of the file changed."""
    old = json.loads(file.read_text("utf-8"))
    new = {**old, **judged_anew(file)}
    if new == old:
        return None
    write_json(file, new)
    return f"{old['verdict']} -> {new['verdict']}" if old["verdict"] != new["verdict"] else "intervals"


def main() -> None:
    """Judge what lies below the folders that are named."""
    if not sys.argv[1:]:
        sys.exit("name at least one folder of finished runs, such as results.")
    for folder in map(Path, sys.argv[1:]):
        for file in sorted(folder.rglob("verdict.json")):
            if (file.parent / "scores.parquet").is_file() and (what := rejudge(file)) is not None:
                sys.stdout.write(f"{file.parent}: {what}\n")


if __name__ == "__main__":
    main()
