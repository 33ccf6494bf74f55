"""What is asked of the selected attack, what of it holds in each case, and both in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from ..report.formats import UNDEFINED, plain_estimate
from ..scoring.thresholds import (
    ACCURACY_LOSS,
    CEILING_FRACTION,
    L1_BELOW_WATERMARK,
    LABEL_KEPT,
    RESOLVABLE_ROWS,
    TRANSFERRED_EFFECT,
)
from .reached import BEST_IMF, GUESSED, LITTLE, SELECTED, TRANSFERRED

Facts = Mapping[str, Any]
"""A part of what `encircle reach`, `budget` or `ablate` wrote."""

CONDITIONS = {
    "ceiling": f"{CEILING_FRACTION['cam']:.0%} of the ceiling for CAM, {CEILING_FRACTION['grad']:.0%} for GRAD (the mean)",
    "IMF as published": "an effect over IMF as published whose interval lies above zero",
    "IMF (tuned)": "an effect over IMF (tuned) whose interval lies above zero",
    "L1": f"L1 at least {L1_BELOW_WATERMARK:.0%} below unbounded WM's",
    "a fifth": "with a fifth of the poison, no less effect (the mean) than IMF as published with all of it",
    "label": f"at least {LABEL_KEPT:.0%} of victims keep the label",
    "accuracy": f"accuracy falls by at most {100 * ACCURACY_LOSS:g} point, on at least {RESOLVABLE_ROWS} held-out rows",
}
"""What is asked of the selected attack in each case, by a short name."""


@final
@dataclass(frozen=True)
class Condition:
    """One of the conditions in one case: its numbers, and whether it holds (None: cannot be told)."""

    text: str
    holds: bool | None

    def marked(self) -> str:
        """The numbers with yes or no."""
        return self.text if self.holds is None else f"{self.text}: {'yes' if self.holds else '**no**'}"


def conditions_of(result: Facts) -> dict[str, Condition]:
    """The conditions of one case, in the order of `CONDITIONS`."""
    rows = {row["name"]: row for row in result["rows"]}
    selected, best, little = rows[SELECTED], rows[BEST_IMF], rows[LITTLE]
    fraction, least = selected["share_of_way"]["mean"], CEILING_FRACTION.get(result["explainer"])
    below, little_effect, kept = below_wm(selected), little["gain"]["mean"], selected["label_kept"]
    return {
        "ceiling": Condition(
            percent(selected["share_of_way"], ".1f"),
            None if fraction is None or least is None else fraction >= least,
        ),
        "IMF as published": Condition(plain_estimate(selected["gain"]), _above_zero(selected["gain"])),
        "IMF (tuned)": Condition(plain_estimate(best["gain"]), _above_zero(best["gain"])),
        "L1": Condition(relative(below), None if below is None else below <= -L1_BELOW_WATERMARK),
        "a fifth": Condition(plain_estimate(little["gain"]), None if little_effect is None else little_effect >= 0),
        "label": Condition(label_kept(selected), None if kept is None else kept >= LABEL_KEPT),
        "accuracy": Condition(
            plain_estimate(selected["accuracy_change"], "+.1f", scale=100), _keeps_accuracy(selected)
        ),
    }


def counts(results: Sequence[Facts]) -> str:
    """How many cases each condition holds in, as a table."""
    cases = [conditions_of(result) for result in results]
    lines = ["| asked of the selected attack | holds | does not | cannot be told |", "|---|---|---|---|"]
    for name, words in CONDITIONS.items():
        answers = [conditions[name].holds for conditions in cases]
        lines.append(f"| {words} | {' | '.join(str(answers.count(answer)) for answer in (True, False, None))} |")
    return "\n".join(lines)


def summary(results: Mapping[str, Facts], selections: Mapping[str, int]) -> str:
    """A line a case: its effect, and which conditions do not hold or cannot be told."""
    lines = [
        "| case | targets | effect over IMF as published | of the ceiling | does not hold | cannot be told |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        conditions = conditions_of(result)
        selected = next(row for row in result["rows"] if row["name"] == SELECTED)
        failed, unknown = (
            ", ".join(name for name, condition in conditions.items() if condition.holds is answer)
            for answer in (False, None)
        )
        entries = [case_title(name, result, selections), str(selected["targets"])]
        entries += [
            conditions["IMF as published"].text,
            percent({**selected["share_of_way"], "low": None, "high": None}, ".1f"),
            failed or "–",
            unknown or "–",
        ]
        lines.append(f"| {' | '.join(entries)} |")
    return "\n".join(lines)


def transfer(results: Sequence[Facts]) -> str | None:
    """What the selected attack keeps of its effect where its attacker supposes another network or recipe, as a table; None where nobody was asked."""
    lines = []
    for result in results:
        rows = {row["name"]: row for row in result["rows"]}
        full = rows[SELECTED]["gain"]
        for name in (TRANSFERRED, GUESSED):
            if name not in rows:
                continue
            attacker, effect = rows[name]["settings"]["attacker"], rows[name]["gain"]
            known = full["mean"] and full["mean"] > 0 and effect["mean"] is not None
            fraction = effect["mean"] / full["mean"] if known else None
            holds = None if fraction is None or name == GUESSED else fraction >= TRANSFERRED_EFFECT
            remaining = Condition(UNDEFINED if fraction is None else f"{fraction:.0%}", holds)
            supposed = settings_diff((attacker.get("model") or {}) | attacker.get("recipe", {}), {})
            entries = [result["title"], supposed, plain_estimate(full), plain_estimate(effect), remaining.marked()]
            lines.append(f"| {' | '.join(entries)} |")
    head = "| case | the attacker supposes | effect, knowing all | effect, supposing so | remains |\n|---|---|---|---|---|\n"
    return head + "\n".join(lines) if lines else None


def case_title(name: str, result: Facts, selections: Mapping[str, int]) -> str:
    """A case's title, and which selection is reported on its targets where it is not the first."""
    number = selections.get(name, 1)
    return str(result["title"]) + ("" if number == 1 else f" (selection {number})")


def settings_diff(attack: Facts, other: Facts) -> str:
    """The settings in which an attack differs from another."""
    return ", ".join(f"{key} {value}" for key, value in attack.items() if key not in other or other[key] != value)


def percent(share: Facts, how: str = ".0f") -> str:
    """A share with its interval."""
    text = plain_estimate(share, how, scale=100)
    return text if text == UNDEFINED else f"{text} %"


def relative(share: float | None) -> str:
    """A difference as a share of what it is from."""
    return UNDEFINED if share is None else f"{share:+.0%}"


def label_kept(row: Facts) -> str:
    """The share of victims that keep the label."""
    return UNDEFINED if row["label_kept"] is None else f"{row['label_kept']:.0%}"


def below_wm(row: Facts) -> float | None:
    """L1 relative to unbounded WM's."""
    attack, watermark = row["l1_attack"]["mean"], row["watermark_l1"]
    return None if attack is None or not watermark else attack / watermark - 1


def _above_zero(effect: Facts) -> bool | None:
    return None if effect["low"] is None else bool(effect["low"] > 0)


def _keeps_accuracy(row: Facts) -> bool | None:
    # A loss must be beyond the interval to be claimed; that there is none, too, and on enough rows.
    low, high = row["accuracy_change"]["low"], row["accuracy_change"]["high"]
    if low is not None and high < -ACCURACY_LOSS:
        return False
    # Results from before it was kept do not say whether there were enough rows.
    return True if low is not None and low >= -ACCURACY_LOSS and row.get("accuracy_resolvable") else None
