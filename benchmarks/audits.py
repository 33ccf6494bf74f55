"""A whole audit over the same audit done the straightforward way: wall time, and how far the scores are apart."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.measure import RESULTS, ratios, save, say
from benchmarks.straightforward import Scores, audit_plainly
from encircle.audit import Audit, Case, read_case
from encircle.audit.computing import computing
from encircle.audit.models import ModelStore
from encircle.audit.progress import Silent, WorkLog
from encircle.audit.run import run_audit

SCORES = ("l1", "jaccard_soft", "cosine", "probability", "accuracy", "drift")
DIGITS = """
data: {kind: digits, side: 32, pretrain: 0.5}
model: {kind: small-resnet}
pretraining: {epochs: 30, lr: 0.05}
goal: {kind: region, name: mid-left}
attack: {kind: imf, models: 4, epochs: 2}
budget: {fraction: 0.1, epsilon: 0.1}
targets: 2
victims: 2
seed: 0
"""
LARGE = """
data: {kind: digits, side: 48, pretrain: 0.5}
model: {kind: resnet13}
pretraining: {epochs: 4, lr: 0.02}
goal: {kind: region, name: mid-left}
attack: {kind: imf, models: 4, epochs: 1}
budget: {fraction: 0.1, epsilon: 0.1}
targets: 1
victims: 2
references: 1
seed: 0
"""
TABLE = """
data: {kind: breast-cancer, pretrain: 0.3}
model: {kind: two-layer, hidden: 32}
pretraining: {epochs: 30, lr: 0.05, batch_size: 32}
goal: {kind: features, count: 6}
attack: {kind: imf, models: 4, epochs: 10}
budget: {fraction: 0.1, epsilon: 0.1}
targets: 2
victims: 3
seed: 0
"""
CASES = {
    "digits at 48 px, resnet13, conv1 to layer2 frozen": (
        LARGE,
        "{start: checkpoint, frozen_stages: 3, epochs: 2, lr: 0.01}",
    ),
    "digits, full fine-tuning": (DIGITS, "{start: checkpoint, frozen_stages: 0, epochs: 5, lr: 0.01}"),
    "digits, 3 of 4 stages frozen": (DIGITS, "{start: checkpoint, frozen_stages: 3, epochs: 5, lr: 0.01}"),
    "digits, all stages frozen": (DIGITS, "{start: checkpoint, frozen_stages: 4, epochs: 5, lr: 0.05}"),
    "breast-cancer table, full fine-tuning": (TABLE, "{start: checkpoint, epochs: 20, lr: 0.05, batch_size: 32}"),
}


def cases_of(name: str) -> list[Case]:
    """One case an explainer."""
    text, recipe = CASES[name]
    table = text is TABLE
    return [
        read_case(
            f"{text.replace('kind: features, count: 6', 'kind: units, count: 6') if table and explainer == 'cam' else text}"
            f"recipe: {recipe}\nexplainer: {{kind: {explainer}}}\n",
            [],
            name,
        )
        for explainer in ("cam", "grad")
    ]


def with_the_library(cases: list[Case], folder: Path) -> tuple[float, list[dict[Any, Any]]]:
    """Seconds and scores, from nothing but the starting weights, which are learnt before."""
    audits = [Audit.from_case(case) for case in cases]
    for audit in audits:  # both ways have the starting weights
        _ = ModelStore(audit, audit.data.check(), WorkLog(Silent()), cache=folder / "cache").source
    scores = []
    started = time.perf_counter()
    for audit in audits:
        frame = pl.read_parquet(run_audit(audit, folder).folder / "scores.parquet")
        scores.append({(r["target"], r["arm"], r["seed"]): r for r in frame.iter_rows(named=True)})
    return time.perf_counter() - started, scores


def straightforwardly(cases: list[Case], rows: list[list[int]]) -> tuple[float, list[Scores]]:
    """The same the plain way."""
    audits = [Audit.from_case(case) for case in cases]
    starts = []
    for audit in audits:
        source = ModelStore(audit, audit.data.check(), WorkLog(Silent())).source
        starts.append(source.checkpoint)
    scores = []
    started = time.perf_counter()
    for audit, targets, start in zip(audits, rows, starts, strict=True):
        with computing(audit.settings.threads):
            scores.append(audit_plainly(audit, targets, start))
    return time.perf_counter() - started, scores


def largest_differences(first: list[dict[Any, Any]], second: list[Scores]) -> dict[str, float]:
    """The largest difference of each score, and the largest of its mean over an arm."""
    worst: dict[str, float] = {}
    for name in SCORES:
        differences, means = [0.0], [0.0]
        for ours, plain in zip(first, second, strict=True):
            values = {key: (float(ours[key][name]), float(plain[key][name])) for key in plain}
            differences += [abs(a - b) for a, b in values.values() if np.isfinite(a) and np.isfinite(b)]
            for arm in {key[1] for key in plain}:
                pairs = np.array([pair for key, pair in values.items() if key[1] == arm])
                means.append(float(abs(np.diff(np.nanmean(pairs, axis=0))[0])))
        worst[name] = round(max(differences), 6)
        worst[f"{name}, mean of an arm"] = round(max(means), 6)
    return worst


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--repeats", type=int, default=2)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    saved = RESULTS / "audits.json"
    rows = json.loads(saved.read_text(encoding="utf-8"))["figures"] if saved.is_file() else []
    rows = [row for row in rows if row["case"] in CASES and row["case"] not in wanted.cases]
    for name in wanted.cases:
        cases, ours, plain, difference = cases_of(name), [], [], {}
        for repeat in range(wanted.repeats):
            with tempfile.TemporaryDirectory() as folder:
                spent, actual = with_the_library(cases, Path(folder))
            targets = [sorted({key[0] for key in scores}) for scores in actual]
            slow, expected = straightforwardly(cases, targets)
            ours.append(spent)
            plain.append(slow)
            difference = largest_differences(actual, expected)
            say(
                f"{name}, repeat {repeat + 1}: {spent:.1f} s, straightforward {slow:.1f} s: {slow / spent:.2f} times; apart {difference}"
            )
        rows.append(
            {
                "case": name,
                "faster": ratios(plain, ours),
                "seconds": round(float(np.median(ours)), 1),
                "straightforward seconds": round(float(np.median(plain)), 1),
                "scores apart": difference,
            }
        )
        rows.sort(key=lambda row: list(CASES).index(row["case"]))
        save("audits", "make bench", rows)


if __name__ == "__main__":
    main()
