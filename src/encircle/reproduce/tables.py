"""The paper's Tables 1 and 2 in its own layout, its numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from .kdd21 import Part
from .paper import PUBLISHED
from .results import CellResult, read_cells

TABLES: dict[Part, tuple[str, str]] = {
    "table1": ("dogs-grad", "dogs-cam"),
    "table2": ("fractures-grad", "fractures-cam"),
}
"""Cells of each table: GRAD, then CAM."""

_ARMS = {
    "clean": "no poison",
    "base": "unperturbed bases",
    "noise": "random noise",
    "watermark": "**WM**, ours",
    "watermark-projected": "WM inside the ε-ball, ours",
    "imf": "**IMF**, ours",
}


@final
@dataclass(frozen=True)
class Row:
    """One row: its name, then L1 of GRAD and CAM, then Jaccard of GRAD and CAM; and whether the paper printed it."""

    entries: tuple[str, str, str, str, str]
    published: bool


def rows_of(results: Path, name: Part) -> list[Row]:
    """The rows of a table, as far as its cells are finished; none if none is."""
    cells = read_cells(results / name)
    found = [cells.get(cell) for cell in TABLES[name]]
    if not any(found):
        return []
    rows = []
    for arm, title in _ARMS.items():
        scores = [None if cell is None else cell.arm(arm) for cell in found]
        entries = [_entry(score, metric) for metric in ("l1", "jaccard") for score in scores]
        if arm in {"watermark", "imf"}:
            place = 0 if arm == "watermark" else 1
            published = [PUBLISHED[cell] for cell in TABLES[name]]
            printed = [f"{one.l1[place]:.2f}" for one in published] + [f"{one.jaccard[place]:.2f}" for one in published]
            rows.append(Row((f"**{'WM' if arm == 'watermark' else 'IMF'}**, paper", *printed), published=True))  # type: ignore[arg-type]
        rows.append(Row((title, *entries), published=False))  # type: ignore[arg-type]
    return rows


def _entry(arm: Mapping[str, Any] | None, metric: str) -> str:
    if arm is None:
        return "not finished"
    value = arm[metric]
    if value["mean"] is None:
        return "undefined"
    return f"{value['mean']:.2f}" + ("" if value["low"] is None else f" [{value['low']:.2f}, {value['high']:.2f}]")


def sizes(cell: CellResult) -> str:
    """How much evidence a cell rests on."""
    data = cell.environment["data"]
    return (
        f"{cell.verdict['targets']} targets x {cell.verdict['victims']} victims an arm, {data['train']} training samples, "
        f"{cell.verdict['held_out']} held-out rows"
    )
