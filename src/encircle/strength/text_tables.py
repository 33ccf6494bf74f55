"""What `encircle ablate` and `encircle reach` came to, as tables of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..report.formats import UNDEFINED, plain_estimate, points
from ..report.text_table import EFFECT, TextTable, mean, share
from ..scoring import facts_of
from .ablation import Ablation
from .reached import Reached
from .side_by_side import title_of


def ablation_table(ablation: Ablation) -> TextTable:
    """A row an attack, grouped by phase, with gaps between the phases."""
    rows, groups = list[tuple[str, ...]](), list[str]()
    phase = ""
    for row in ablation.rows:
        if phase and row.phase != phase:
            rows.append(())
            groups.append("")
        l1 = " → ".join(mean(row.cell[name]) for name in ("l1_clean", "l1_attack"))
        effects = plain_estimate(facts_of(row.effect_over_own)), plain_estimate(row.cell["shift"])
        rows.append((title_of(row.name), *effects, l1, *_cost(row.cell)))
        groups.append("" if row.phase == phase else row.phase)
        phase = row.phase
    return TextTable(
        "attack",
        ("effect over given", "effect", "L1", "kept", "points"),
        tuple(rows),
        tuple(groups),
        title=ablation.title,
        caption=f"Effect over given: Jaccard less that of the attack as given, paired by target and seed. {EFFECT}. "
        "Kept: the label. Points: the change of accuracy. Intervals are of 95 %. "
        "Rows of `report` are of the case's own split, targets and seeds, all others of a draw that served to choose.",
    )


def reach_table(attacks: tuple[Reached, ...]) -> TextTable:
    """A row an attack."""
    rows = []
    for attack in attacks:
        fraction, cell = attack.share["mean"], attack.cell
        rows.append(
            (
                title_of(attack.name),
                plain_estimate(facts_of(attack.effect_over_published)),
                plain_estimate(cell["shift"]),
                UNDEFINED if fraction is None else f"{fraction:.0%}",
                f"{mean(cell['l1_clean'])} → {mean(cell['l1_attack'])} ({mean({'mean': attack.watermark_l1})})",
                *_cost(cell),
            )
        )
    return TextTable(
        "attack",
        ("effect over published", "effect", "of ceiling", "L1 (unbounded WM)", "kept", "points"),
        tuple(rows),
        title="How far it reaches",
        caption=f"Effect over published: Jaccard less that of IMF as published, paired by target and seed. {EFFECT}. "
        "Of ceiling: the fraction of the reference ceiling, which bends the model itself. L1: clean → poisoned, in brackets the unbounded WM's. "
        "Kept: the label. Points: the change of accuracy. Intervals are of 95 %.",
    )


def _cost(cell: Mapping[str, Any]) -> tuple[str, str]:
    """What stands beside an attack's effect: the label kept, and the change of accuracy."""
    return share(cell["label_kept"]), points(cell["accuracy_change"])
