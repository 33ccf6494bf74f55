"""What must hold for a cell to count as reproduced, and what a ceiling says about one that falls short."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import polars as pl

from ..scoring import Interval
from ..scoring.gates import (
    Gate,
    above_zero,
    interval_of,
    loss_ruled_out,
    mean_at_least,
    single,
)
from ..scoring.thresholds import (
    ACCURACY_LOSS,
    L1_BELOW_WATERMARK,
    LABEL_KEPT,
    RESOLVABLE_ROWS,
    ROOM_FACTOR,
    SHORTEST_CEILING_EFFECT,
)
from .paper import PUBLISHED
from .results import CellResult

MOVED, L1, JACCARD, LABEL, ACCURACY = "moved", "L1", "Jaccard", "label", "accuracy"

Outcome = Literal["reproduced", "in part", "not reproduced", "undecided"]
Room = Literal["says little", "leaves room", "no further"]


def gates_of(cell: CellResult) -> tuple[Gate, ...]:
    """The paper's claims for a cell, judged on fresh-seed victims; the first is that the explanation moved."""
    attack, rows = cell.attack, cell.verdict["held_out"]
    return (
        above_zero(MOVED, interval_of(attack["jaccard_change"])),
        mean_at_least(L1, single(_l1_below(attack, cell.arm("watermark"))), L1_BELOW_WATERMARK),
        mean_at_least(JACCARD, single(attack["jaccard"]["mean"]), PUBLISHED[cell.name].jaccard[1]),
        mean_at_least(LABEL, single(attack["label_kept"]["mean"]), LABEL_KEPT),
        loss_ruled_out(
            ACCURACY, interval_of(attack["accuracy_change"]), ACCURACY_LOSS, resolvable=rows >= RESOLVABLE_ROWS
        ),
    )


def _l1_below(attack: Mapping[str, Any], watermark: Mapping[str, Any]) -> float | None:
    """How far the attack's L1 lies below the watermark's, as a share of the latter."""
    own, other = attack["l1"]["mean"], watermark["l1"]["mean"]
    return None if own is None or not other else 1 - own / other


def outcome_of(gates: Sequence[Gate]) -> Outcome:
    """Whether a cell is reproduced: in part where its explanation moved and another gate does not hold or is undecided."""
    moved, *others = gates
    if moved.holds is None:
        return "undecided"
    if not moved.holds:
        return "not reproduced"
    return "reproduced" if all(gate.holds for gate in others) else "in part"


@final
@dataclass(frozen=True)
class Ceiling:
    """How far the models of a cell could be bent, beside how far poison bent them.

    Attributes:
        attack: effect of the attack.
        ceiling: effect of bending models directly.
        same_targets: whether both are of the same targets.
        unbent: how many models stayed the clean victims that they began as, because no attempt kept label and accuracy and came nearer, and of how many;
            None where that was not kept.
        falls_short: whether the attack's gates of Jaccard do not all hold.
    """

    attack: Interval
    ceiling: Interval
    same_targets: bool
    unbent: tuple[int, int] | None
    falls_short: bool

    @property
    def fraction(self) -> float | None:
        """The attack's effect as a fraction of the ceiling's; None where it is undefined, which it is too where the ceiling's is next to nothing."""
        effects = _means(self.attack, self.ceiling)
        return None if effects is None or effects[1] < SHORTEST_CEILING_EFFECT else effects[0] / effects[1]

    @property
    def room(self) -> Room | None:
        """What the ceiling says about a cell that falls short; None where nothing can be said, or need be."""
        effects = _means(self.attack, self.ceiling)
        return room_of(effects[1], effects[0], self.unbent) if self.falls_short and effects is not None else None


def ceiling_of(attacked: CellResult, bent: CellResult) -> Ceiling:
    """A cell beside the ceiling of its models.

    Args:
        attacked: the cell.
        bent: the cell whose models were bent directly.
    """
    jaccard = (gate for gate in gates_of(attacked) if gate.name in {MOVED, JACCARD})
    return Ceiling(
        attack=interval_of(attacked.attack["jaccard_change"]),
        ceiling=interval_of(bent.arm("ceiling")["jaccard_change"]),
        same_targets=attacked.targets == bent.targets,
        unbent=unbent_models(bent),
        falls_short=any(gate.answer == "does not" for gate in jaccard),
    )


def room_of(ceiling: float, attack: float, unbent: tuple[int, int] | None) -> Room:
    """What a ceiling says: little where most models stayed unbent; else whether it goes much further than the attack.

    Args:
        ceiling: mean effect of bending models directly.
        attack: mean effect of the attack.
        unbent: how many models stayed as they were, and of how many.
    """
    if unbent is not None and 2 * unbent[0] > unbent[1]:
        return "says little"
    return "leaves room" if ceiling >= max(SHORTEST_CEILING_EFFECT, ROOM_FACTOR * attack) else "no further"


def unbent_models(cell: CellResult) -> tuple[int, int] | None:
    """How many models of a ceiling's cell stayed the clean victims that they began as, and of how many; None where their scores were not kept."""
    if "scores" not in cell.run.tables:
        return None
    scores = cell.table("scores").select("target", "seed", "arm", "l1", "jaccard")
    bent, clean = (scores.filter(pl.col("arm") == arm).drop("arm") for arm in ("ceiling", "clean"))
    return len(bent.join(clean, on=["target", "seed", "l1", "jaccard"])), len(bent)


def is_nearer(scores: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether a map came nearer to the desired one than another did: by Jaccard, then by L1."""
    return (scores["jaccard"], -scores["l1"]) > (other["jaccard"], -other["l1"])


def _means(*intervals: Interval) -> tuple[float, ...] | None:
    """The means; None where one of them is undefined."""
    means = tuple(interval.mean for interval in intervals)
    return means if all(map(math.isfinite, means)) else None
