"""Synthetic study folders, true to docs/study-folder.md, written without running a study."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saved_run import write_run

Axes = Sequence[tuple[str, list[str], list[float] | None]]
BUDGETS: Axes = (
    ("budget.fraction", ["2%", "5%", "10%"], [0.02, 0.05, 0.1]),
    ("explainer.kind", ["CAM", "GRAD"], None),
    ("attack", ["IMF", "WM"], None),
)


def estimate(mean: float | None, half: float | None = 0.05) -> dict[str, float | None]:
    if mean is None or half is None:
        return {"mean": mean, "low": None, "high": None}
    return {"mean": mean, "low": mean - half, "high": mean + half}


NOTHING = estimate(None, None)


def cell(at: tuple[int, ...], title: str, number: int) -> dict[str, Any]:
    """A cell whose shift grows with its place on the first axis."""
    shift = 0.08 * (at[0] + 1 if at else 1) * (0.0 if len(at) > 2 and at[2] else 1.0)
    verdict = "FAIL" if shift > 0.1 else "WARN" if shift > 0.05 else "PASS"
    return {
        "at": list(at),
        "title": title,
        "verdict": verdict,
        "reason": {"FAIL": "bent", "WARN": "small", "PASS": "none"}[verdict],
        "sentence": f"The sentence of cell {number}.",
        "advice": ["Do something."],
        "attack": "imf",
        "attack_title": "IMF",
        "shift": estimate(shift),
        "p": 0.001,
        "p_adjusted": 0.012,
        "smallest_detectable_shift": 0.07,
        "drift": estimate(0.0, 0.02),
        "control": {"title": "random noise", "change": estimate(0.01)},
        "jaccard_clean": estimate(0.2),
        "jaccard_attack": estimate(0.2 + shift),
        "l1_clean": estimate(0.4),
        "l1_attack": estimate(0.4 - shift),
        "label_kept": 1.0,
        "label_lost": False,
        "accuracy_change": estimate(-0.003, 0.002),
        "accuracy_resolvable": False,
        "targets": 8,
        "victims": 3,
        "demonstration": False,
        "runs": [{"folder": f"run-{number}", "seed": 0, "verdict": verdict}],
        "missing": [],
    }


def failed(title: str, why: str = "the disk was full.", log: str | None = "logs/attack-1.log") -> dict[str, Any]:
    """What makes a cell one that did not finish."""
    none = dict.fromkeys(
        ("shift", "drift", "jaccard_clean", "jaccard_attack", "l1_clean", "l1_attack", "accuracy_change")
    )
    return {
        **dict.fromkeys(none, NOTHING),
        **dict.fromkeys(
            ("p", "p_adjusted", "smallest_detectable_shift", "control", "label_kept", "attack", "attack_title")
        ),
        "verdict": "ERROR",
        "reason": "error",
        "sentence": f"Nothing is known, because its run did not finish: {why}",
        "runs": [],
        "missing": [{"title": title, "why": why, "log": log}],
    }


def write_study(
    root: Path,
    axes: Axes = BUDGETS,
    *,
    change: Callable[[int, tuple[int, ...]], dict[str, Any] | None] = lambda number, at: {},
    kind: Any = "image",
    **facts: Any,
) -> Path:
    """A study with a run folder for every run of every cell; `change` alters a cell, or leaves it out with None."""
    cells = []
    for number, at in enumerate(itertools.product(*(range(len(labels)) for _, labels, _ in axes))):
        changes = change(number, at)
        if changes is not None:
            title = " · ".join(labels[place] for (_, labels, _), place in zip(axes, at, strict=True)) or "Study"
            cells.append({**cell(at, title, number), **changes})
    numeric = next((name for name, labels, values in axes if values and len(labels) > 1), None)
    runs = [run["folder"] for one in cells for run in one["runs"]]
    content = {
        "title": "How much is enough?",
        "verdict": "FAIL",
        "sentence": "The explanation can be bent in some cells.",
        "advice": ["Do not trust it."],
        "axes": [
            {"name": name, "title": f"the {name}", "labels": labels, "values": values} for name, labels, values in axes
        ],
        "dose": numeric,
        "family": len(cells),
        "threshold": 0.1,
        "cells": cells,
        "counts": {"runs": len(cells), "finished": len(runs), "tasks": {"attack": {"done": 7, "failed": 1}}},
        "seconds": {"attack": 312.5},
        "environment": {"versions": {"torch": "2.13.0"}, "python": "3.11", "platform": "Linux", "commit": "abc"},
        "study": "title: How much is enough?\n",
        **facts,
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "study.json").write_text(json.dumps(content))
    template = write_run(root / "template", kind=kind, size=32, targets=1)
    (template / "report.html").write_text("<!doctype html><title>A run</title><h1>A run's own report</h1>")
    for name in runs:
        if "/" not in name and not (root / "runs" / name).exists():
            shutil.copytree(template, root / "runs" / name, copy_function=os.link)
    shutil.rmtree(template)
    return root
