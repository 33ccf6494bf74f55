"""How little poison is enough: a table a case."""

from __future__ import annotations

from encircle.report.formats import plain_estimate, points
from encircle.strength.gates import Facts

from .entries import label_retention, means, settings_diff

_HEAD = "| poison | effect | Jaccard, clean → attack | L1, clean → attack | label kept | accuracy, points |\n|---|---|---|---|---|---|\n"


def budget_parts(result: Facts, command: str) -> list[str]:
    """The paragraphs and the table of a case."""
    lines = [
        f"| {dose['share']:.2%} | {plain_estimate(dose['shift'])} | {means(dose['jaccard_clean'], dose['jaccard_attack'])} | "
        f"{means(dose['l1_clean'], dose['l1_attack'])} | {label_retention(dose)} | {points(dose['accuracy_change'])} |"
        for dose in result["doses"]
    ]
    first = result["doses"][0]
    return [
        f"### {result['title']}",
        f"{first['targets']} targets x {first['victims']} victims, epsilon {result['epsilon']:g}, threshold {result['threshold']:g}. {result['sentence']}",
        f"Attack: {settings_diff(result['attack'], {})}.{command}",
        _HEAD + "\n".join(lines),
    ]
