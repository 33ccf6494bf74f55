"""What stands beside the scores of a table: what they were made with, what else was measured, and whose accuracy falls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..audit.case_file import read_yaml
from ..report.formats import decimal, plain_estimate
from .results import CellResult

NOTE = "note.md"
"""Beside collected cells: what a reader has to know about how they came about, or what people concluded from them."""

PER_CLASS = "poison samples to 100 clean ones of their class"

_SCORES = {
    "jaccard_soft": "soft Jaccard, clean → IMF",
    "cosine": "cosine, clean → IMF",
    "spearman": "rank correlation, clean → IMF",
    "mass_goal": "share of the map inside the desired region, clean → IMF",
}


def note(folder: Path) -> list[str]:
    """What stands in a folder's note, if it has one."""
    path = folder / NOTE
    return [path.read_text("utf-8").strip()] if path.is_file() else []


def settings_of_cells(cells: Mapping[str, CellResult]) -> str:
    """How victims learn and poison is crafted, by the committed case of each cell."""
    explainers_of: dict[str, list[str]] = {}
    for name, cell in cells.items():
        explainers_of.setdefault(_settings(cell), []).append(name.partition("-")[2].upper())
    if len(explainers_of) == 1:
        return f"{next(iter(explainers_of))}."
    return " ".join(f"{' and '.join(explainers)}: {sentence}." for sentence, explainers in explainers_of.items())


def _settings(cell: CellResult) -> str:
    case = read_yaml(cell.run.case, "case.yaml")
    attack, recipe, goal = case["attack"], case["recipe"], case["goal"]
    start = {"scratch": "from scratch", "checkpoint": "from shared weights"}[recipe["start"]]
    frozen = f", {recipe['frozen_stages']} stages frozen" if recipe["frozen_stages"] else ""
    parts = [f"victims {start}{frozen}, {recipe['epochs']} epochs of {recipe['optimiser']} at {recipe['lr']:g}"]
    if goal["kind"] in {"features", "units"}:
        parts.append(f"goals of {goal['count']} {goal['kind']}")
    surrogates = "one surrogate" if attack["models"] == 1 else f"{attack['models']} surrogates"
    momentum = f", momentum {attack['momentum']:g}" if attack["momentum"] else ""
    parts.append(
        f"IMF with {surrogates} for {attack['epochs']} epochs, distance `{attack['distance']}`, step `{attack['step']}`{momentum}, "
        f"{attack['target_share']:.0%} of the bases T itself"
    )
    return "; ".join(parts)


def measures(cells: Mapping[str, CellResult]) -> str:
    """Our scores, the poison and what happens to other samples' maps, as a table with a column a cell."""
    columns = [_measured(cell) for cell in cells.values()]
    names = [name for name in columns[0] if any(column[name] is not None for column in columns)]
    rows = [f"| {name} | {' | '.join(column[name] or '–' for column in columns)} |" for name in names]
    titles = [name.partition("-")[2].upper() for name in cells]
    return f"| beside the scores | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}\n" + "\n".join(rows)


def _measured(cell: CellResult) -> dict[str, str | None]:
    scores, attack = cell.table("scores"), cell.verdict["attack"]
    entries: dict[str, str | None] = {
        "effect on Jaccard": plain_estimate(cell.attack["jaccard_change"]),
        "effect on L1": plain_estimate(cell.attack["l1_change"]),
    }
    for column, title in _SCORES.items():
        means = [_mean(_victims(cell, scores, arm)[column]) for arm in ("clean", attack)]
        entries[title] = None if None in means else " → ".join(f"{mean:.2f}" for mean in means)
    entries["collateral drift (other samples' maps), another seed → IMF"] = " → ".join(
        decimal(arm["drift"]["mean"]) for arm in (cell.arm("clean"), cell.attack)
    )
    poison = cell.table("poisons").filter(pl.col("arm") == attack)
    entries[PER_CLASS] = _range(poison["share_of_class"], 100, ".0f", "")
    entries["largest change of a value"] = _range(poison["linf"], 1, ".3f", "")
    entries["PSNR"] = None if poison["psnr"].null_count() == len(poison) else _range(poison["psnr"], 1, ".1f", " dB")
    return entries


def _victims(cell: CellResult, scores: pl.DataFrame, arm: str) -> pl.DataFrame:
    """The rows of an arm's victims, without the clean ones that measure the seed null."""
    return scores.filter((pl.col("arm") == arm) & (pl.col("seed") < cell.verdict["victims"]))


def _mean(values: pl.Series) -> float | None:
    known = values.fill_nan(None).drop_nulls()
    return None if known.is_empty() else float(np.mean(known.to_numpy()))


def _range(values: pl.Series, scale: float, digits: str, unit: str) -> str:
    low, high = (f"{value * scale:{digits}}" for value in (values.min(), values.max()))  # type: ignore[operator]
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def accuracy_by_class(cells: Mapping[str, CellResult]) -> str | None:
    """How the accuracy changes by the class that target and poison are of, as a table; None where there are more than two."""
    first = next(iter(cells.values()))
    classes = first.environment["data"]["classes"]
    if len(classes) != 2:
        return None
    rows = []
    for name, cell in cells.items():
        scores, poison = cell.table("scores"), cell.table("poisons")
        for label, title in enumerate(classes):
            targets = [target["row"] for target in cell.environment["targets"] if target["label"] == label]
            if not targets:
                continue
            of_class = scores.filter(pl.col("target").is_in(targets))
            before = _mean(_victims(cell, of_class, "clean")["accuracy"])
            entries: list[Any] = [name.partition("-")[2].upper(), title, len(targets)]
            share = poison.filter(pl.col("target").is_in(targets) & (pl.col("arm") == cell.verdict["attack"]))
            entries.append(_range(share["share_of_class"], 100, ".0f", ""))
            for arm in ("base", "noise", cell.verdict["attack"]):
                after = _mean(_victims(cell, of_class, arm)["accuracy"])
                entries.append("–" if after is None or before is None else f"{100 * (after - before):+.1f}")
            rows.append(f"| {' | '.join(map(str, entries))} |")
    head = f"| cell | class of target and poison | targets | {PER_CLASS} | unperturbed bases | random noise | IMF |"
    return f"{head}\n|---|---|---|---|---|---|---|\n" + "\n".join(rows)
