"""What each choice of an attack buys: one factor at a time, then those that helped together, reported on targets that chose nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from ..attacks import IMF, OptimisedAttack
from ..attacks.imf import PAPER_SETTINGS
from ..audit import Audit, Case
from ..audit.identity import settings_of
from ..audit.kinds import KINDS
from ..audit.time_limit import TimeLimit
from ..core import InputError
from ..jobs.driver import Listener
from ..jobs.task import Executor
from ..scoring import Interval
from ..scoring.thresholds import WORTHWHILE_EFFECT
from ..storage import write_json
from ..study.study_file import StudyFile
from .side_by_side import Settings, SideBySide, facts_of_cell, variants_study

Phase = Literal["choice", "together", "report"]

FACTORS: dict[str, Settings] = {
    "distance: cosine": {"distance": "cosine"},
    "distance: mixed": {"distance": "mixed"},
    "momentum 0.9": {"momentum": 0.9},
    "signed Adam": {"step": "adam"},
    "aligned bases": {"bases": "aligned"},
    "no T among the bases": {"target_share": 0.0},
    "a tenth of the bases T": {"target_share": 0.1},
    "a quarter of the bases T": {"target_share": 0.25},
    "half of the bases T": {"target_share": 0.5},
    "none of other classes": {"other_share": 0.0},
    "a quarter of other classes": {"other_share": 0.25},
    "half of other classes": {"other_share": 0.5},
    "as many of each class as there are": {"other_share": "balanced"},
    "nearest bases": {"bases": "nearest"},
    "influential bases": {"bases": "influential"},
    "influential bases, each eight times": {"bases": "influential", "repeats": 8},
    "bases by metagradients": {"bases": "metagradient"},
    "softplus surrogates": {"softplus": 10.0},
    "augmented poison": {"augmented": True},
    "best of three attempts": {"attempts": 3},
    "IMF": {"kind": "imf"},
    "influence": {"kind": "influence"},
    "gradient matching": {"kind": "matching"},
    "unrolled steps": {"kind": "unrolled"},
    "back-gradient": {"kind": "back-gradient"},
    "feature encirclement": {"kind": "encirclement"},
}
"""One choice each, in place of the case's own."""

SIZE = ("models", "epochs", "target_share")
"""Settings that the paper leaves open. They are taken from the case."""

IDLE = {"distance", "softplus"}
"""What changes nothing about poison that feature encirclement crafts."""

AUGMENTED = {"augmented"}
"""What rows of a table do not know, and a recipe that augments makes so anyway."""

UNFIT = (0.0, "balanced")
"""Shares of other classes that cannot be had with dirty labels."""

GIVEN, AS_PUBLISHED, JOINT = "as given", "IMF to the letter", "together"

CHOICE = 1_000_003
"""Added to the case's seed for the split, targets and victims that settings are chosen on."""


@final
@dataclass(frozen=True)
class Row:
    """An attack and what it came to.

    Attributes:
        name: of the factor.
        phase: `"choice"` (one factor at a time), `"together"` (what helped; same targets and seeds) or `"report"` (others).
        attack: its settings.
        effect_over_own: effect over the case's own attack, as given (on Jaccard).
        cell: the cell of the study, as in `study.json`.
    """

    name: str
    phase: Phase
    attack: Settings
    effect_over_own: Interval
    cell: Mapping[str, Any]


@final
@dataclass(frozen=True)
class Ablation:
    """A whole ablation.

    Attributes:
        title: of the case.
        rows: in the order in which they were run.
        chosen: name of the setting that was best where settings are chosen, of those that keep the label.
    """

    title: str
    rows: tuple[Row, ...]
    chosen: str


def kinds_with_choices() -> list[str]:
    """The attacks whose settings can be varied: those with the settings of `OptimisedAttack`, of installed packages too.

    Example:
        >>> "imf" in kinds_with_choices(), "watermark" in kinds_with_choices()
        (True, False)
    """
    return [kind for kind, attack in KINDS["attack"]().items() if issubclass(attack, OptimisedAttack)]


def varied(attack: Settings, changes: Settings) -> Settings:
    """The settings of an attack with some of them changed; what another kind does not know is dropped, shares that no longer fit are lowered."""
    settings = attack | changes
    shares = [settings["target_share"], settings["other_share"]]
    if all(isinstance(share, int | float) for share in shares) and sum(shares) > 1:
        asked, lowered = (
            ("other_share", "target_share") if "other_share" in changes else ("target_share", "other_share")
        )
        settings[lowered] = 1 - settings[asked]
    known = {field.name for field in dataclasses.fields(KINDS["attack"]()[settings["kind"]])}
    return {name: value for name, value in settings.items() if name in known}


def as_published(attack: Settings) -> Settings:
    """IMF with the paper's settings, of the size of another attack."""
    return settings_of(IMF(**PAPER_SETTINGS)) | {name: attack[name] for name in SIZE}  # type: ignore[no-any-return]


def ablate(
    case: Mapping[str, Any],
    root: Path,
    executor: Callable[[], Executor],
    *,
    factors: Mapping[str, Settings] = FACTORS,
    listener: Listener | None = None,
    device: str = "cpu",
    gpus: float = 0.0,
    minutes: float | None = None,
) -> Ablation:
    """Try the choices of a case's attack, one at a time and together, and report the best on other targets and seeds.

    Three studies in `root`: `choice` (the attack as given, and with each factor changed) and `together` (all that helped at once), both on a split, targets
    and victims that are drawn anew; and `report` (the paper's settings, the attack as given, the best of the other two) on the case's. Where the split does
    not depend on the seed, a target may be drawn in both by chance.

    Among attacks that keep the target's label, a factor helped if its interval over the attack as given lies above zero, and the best is the one of the
    largest mean effect. Accuracy has no say, and stands beside. A stopped ablation goes on where it was, and tries again what failed.

    Args:
        case: a case's keys and values, all of them (`Case.model_dump`).
        root: where the studies go, and `ablation.json`.
        executor: makes who does the work, anew for each study.
        factors: settings that are tried, by name.
        listener: told what happens.
        device: where models are trained.
        gpus: share of an accelerator that training and crafting need.
        minutes: begin nothing new after so many.

    Raises:
        InputError: there is nothing to choose (`choices_of`).
        OutOfTimeError: the minutes are over.
        EncircleError: a run did not finish.
    """
    own, tried = dict(case["attack"]), choices_of(case, factors)
    work = _Phases(case, root, SideBySide(executor, listener, device, gpus, TimeLimit.starting_now(minutes)))
    rows = work.run("choice", tried)
    helped = {
        row.name: row
        for row in rows
        if row.name != GIVEN and _helps(row.effect_over_own) and not row.cell["label_lost"]
    }
    best = _best(rows)
    if len(helped) > 1:
        together = joint(own, {name: (factors[name], row.effect_over_own.mean) for name, row in helped.items()})
        if together not in tried.values():
            both = work.run("together", {GIVEN: own, JOINT: together})
            rows += both[1:]
            best = _best([best, both[1]])
    rows += work.run(
        "report",
        {GIVEN: own, AS_PUBLISHED: as_published(own)} | ({} if best.name == GIVEN else {best.name: best.attack}),
    )
    ablation = Ablation(str(case.get("title", "Audit")), tuple(rows), best.name)
    write_json(root / "ablation.json", as_facts(ablation))
    return ablation


def choices_of(case: Mapping[str, Any], factors: Mapping[str, Settings] = FACTORS) -> dict[str, Settings]:
    """The attacks of an ablation's first phase, by name: as given, and with each factor that changes something.

    Args:
        case: a case's keys and values, all of them.
        factors: settings that are tried, by name.

    Raises:
        InputError: the case cannot be audited, its attack is not one that crafts with surrogates, or no factor changes anything.
    """
    own: Settings = dict(case["attack"])
    if own["kind"] not in (kinds := kinds_with_choices()):
        raise InputError(
            f"the attack {own['kind']} has no choices to try; set attack.kind to one of {', '.join(kinds)}."
        )
    audit = Audit.from_case(Case.model_validate(case))
    idle = IDLE if own["kind"] == "encirclement" else set[str]()
    if audit.data.kind == "table" or audit.settings.recipe.augmentation is not None:
        idle = idle | AUGMENTED
    if audit.settings.budget.mode == "replace":
        repeated = {"repeats", "metagradient"}
        factors = {
            name: changes for name, changes in factors.items() if not repeated & {*changes, changes.get("bases")}
        }
    if own["dirty_label"]:  # needs others, and makes them all of one class
        factors = {name: changes for name, changes in factors.items() if changes.get("other_share") not in UNFIT}
    factors = {name: changes for name, changes in factors.items() if set(changes) - idle}
    tried = {name: varied(own, changes) for name, changes in factors.items()}
    tried = {GIVEN: own} | {name: attack for name, attack in tried.items() if attack != own}
    if len(tried) == 1:
        raise InputError("none of these factors changes anything about the case's attack; name others.")
    return tried


def phase_study(case: Mapping[str, Any], phase: Phase, attacks: Mapping[str, Settings]) -> StudyFile:
    """A phase of an ablation: these attacks, on a draw of its own for all phases but the report.

    Args:
        case: a case's keys and values, all of them.
        phase: which phase.
        attacks: the settings of each, by name.
    """
    content = dict(case)
    if phase != "report":
        content["seed"] += CHOICE
        if not isinstance(content["targets"], int):  # rows that the case names are for the report alone
            content["targets"] = len(content["targets"])
    variants = {name: {"attack": attack} for name, attack in attacks.items()}
    return variants_study(f"{content['title']}: {phase}", content, variants)


def joint(own: Settings, helped: Mapping[str, tuple[Settings, float]]) -> Settings:
    """All changes at once; of those that have a key in common only the one of the largest effect, and that whole."""
    together: Settings = {}
    for changes, _ in sorted(helped.values(), key=lambda change: -change[1]):
        if not together.keys() & changes.keys():
            together |= changes
    return varied(own, together)


def _helps(effect: Interval) -> bool:
    """Whether an effect over the attack as given is none by chance, as far as that can be told."""
    return effect.mean >= WORTHWHILE_EFFECT if effect.low is None else effect.low > 0


def _best(rows: Sequence[Row]) -> Row:
    """The attack of the largest effect that keeps the label; the first where none does."""
    return max(
        (row for row in rows if not row.cell["label_lost"]), key=lambda row: row.effect_over_own.mean, default=rows[0]
    )


def as_facts(ablation: Ablation) -> dict[str, Any]:
    """An ablation as `ablation.json` holds it."""
    return {
        "title": ablation.title,
        "chosen": ablation.chosen,
        "rows": [
            {
                "name": row.name,
                "phase": row.phase,
                "attack": row.attack,
                **facts_of_cell(row.effect_over_own, row.cell),
            }
            for row in ablation.rows
        ],
    }


@final
@dataclass(frozen=True)
class _Phases:
    """Runs attacks side by side, each set as a study."""

    case: Mapping[str, Any]
    root: Path
    work: SideBySide

    def run(self, phase: Phase, attacks: Mapping[str, Settings]) -> list[Row]:
        variants = self.work(phase_study(self.case, phase, attacks), self.root / phase)
        return [
            Row(name, phase, attack, variants[name].effect_over(variants[GIVEN]), variants[name].cell)
            for name, attack in attacks.items()
        ]
