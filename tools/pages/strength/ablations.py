"""What each choice of an attack buys: all cases at a glance, and tables a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from encircle.report.formats import plain_estimate, points
from encircle.scoring.gates import direction, interval_of
from encircle.strength.ablation import AS_PUBLISHED, FACTORS, GIVEN, JOINT
from encircle.strength.gates import Facts
from encircle.strength.side_by_side import title_of

from .entries import label_retention, means, settings_diff
from .paper import unlike_the_paper

PHASES = {
    "choice": "One choice at a time",
    "together": "What helped, together",
    "report": "Reported, on a draw that chose nothing",
}

_HEAD = (
    "| attack | effect over the given | effect | Jaccard, clean → attack | L1, clean → attack | label kept | accuracy, points |\n"
    "|---|---|---|---|---|---|---|\n"
)

_MARKS = {1: "**", 0: "", -1: "*"}
"""What stands around an effect whose interval lies above zero, includes it, or lies below."""


def ablation_parts(result: Facts, command: str) -> list[str]:
    """The paragraphs and the tables of a case."""
    rows: Sequence[Facts] = result["rows"]
    first = rows[0]
    parts = [
        f"### {result['title']}",
        f"{first['targets']} targets x {first['victims']} victims an attack. Best where settings are chosen: **{title_of(result['chosen'])}**.",
        f"As given: {settings_diff(first['attack'], {})}.{command}",
    ]
    for phase, words in PHASES.items():
        phase_rows = [row for row in rows if row["phase"] == phase]
        if phase_rows:
            parts += [f"**{words}**", *_notable(phase_rows, first["attack"]), _table(phase_rows)]
    return parts


def effects_of(result: Facts) -> tuple[str, dict[str, Facts]]:
    """The title of an ablation, and the effect of each choice by itself."""
    return str(result["title"]), {row["name"]: row["gain"] for row in result["rows"] if row["phase"] == "choice"}


def at_a_glance(cases: Sequence[tuple[str, Mapping[str, Facts]]]) -> str:
    """A row a choice, in the order of `FACTORS` and then those that it no longer has, and a column a case."""
    tried = dict.fromkeys(name for _, effects in cases for name in effects if name != GIVEN)
    order = [name for name in FACTORS if name in tried] + [name for name in tried if name not in FACTORS]
    lines = [f"| choice | {' | '.join(title for title, _ in cases)} |", "|---" * (1 + len(cases)) + "|"]
    lines += [f"| {name} | {' | '.join(_effect(effects.get(name)) for _, effects in cases)} |" for name in order]
    return "\n".join(lines)


def _effect(effect: Facts | None) -> str:
    if effect is None:
        return "–"
    mark = _MARKS[direction(interval_of(effect))]
    return f"{mark}{plain_estimate(effect)}{mark}"


def _notable(rows: Sequence[Facts], own: Facts) -> list[str]:
    """What a name alone does not say: the settings that helped together, and what is not the paper's in what has its name."""
    lines = [
        f"Together: {settings_diff(row['attack'], own)}."
        for row in rows
        if row["name"] == JOINT and row["phase"] == "together"
    ]
    lines += [
        sentence.strip()
        for row in rows
        if row["name"] == AS_PUBLISHED and (sentence := unlike_the_paper(AS_PUBLISHED, row["attack"]))
    ]
    return lines


def _table(rows: Sequence[Facts]) -> str:
    lines = [
        f"| {title_of(row['name'])} | {plain_estimate(row['gain'])} | {plain_estimate(row['shift'])} | "
        f"{means(row['jaccard_clean'], row['jaccard_attack'])} | {means(row['l1_clean'], row['l1_attack'])} | {label_retention(row)} | "
        f"{points(row['accuracy_change'])} |"
        for row in rows
    ]
    return _HEAD + "\n".join(lines)
