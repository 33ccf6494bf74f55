"""Whether each cell is reproduced, in a sentence, and a table of its gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..report.formats import UNDEFINED, decimal, plain_estimate
from ..scoring import facts_of
from ..scoring.gates import Gate
from ..scoring.thresholds import ACCURACY_LOSS, L1_BELOW_WATERMARK, LABEL_KEPT, RESOLVABLE_ROWS
from .gates import ACCURACY, JACCARD, L1, LABEL, MOVED, gates_of, outcome_of
from .results import CellResult
from .tables import title_of


def answer(cells: Mapping[str, CellResult]) -> str:
    """A line a cell: whether it is reproduced, and if not what is missing or cannot be told."""
    lines = [f"- **{title_of(name)}: {_sentence(cell)}" for name, cell in cells.items()]
    return "\n".join(lines) if lines else "Nothing is finished yet."


def gates_table(cells: Mapping[str, CellResult]) -> str:
    """A row a gate of each cell: what is asked, what was measured, and whether it holds."""
    rows = []
    for name, cell in cells.items():
        for gate in gates_of(cell):
            mark = {"holds": "yes", "does not": "**no**", "undecided": "cannot be told"}[gate.answer]
            rows.append(f"| {title_of(name)} | {_asked(gate)} | {_measured(gate, cell)} | {mark} |")
    return "| cell | condition | found | holds |\n|---|---|---|---|\n" + "\n".join(rows)


def _sentence(cell: CellResult) -> str:
    gates = gates_of(cell)
    moved, others = gates[0], gates[1:]
    outcome, measured = outcome_of(gates), _measured(moved, cell)
    failed, undecided = _listed(others, "does not"), _listed(others, "undecided")
    more = f" It cannot be told: {undecided}." if undecided else ""
    if outcome == "undecided":
        return f"cannot be told.** No interval is claimed ({measured})."
    if outcome == "not reproduced":
        nor = f" Nor: {failed}." if failed else ""
        return f"not reproduced.** The explanation did not move beyond the seed null ({measured}).{nor}{more}"
    if outcome == "in part":
        but = f", but not: {failed}" if failed else ""
        return f"in part.** The explanation moved ({measured}){but}.{more}"
    return f"reproduced.** All {len(gates)} conditions hold."


def _listed(gates: Sequence[Gate], answer: str) -> str:
    return "; ".join(_asked(gate) for gate in gates if gate.answer == answer)


def _asked(gate: Gate) -> str:
    """What a gate asks for."""
    return {
        MOVED: "an effect on Jaccard whose interval lies above zero",
        L1: f"L1 at least {L1_BELOW_WATERMARK:.0%} below WM's",
        JACCARD: f"Jaccard at least {gate.threshold:.2f}",
        LABEL: f"at least {LABEL_KEPT:.0%} of victims keep the label",
        ACCURACY: f"accuracy falls by at most {100 * ACCURACY_LOSS:g} point (upper end, on at least {RESOLVABLE_ROWS} rows)",
    }[gate.name]


def _measured(gate: Gate, cell: CellResult) -> str:
    """What a gate judges."""
    mean, low = gate.measured.mean, gate.measured.low
    if gate.name == MOVED:
        return plain_estimate(facts_of(gate.measured))
    if gate.name == ACCURACY:
        return "no interval" if low is None else f"at most {-100 * low:.1f} points, on {cell.verdict['held_out']} rows"
    if math.isnan(mean):
        return UNDEFINED
    return {L1: f"{mean:.1%} below", JACCARD: decimal(mean), LABEL: f"{mean:.0%}"}[gate.name]
