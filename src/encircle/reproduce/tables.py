"""The paper's Tables 1 and 2 in its own layout, its numbers beside ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..report.formats import decimal, plain_estimate
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
    columns = [cells.get(cell) for cell in TABLES[name]]
    if not any(columns):
        return []
    rows = []
    for arm, title in _ARMS.items():
        scores = [None if cell is None else cell.arm(arm) for cell in columns]
        entries = [_entry(score, metric) for metric in ("l1", "jaccard") for score in scores]
        if arm in {"watermark", "imf"}:
            index = 0 if arm == "watermark" else 1
            published = [PUBLISHED[cell] for cell in TABLES[name]]
            printed = [f"{paper.l1[index]:.2f}" for paper in published]
            printed += [f"{paper.jaccard[index]:.2f}" for paper in published]
            rows.append(Row((f"**{'WM' if arm == 'watermark' else 'IMF'}**, paper", *printed), published=True))  # type: ignore[arg-type]
        rows.append(Row((title, *entries), published=False))  # type: ignore[arg-type]
    return rows


def _entry(arm: Mapping[str, Any] | None, metric: str) -> str:
    if arm is None:
        return "not finished"
    return plain_estimate(arm[metric], ".2f")


def sizes(cell: CellResult) -> str:
    """How much evidence a cell rests on, as the beginning of a sentence."""
    data = cell.environment["data"]
    return (
        f"{cell.verdict['targets']} targets x {cell.verdict['victims']} victims an arm, {data['train']} training samples, "
        f"{cell.verdict['held_out']} held-out rows"
    )


def title_of(cell: str) -> str:
    """A cell's name for people."""
    data, _, explainer = cell.partition("-")
    return f"{data.capitalize()}, {explainer.upper()}"


def _jaccard_change(cell: CellResult) -> str:
    return plain_estimate(cell.attack["jaccard_change"])


def l1_of(cell: CellResult) -> str:
    """Mean L1 of the attack's victims."""
    return decimal(cell.attack["l1"]["mean"])


def accuracy_change(cell: CellResult, arm: str | None = None) -> str:
    """How the accuracy changes with the attack, or in another arm, in points."""
    return plain_estimate((cell.arm(arm) if arm else cell.attack)["accuracy_change"], "+.1f", scale=100)


OTHERS = (
    "Targets are drawn among what all clean victims get right: where those are others, because the victims learn otherwise, the targets may be too (°), and "
    "the difference is not of the setting alone."
)
"""What the mark of `changes_of` means."""


def changes_of(
    cells: Mapping[str, CellResult],
    heading: str,
    order: Iterable[str],
    entry: Callable[[CellResult], str] = _jaccard_change,
) -> str:
    """A table of something of each cell: a row a setting, a column a case; what has other targets than the column's first is marked (`OTHERS`).

    Args:
        cells: by name, which is a case and a setting (`"dogs-cam · ε = 0.2"`).
        heading: of the column of settings.
        order: of the settings; one that no cell has is left out.
        entry: what to show of a cell; its effect by default.
    """
    columns = list(dict.fromkeys(name.split(" · ", 1)[0] for name in cells))
    lines = []
    first: dict[str, list[int]] = {}
    for row in order:
        entries = []
        for case in columns:
            cell = cells.get(f"{case} · {row}")
            same = cell is None or first.setdefault(case, cell.targets) == cell.targets
            entries.append("–" if cell is None else f"{entry(cell)}{'' if same else ' °'}")
        if set(entries) != {"–"}:
            lines.append(f"| {row} | {' | '.join(entries)} |")
    return f"| {heading} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}\n" + "\n".join(lines)
