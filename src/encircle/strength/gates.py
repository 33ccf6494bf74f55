"""What is asked of the selected attack, and which of it holds in a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from ..scoring import Interval
from ..scoring.gates import Gate, above_zero, interval_of, loss_shown, mean_at_least, mean_at_most, single
from ..scoring.thresholds import (
    ACCURACY_LOSS,
    CEILING_FRACTION,
    L1_BELOW_WATERMARK,
    LABEL_KEPT,
    TRANSFERRED_EFFECT,
)
from .reached import BEST_IMF, GUESSED, LITTLE, PUBLISHED, SELECTED, TRANSFERRED
from .side_by_side import title_of

Facts = Mapping[str, Any]
"""A part of what `encircle reach`, `budget` or `ablate` wrote."""

CEILING, OVER_PUBLISHED, OVER_TUNED, L1 = "ceiling", PUBLISHED, title_of(BEST_IMF), "L1"
FIFTH, LABEL, ACCURACY = "a fifth", "label", "accuracy"
GATES = (CEILING, OVER_PUBLISHED, OVER_TUNED, L1, FIFTH, LABEL, ACCURACY)
"""The gates of a case, in the order of the tables."""

TRANSFER = "transfer"
"""The gate of an attack that was crafted on another network."""


def gates_of(result: Facts) -> dict[str, Gate]:
    """The gates of one case, by name, in the order of `GATES`.

    Args:
        result: as in `reach.json`.
    """
    rows = {row["name"]: row for row in result["rows"]}
    selected = rows[SELECTED]
    resolvable = bool(selected.get("accuracy_resolvable"))  # results from before it was kept do not say
    gates = (
        mean_at_least(CEILING, interval_of(selected["share_of_way"]), CEILING_FRACTION.get(result["explainer"])),
        above_zero(OVER_PUBLISHED, interval_of(selected["gain"])),
        above_zero(OVER_TUNED, interval_of(rows[BEST_IMF]["gain"])),
        mean_at_most(L1, single(l1_against_watermark(selected)), -L1_BELOW_WATERMARK),
        mean_at_least(FIFTH, interval_of(rows[LITTLE]["gain"]), 0.0),
        mean_at_least(LABEL, single(selected["label_kept"]), LABEL_KEPT),
        loss_shown(ACCURACY, interval_of(selected["accuracy_change"]), ACCURACY_LOSS, resolvable=resolvable),
    )
    return {gate.name: gate for gate in gates}


def l1_against_watermark(row: Facts) -> float | None:
    """How far an attack's L1 lies above the unbounded watermark's, as a share of the latter; negative where it lies below."""
    attack, watermark = row["l1_attack"]["mean"], row["watermark_l1"]
    return None if attack is None or not watermark else attack / watermark - 1


@final
@dataclass(frozen=True)
class Transfer:
    """The selected attack of an attacker who supposes another network or recipe than the victims'.

    Attributes:
        supposed: the settings of that network and recipe.
        effect_knowing: effect over IMF as published of the attacker who knows both.
        effect_supposing: and of this one.
        remaining: the share of the former that remains; for another recipe nothing is asked.
    """

    supposed: Facts
    effect_knowing: Interval
    effect_supposing: Interval
    remaining: Gate


def transfers_of(result: Facts) -> tuple[Transfer, ...]:
    """What the selected attack keeps of its effect in one case; none where no such attacker was tried.

    Args:
        result: as in `reach.json`.
    """
    rows = {row["name"]: row for row in result["rows"]}
    knowing = rows[SELECTED]["gain"]
    transfers = []
    for name, threshold in ((TRANSFERRED, TRANSFERRED_EFFECT), (GUESSED, None)):
        if name not in rows:
            continue
        attacker, supposing = rows[name]["settings"]["attacker"], rows[name]["gain"]
        defined = knowing["mean"] and knowing["mean"] > 0 and supposing["mean"] is not None
        share = supposing["mean"] / knowing["mean"] if defined else None
        transfers.append(
            Transfer(
                (attacker.get("model") or {}) | attacker.get("recipe", {}),
                interval_of(knowing),
                interval_of(supposing),
                mean_at_least(TRANSFER, single(share), threshold),
            )
        )
    return tuple(transfers)
