"""Entries of the tables: numbers, gates and settings as text."""

from __future__ import annotations

import math
from collections.abc import Callable

from encircle.report.formats import UNDEFINED, plain_estimate, points
from encircle.scoring import Interval, facts_of
from encircle.scoring.gates import Gate
from encircle.strength import gates
from encircle.strength.gates import Facts, l1_against_watermark


def percent(share: Facts, form: str = ".0f") -> str:
    """A share with its interval."""
    text = plain_estimate(share, form, scale=100)
    return text if text == UNDEFINED else f"{text} %"


def relative(share: float | None) -> str:
    """A difference as a share of what it is from."""
    return UNDEFINED if share is None or math.isnan(share) else f"{share:+.0%}"


def against_watermark(row: Facts) -> str:
    """An attack's L1 relative to the unbounded watermark's."""
    return relative(l1_against_watermark(row))


def label_retention(row: Facts) -> str:
    """The share of victims that keep the label."""
    return _share(row["label_kept"])


def means(clean: Facts, attack: Facts) -> str:
    """The means of clean and poisoned victims."""
    if clean["mean"] is None or attack["mean"] is None:
        return UNDEFINED
    return f"{clean['mean']:.2f} → {attack['mean']:.2f}"


def accuracy(row: Facts) -> str:
    """The change of accuracy, and what noise on the same bases changes; results from before that was kept do not know it."""
    noise = row.get("noise_accuracy")
    return points(row["accuracy_change"]) + ("" if noise is None else f" ({points(noise)})")


def control(row: Facts) -> str:
    """The control that may have moved the explanation furthest; results from before it was kept do not name it."""
    strongest = row.get("control")
    return "–" if strongest is None else f"{strongest['title']} {plain_estimate(strongest['change'])}"


def case_title(name: str, result: Facts, selections: dict[str, int]) -> str:
    """A case's title, and which selection is reported on its targets where it is not the first."""
    number = selections.get(name, 1)
    return str(result["title"]) + ("" if number == 1 else f" (selection {number})")


def settings_diff(attack: Facts, other: Facts) -> str:
    """The settings in which an attack differs from another."""
    return ", ".join(f"{key} {value}" for key, value in attack.items() if key not in other or other[key] != value)


def effect(interval: Interval) -> str:
    """An effect with its interval."""
    return plain_estimate(facts_of(interval))


def measured(gate: Gate) -> str:
    """What a gate judges."""
    return _FORMS.get(gate.name, effect)(gate.measured)


def marked(gate: Gate) -> str:
    """What a gate judges, with yes or no where it is decided."""
    text = measured(gate)
    return text if gate.holds is None else f"{text}: {'yes' if gate.holds else '**no**'}"


def _share(value: float | None) -> str:
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.0%}"


_FORMS: dict[str, Callable[[Interval], str]] = {
    gates.CEILING: lambda share: percent(facts_of(share), ".1f"),
    gates.L1: lambda share: relative(share.mean),
    gates.LABEL: lambda share: _share(share.mean),
    gates.TRANSFER: lambda share: _share(share.mean),
    gates.ACCURACY: lambda change: plain_estimate(facts_of(change), "+.1f", scale=100),
}
"""How what a gate judges is written, by its name; others are effects."""
