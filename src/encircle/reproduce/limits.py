"""What holds the cells back: what poison of any kind costs, how far models could be bent, and what a larger budget or more pixels would change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from ..report.formats import decimal, plain_estimate
from ..scoring.thresholds import ROOM_FACTOR, SHORTEST_CEILING_EFFECT
from .beside import accuracy_by_class, note
from .kdd21 import CEILING, LIMITS, Part
from .results import CellResult, claims, read_cells
from .tables import OTHERS, accuracy_change, changes_of, l1_of, title_of


def what_holds_back(results: Path, tables: Mapping[Part, Mapping[str, CellResult]]) -> list[str]:
    """The section, in paragraphs; none without results.

    Args:
        results: what was collected.
        tables: the cells of each table.
    """
    attacked = {name: cell for found in tables.values() for name, cell in found.items()}
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
            "bring it there. Where no attempt keeps both and comes nearer, a model stays as it was, is not bent, and counts all the same. IMF's share of the "
            "way is its change of Jaccard in the tables above over the ceiling's, where both are of the same targets "
            "(they are drawn among what all clean victims get right, which fewer victims leave more of).",
            _ceilings(bent, attacked),
            *_room(bent, attacked),
        ]
    if varied:
        parts += [
            "IMF with one thing changed at a time, on fewer targets (dogs also of five breeds and with two surrogates, so that every limit can have a run of "
            f"its own): change of Jaccard beyond the seed drift, then L1, then the change of accuracy in points. {OTHERS}",
            changes_of(varied, "limit", LIMITS),
            changes_of(varied, "limit", LIMITS, l1_of),
            changes_of(varied, "limit", LIMITS, accuracy_change),
        ]
    return parts


def _ceilings(bent: Mapping[str, CellResult], attacked: Mapping[str, CellResult]) -> str:
    rows = []
    for name, cell in bent.items():
        clean, ceiling = cell.arm("clean"), cell.arm("ceiling")
        way = ceiling["jaccard_change"]["mean"]
        share = _share(attacked[name], cell, way) if name in attacked else "–"
        entries = [" → ".join(decimal(arm[metric]["mean"]) for arm in (clean, ceiling)) for metric in ("jaccard", "l1")]
        entries = [title_of(name), *entries, plain_estimate(ceiling["jaccard_change"]), _of(unbent(cell)), share]
        rows.append(f"| {' | '.join(entries)} |")
    head = "| cell | Jaccard, clean → ceiling | L1, clean → ceiling | change of Jaccard | not bent | IMF's share of the way |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(rows)


def unbent(cell: CellResult) -> tuple[int, int] | None:
    """How many models stayed the clean victims that they began as, because no attempt kept label and accuracy and came nearer; and of how many."""
    if "scores" not in cell.run.tables:
        return None
    scores = cell.table("scores").select("target", "seed", "arm", "l1", "jaccard")
    bent, clean = (scores.filter(pl.col("arm") == arm).drop("arm") for arm in ("ceiling", "clean"))
    return len(bent.join(clean, on=["target", "seed", "l1", "jaccard"])), len(bent)


def _of(count: tuple[int, int] | None) -> str:
    return "–" if count is None else f"{count[0]} of {count[1]}"


def _room(bent: Mapping[str, CellResult], attacked: Mapping[str, CellResult]) -> list[str]:
    """For cells whose maps did not move as they should: whether the network leaves room that the poison does not use."""
    lines = []
    for name, cell in bent.items():
        if name not in attacked or all(c.holds is not False for c in claims(attacked[name]) if "Jaccard" in c.asked):
            continue
        most, ours = cell.arm("ceiling")["jaccard_change"], attacked[name].attack["jaccard_change"]
        if most["mean"] is None or ours["mean"] is None:
            continue
        others = "" if cell.targets == attacked[name].targets else " (of other targets)"
        lines.append(
            f"- {title_of(name)} falls short in Jaccard: bent directly, models change by {plain_estimate(most)}{others}, "
            f"with IMF's poison by {plain_estimate(ours)}. {why(most['mean'], ours['mean'], unbent(cell))}"
        )
    return ["\n".join(lines)] if lines else []


def why(most: float, ours: float, stayed: tuple[int, int] | None) -> str:
    """What the ceiling says about a cell that falls short; `stayed` is `unbent`'s count."""
    if stayed is not None and 2 * stayed[0] > stayed[1]:
        return (
            f"With {_of(stayed)} models no attempt kept the label and all but a point of accuracy and came nearer, so that this ceiling says little about "
            "what the network could show."
        )
    if most >= max(SHORTEST_CEILING_EFFECT, ROOM_FACTOR * ours):
        return "The network leaves room that so much poison does not use."
    return "Bent directly it hardly goes further with label and accuracy kept."


def _share(attacked: CellResult, bent: CellResult, way: float | None) -> str:
    if attacked.targets != bent.targets:
        return "other targets"
    mine = attacked.attack["jaccard_change"]["mean"]
    return "undefined" if mine is None or way is None or way < SHORTEST_CEILING_EFFECT else f"{mine / way:.0%}"


def _accuracy(cells: Mapping[str, CellResult]) -> str:
    arms = {"base": "unperturbed bases", "noise": "random noise", "imf": "IMF"}
    rows = [
        f"| {title_of(name)} | {' | '.join(accuracy_change(cell, arm) for arm in arms)} |"
        for name, cell in cells.items()
    ]
    return f"| cell | {' | '.join(arms.values())} |\n|---|{'---|' * len(arms)}\n" + "\n".join(rows)
