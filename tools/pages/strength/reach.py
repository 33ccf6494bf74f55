"""How far the selected attack reaches: what was asked of it in each case, and a table a case."""

from __future__ import annotations

from encircle.report.formats import plain_estimate
from encircle.strength.gates import ACCURACY, LABEL, OVER_PUBLISHED, OVER_TUNED, Facts, gates_of
from encircle.strength.reached import BEST_IMF, PUBLISHED, SELECTED
from encircle.strength.side_by_side import title_of

from .entries import (
    accuracy,
    against_watermark,
    case_title,
    control,
    label_retention,
    marked,
    means,
    percent,
    settings_diff,
)
from .paper import unlike_the_paper

GATES_HEAD = (
    f"| case | of the ceiling | effect over {OVER_PUBLISHED} | {OVER_TUNED}, likewise | L1 against WM's | with a fifth of the poison | "
    "effect, and of the strongest control | label kept | accuracy, points |\n|---|---|---|---|---|---|---|---|---|\n"
)

_HEAD = (
    "| attack | effect over the published | effect | of the ceiling | Jaccard, clean → attack | L1, clean → attack | L1 against WM's | label kept | "
    "accuracy, points (of noise) | strongest control, effect |\n|---|---|---|---|---|---|---|---|---|---|\n"
)


def gates_line(name: str, result: Facts, selections: dict[str, int]) -> str:
    """What was asked of a case's selected attack, and whether it holds."""
    gates = {gate: marked(judged) for gate, judged in gates_of(result).items()}
    selected = next(row for row in result["rows"] if row["name"] == SELECTED)
    beside = f"{plain_estimate(selected['shift'])}; {control(selected)}"
    label, points = gates.pop(LABEL), gates.pop(ACCURACY)
    return f"| {' | '.join([case_title(name, result, selections), *gates.values(), beside, label, points])} |"


def reach_parts(result: Facts, command: str) -> list[str]:
    """The paragraphs and the table of a case."""
    lines = []
    for row in result["rows"]:
        entries = [
            title_of(row["name"]),
            plain_estimate(row["gain"]),
            plain_estimate(row["shift"]),
            percent(row["share_of_way"]),
            means(row["jaccard_clean"], row["jaccard_attack"]),
            means(row["l1_clean"], row["l1_attack"]),
            against_watermark(row),
            label_retention(row),
            accuracy(row),
            control(row),
        ]
        lines.append(f"| {' | '.join(entries)} |")
    first, attacks = result["rows"][0], {row["name"]: row["settings"]["attack"] for row in result["rows"]}
    selected = settings_diff(attacks[SELECTED], attacks[BEST_IMF]) or "nothing"
    return [
        f"### {result['title']}",
        f"{first['targets']} targets x {first['victims']} victims an attack, finished on {result['device']}. Selected: {selected}."
        f"{unlike_the_paper(PUBLISHED, attacks[PUBLISHED])}{command}",
        _HEAD + "\n".join(lines),
    ]
