"""What holds the cells back: what poison of any kind costs, how far models could be bent, and what a larger budget or more pixels would change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..report.formats import UNDEFINED, decimal, plain_estimate
from ..score_names import JUDGED_SCORES
from ..scoring import facts_of
from .beside import accuracy_by_class, note
from .gates import Ceiling, Room, ceiling_of, unbent_models
from .kdd21 import CEILING, LIMITS, Part
from .results import CellResult, read_cells
from .tables import OTHERS, accuracy_change, changes_of, l1_of, title_of


def what_holds_back(results: Path, tables: Mapping[Part, Mapping[str, CellResult]]) -> list[str]:
    """The section, in paragraphs; none without results.

    Args:
        results: what was collected.
        tables: the cells of each table.
    """
    attacked = {name: cell for cells in tables.values() for name, cell in cells.items()}
    cells = read_cells(results / "limits")
    bent = {name.split(" · ", 1)[0]: cell for name, cell in cells.items() if name.endswith(f" · {CEILING}")}
    varied = {name: cell for name, cell in cells.items() if not name.endswith(f" · {CEILING}")}
    parts = []
    if attacked:
        parts += [
            "## What holds the cells back",
            "Poison is a tenth of the set and all of one class, so that accuracy may change whatever is crafted into it. Change of accuracy in points, on "
            "held-out rows, of as many unperturbed or noisy samples beside IMF's:",
            _accuracy(attacked),
        ]
        by_class = [table for cells in tables.values() if cells and (table := accuracy_by_class(cells))]
        if by_class:
            parts += ["By the class that target and poison are of, where there are two:", *by_class]
        parts += note(results / "limits")
    if bent:
        parts += [
            "The ceiling is what a clean victim's explanation can be bent to by training the model itself on L_adv beside the clean data, keeping the "
            "target's label and all but a point of accuracy ([method](method.md#evidence)): a map that the network could give, whether or not poison can "
            "bring it there. Where no attempt keeps both and comes nearer, a model stays as it was, is not bent, and counts all the same. IMF's fraction of "
            "the ceiling is its effect in the tables above over the ceiling's, where both are of the same targets "
            "(they are drawn among what all clean victims get right, which fewer victims leave more of).",
            _ceilings(bent, attacked),
            *_room(bent, attacked),
        ]
    if varied:
        parts += [
            "IMF with one thing changed at a time, on fewer targets (dogs also of five breeds and with two surrogates, so that every limit can have a run of "
            f"its own): effect on Jaccard, then L1, then the change of accuracy in points. {OTHERS}",
            changes_of(varied, "limit", LIMITS),
            changes_of(varied, "limit", LIMITS, l1_of),
            changes_of(varied, "limit", LIMITS, accuracy_change),
        ]
    return parts


def _ceilings(bent: Mapping[str, CellResult], attacked: Mapping[str, CellResult]) -> str:
    rows = []
    for name, cell in bent.items():
        arms = cell.arm("clean"), cell.arm("ceiling")
        fraction = _fraction(ceiling_of(attacked[name], cell)) if name in attacked else "–"
        entries = [" → ".join(decimal(arm[metric]["mean"]) for arm in arms) for metric in JUDGED_SCORES]
        effect = plain_estimate(arms[1]["jaccard_change"])
        rows.append(f"| {' | '.join([title_of(name), *entries, effect, _count(unbent_models(cell)), fraction])} |")
    head = "| cell | Jaccard, clean → ceiling | L1, clean → ceiling | effect | not bent | IMF, of the ceiling |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(rows)


def _fraction(ceiling: Ceiling) -> str:
    if not ceiling.same_targets:
        return "other targets"
    return UNDEFINED if ceiling.fraction is None else f"{ceiling.fraction:.0%}"


def _count(models: tuple[int, int] | None) -> str:
    return "–" if models is None else f"{models[0]} of {models[1]}"


def _room(bent: Mapping[str, CellResult], attacked: Mapping[str, CellResult]) -> list[str]:
    """For cells whose maps did not move as they should: whether the network leaves room that the poison does not use."""
    lines = []
    for name in bent:
        if name not in attacked:
            continue
        ceiling = ceiling_of(attacked[name], bent[name])
        if ceiling.room is None:
            continue
        others = "" if ceiling.same_targets else " (of other targets)"
        lines.append(
            f"- {title_of(name)} falls short in Jaccard: bent directly, models change by {plain_estimate(facts_of(ceiling.ceiling))}{others}, "
            f"with IMF's poison by {plain_estimate(facts_of(ceiling.attack))}. {_ROOM[ceiling.room].format(unbent=_count(ceiling.unbent))}"
        )
    return ["\n".join(lines)] if lines else []


_ROOM: dict[Room, str] = {
    "says little": "With {unbent} models no attempt kept the label and all but a point of accuracy and came nearer, so that this ceiling says little about "
    "what the network could show.",
    "leaves room": "The network leaves room that so much poison does not use.",
    "no further": "Bent directly it hardly goes further with label and accuracy kept.",
}
"""What a ceiling says about a cell that falls short, in a sentence."""


def _accuracy(cells: Mapping[str, CellResult]) -> str:
    arms = {"base": "unperturbed bases", "noise": "random noise", "imf": "IMF"}
    rows = [
        f"| {title_of(name)} | {' | '.join(accuracy_change(cell, arm) for arm in arms)} |"
        for name, cell in cells.items()
    ]
    return f"| cell | {' | '.join(arms.values())} |\n|---|{'---|' * len(arms)}\n" + "\n".join(rows)
