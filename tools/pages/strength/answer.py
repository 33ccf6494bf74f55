"""The answer: in how many cases each gate holds, a line a case, and what another attacker reaches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from encircle.scoring import facts_of
from encircle.scoring.gates import Gate
from encircle.scoring.thresholds import (
    ACCURACY_LOSS,
    CEILING_FRACTION,
    L1_BELOW_WATERMARK,
    LABEL_KEPT,
    RESOLVABLE_ROWS,
    TRANSFERRED_EFFECT,
)
from encircle.strength.gates import (
    ACCURACY,
    CEILING,
    FIFTH,
    GATES,
    L1,
    LABEL,
    OVER_PUBLISHED,
    OVER_TUNED,
    Facts,
    gates_of,
    transfers_of,
)
from encircle.strength.reached import SELECTED

from .committed import damage_of, remedy, results_of, selections_of
from .entries import case_title, effect, marked, measured, percent, settings_diff

PICTURE = "![How far each attack bends each case's explanation](pictures/strength.png)"

ASKED = {
    CEILING: f"{CEILING_FRACTION['cam']:.0%} of the ceiling for CAM, {CEILING_FRACTION['grad']:.0%} for GRAD (the mean)",
    OVER_PUBLISHED: f"an effect over {OVER_PUBLISHED} whose interval lies above zero",
    OVER_TUNED: f"an effect over {OVER_TUNED} whose interval lies above zero",
    L1: f"L1 at least {L1_BELOW_WATERMARK:.0%} below unbounded WM's",
    FIFTH: f"with a fifth of the poison, no less effect (the mean) than {OVER_PUBLISHED} with all of it",
    LABEL: f"at least {LABEL_KEPT:.0%} of victims keep the label",
    ACCURACY: f"accuracy falls by at most {100 * ACCURACY_LOSS:g} point, on at least {RESOLVABLE_ROWS} held-out rows",
}
"""What each gate asks of the selected attack."""

TRANSFER = (
    f"Another attacker: what remains of the effect over {OVER_PUBLISHED} where the attacker supposes another network or recipe than the victims'. "
    f"On another network at least {TRANSFERRED_EFFECT:.0%} is asked for."
)


def answer(results: Path) -> str:
    """The answer as Markdown: the picture, how many cases each gate holds in, a line a case, and what another attacker reaches.

    Args:
        results: as for `page`.

    Raises:
        InputError: a file is damaged.
    """
    reached, selections = results_of(results, "reach"), selections_of(results)
    judged: dict[str, dict[str, Gate]] = {}
    for name, result in reached.items():
        with damage_of(f"{name} in {results / 'reach'}.json", remedy("reach")):
            judged[name] = gates_of(result)
    parts = [PICTURE, _counts(list(judged.values())), _summary(reached, judged, selections)]
    if (table := transfer_table(list(reached.values()))) is not None:
        parts += [TRANSFER, table]
    return "\n\n".join(parts)


def _counts(cases: Sequence[dict[str, Gate]]) -> str:
    """How many cases each gate holds in."""
    lines = ["| asked of the selected attack | holds | does not | cannot be told |", "|---|---|---|---|"]
    for name in GATES:
        answers = [gates[name].answer for gates in cases]
        numbers = (str(answers.count(answer)) for answer in ("holds", "does not", "undecided"))
        lines.append(f"| {ASKED[name]} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _summary(reached: dict[str, Facts], judged: dict[str, dict[str, Gate]], selections: dict[str, int]) -> str:
    """A line a case: its effect, and which gates do not hold or are undecided."""
    lines = [
        f"| case | targets | effect over {OVER_PUBLISHED} | of the ceiling | does not hold | cannot be told |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in reached.items():
        gates = judged[name]
        selected = next(row for row in result["rows"] if row["name"] == SELECTED)
        failed, undecided = (
            ", ".join(gate.name for gate in gates.values() if gate.answer == answer)
            for answer in ("does not", "undecided")
        )
        fraction = {**facts_of(gates[CEILING].measured), "low": None, "high": None}
        entries = [
            case_title(name, result, selections),
            str(selected["targets"]),
            measured(gates[OVER_PUBLISHED]),
            percent(fraction, ".1f"),
            failed or "–",
            undecided or "–",
        ]
        lines.append(f"| {' | '.join(entries)} |")
    return "\n".join(lines)


def transfer_table(reached: Sequence[Facts]) -> str | None:
    """What attackers keep of the effect who suppose another network or recipe; None where nobody was asked."""
    lines = []
    for result in reached:
        for transfer in transfers_of(result):
            entries = [
                result["title"],
                settings_diff(transfer.supposed, {}),
                effect(transfer.effect_knowing),
                effect(transfer.effect_supposing),
                marked(transfer.remaining),
            ]
            lines.append(f"| {' | '.join(entries)} |")
    head = "| case | the attacker supposes | effect, knowing all | effect, supposing so | remains |\n|---|---|---|---|---|\n"
    return head + "\n".join(lines) if lines else None
