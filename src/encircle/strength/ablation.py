"""What each choice of an attack buys: one factor at a time, then those that helped together, reported on targets that chose nothing."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import polars as pl

from ..attacks import IMF
from ..audit import Audit, Case
from ..audit.audit import settings_of
from ..audit.case import AnyAttack, options
from ..core import EncircleError, InputError
from ..jobs.driver import Listener
from ..jobs.task import Executor
from ..scoring import Interval, hierarchical_bootstrap
from ..storage import write_json
from ..study.folder import begin
from ..study.run import go_on
from ..study.study_file import StudyFile

Settings = dict[str, Any]
"""Keys of a case's attack."""

Phase = Literal["choice", "together", "report"]

FACTORS: dict[str, Settings] = {
    "distance: cosine": {"distance": "cosine"},
    "distance: mixed": {"distance": "mixed"},
    "momentum 0.9": {"momentum": 0.9},
    "signed Adam": {"step": "adam"},
    "aligned bases": {"bases": "aligned"},
    "no T among the bases": {"target_share": 0.0},
    "a quarter of the bases T": {"target_share": 0.25},
    "a quarter of other classes": {"other_share": 0.25},
    "half of other classes": {"other_share": 0.5},
    "softplus surrogates": {"softplus": 10.0},
    "augmented poison": {"augmented": True},
    "best of three attempts": {"attempts": 3},
    "gradient matching": {"kind": "matching"},
    "unrolled steps": {"kind": "unrolled"},
    "feature encirclement": {"kind": "encirclement"},
}
"""One choice each, in place of the case's own."""

PUBLISHED: Settings = {
    "kind": "imf",
    "distance": "none",
    "hinge": None,
    "step": "raw",
    "gamma": 1.0,
    "form": "finite-difference",
    "lower": "plain",
    "staggered": False,
    "restart": False,
    "poison_batch": "batch",
}
"""Algorithm 1 to the letter (docs/method.md): what differs from `IMF()`."""

SIZE = ("models", "epochs", "target_share")
"""What the letter of the paper leaves open, and takes from the case."""

IDLE = {"distance", "softplus"}
"""What changes nothing about poison that feature encirclement crafts."""

OF_IMAGES = {"augmented"}
"""What rows of a table do not know."""

GIVEN, AS_PUBLISHED, JOINT = "as given", "IMF to the letter", "together"

WORTH = 0.01
"""A factor is kept if it raises the mean Jaccard of the victims by at least this."""

CHOICE = 1_000_003
"""Added to the case's seed for the split, targets and victims that settings are chosen on."""

MADE_FOR = ("imf", "matching", "unrolled", "encirclement")


@final
@dataclass(frozen=True)
class Row:
    """An attack and what it came to.

    Attributes:
        name: of the factor.
        phase: `"choice"` (one factor at a time), `"together"` (what helped; same targets and seeds) or `"report"` (others).
        attack: its settings.
        gain: of Jaccard over the attack as given, paired by target and seed.
        cell: the cell of the study, as in `study.json`.
    """

    name: str
    phase: Phase
    attack: Settings
    gain: Interval
    cell: Mapping[str, Any]


@final
@dataclass(frozen=True)
class Ablation:
    """A whole ablation.

    Attributes:
        title: of the case.
        rows: in the order in which they were run.
        chosen: name of the setting that was best where settings are chosen.
    """

    title: str
    rows: tuple[Row, ...]
    chosen: str


def varied(attack: Settings, changes: Settings) -> Settings:
    """The settings of an attack with some of them changed; what another kind does not know is dropped, shares that no longer fit are lowered."""
    whole = attack | changes
    if whole["target_share"] + whole["other_share"] > 1:
        kept, lowered = ("other_share", "target_share") if "other_share" in changes else ("target_share", "other_share")
        whole[lowered] = 1 - whole[kept]
    known = {field.name for field in dataclasses.fields(options(AnyAttack)[whole["kind"]])}
    return {name: value for name, value in whole.items() if name in known}


def as_published(attack: Settings) -> Settings:
    """IMF to the letter of the paper, of the size of another attack."""
    return settings_of(IMF(**PUBLISHED)) | {name: attack[name] for name in SIZE}  # type: ignore[no-any-return]


def ablate(
    case: Mapping[str, Any],
    root: Path,
    executor: Callable[[], Executor],
    *,
    factors: Mapping[str, Settings] = FACTORS,
    listener: Listener | None = None,
    device: str = "cpu",
    gpus: float = 0.0,
) -> Ablation:
    """Try the choices of a case's attack, one at a time and together, and report the best on other targets and seeds.

    Three studies in `root`: `choice` (the attack as given, and with each factor changed), `together` (all that helped at once), both on a split,
    targets and victims that are drawn anew; and `report` (the paper's letter, the attack as given, the best of the other two) on the case's. Where the split
    does not depend on the seed, a target may be drawn in both by chance. A stopped ablation goes on where it was, and tries again what failed.

    Args:
        case: a case's keys and values, all of them (`Case.model_dump`).
        root: where the studies go, and `ablation.json`.
        executor: makes who does the work, anew for each study.
        factors: settings that are tried, by name.
        listener: told what happens.
        device: where models are trained.
        gpus: share of an accelerator that training and crafting need.

    Raises:
        InputError: the case cannot be audited, or its attack is not one that crafts with surrogates.
        EncircleError: a run did not finish.
    """
    given: Settings = dict(case["attack"])
    if given["kind"] not in MADE_FOR:
        raise InputError(
            f"the attack {given['kind']} has no choices to try; set attack.kind to one of {', '.join(MADE_FOR)}."
        )
    idle = IDLE if given["kind"] == "encirclement" else set[str]()
    if Audit.from_case(Case.model_validate(case)).data.kind == "table":
        idle = idle | OF_IMAGES
    factors = {name: changes for name, changes in factors.items() if set(changes) - idle}
    tried = {GIVEN: given} | {name: varied(given, changes) for name, changes in factors.items()}
    tried = {name: attack for name, attack in tried.items() if name == GIVEN or attack != given}
    work = _Studies(case, root, executor, listener, device, gpus)
    rows = work.run("choice", tried)
    helped = {row.name: row for row in rows if row.name != GIVEN and row.gain.mean >= WORTH}
    best = max(rows, key=lambda row: row.gain.mean)
    if len(helped) > 1:
        together = joint(given, {name: (factors[name], row.gain.mean) for name, row in helped.items()})
        if together not in tried.values():
            both = work.run("together", {GIVEN: given, JOINT: together})
            rows += both[1:]
            best = max(best, both[1], key=lambda row: row.gain.mean)
    rows += work.run(
        "report",
        {GIVEN: given, AS_PUBLISHED: as_published(given)} | ({} if best.name == GIVEN else {best.name: best.attack}),
    )
    found = Ablation(str(case.get("title", "Audit")), tuple(rows), best.name)
    write_json(root / "ablation.json", as_facts(found))
    return found


def joint(given: Settings, helped: Mapping[str, tuple[Settings, float]]) -> Settings:
    """All changes at once; where two are of the same key, the one that gained more."""
    together: Settings = {}
    for changes, _ in sorted(helped.values(), key=lambda each: each[1]):
        together |= changes
    return varied(given, together)


def as_facts(found: Ablation) -> dict[str, Any]:
    """An ablation as `ablation.json` holds it."""
    return {
        "title": found.title,
        "chosen": found.chosen,
        "rows": [
            {
                "name": row.name,
                "phase": row.phase,
                "attack": row.attack,
                "gain": {"mean": row.gain.mean, "low": row.gain.low, "high": row.gain.high},
                **{name: row.cell[name] for name in KEPT},
            }
            for row in found.rows
        ],
    }


KEPT = (
    "verdict",
    "shift",
    "jaccard_clean",
    "jaccard_attack",
    "l1_clean",
    "l1_attack",
    "label_kept",
    "accuracy_change",
    "targets",
    "victims",
)
"""What `ablation.json` keeps of a cell."""


@final
@dataclass(frozen=True)
class _Studies:
    """Runs attacks side by side, each set as a study."""

    case: Mapping[str, Any]
    root: Path
    executor: Callable[[], Executor]
    listener: Listener | None
    device: str
    gpus: float

    def run(self, phase: Phase, attacks: Mapping[str, Settings]) -> list[Row]:
        content = copy.deepcopy(dict(self.case))
        if phase != "report":
            content["seed"] += CHOICE
            if not isinstance(content["targets"], int):  # rows that the case names are for the report alone
                content["targets"] = len(content["targets"])
        place = self.root / phase
        file = StudyFile(title=f"{content['title']}: {phase}", case=content, grid={"attack": dict(attacks)})
        begin(file, place)
        conclusion = go_on(
            place, self.executor(), listener=self.listener, device=self.device, gpus=self.gpus, again=True
        )
        cells = {cell["title"]: cell for cell in conclusion.summary["cells"]}
        for cell in cells.values():
            if cell["verdict"] == "ERROR":
                why = cell["missing"][0]["why"] if cell["missing"] else "it did not finish."
                raise EncircleError(f"the ablation needs the run {cell['title']!r}: {why}")
        scores = {name: _scores(place / "runs" / cells[name]["runs"][0]["folder"], cells[name]) for name in attacks}
        return [
            Row(name, phase, attack, gained(scores[name], scores[GIVEN]), cells[name])
            for name, attack in attacks.items()
        ]


def _scores(folder: Path, cell: Mapping[str, Any]) -> pl.DataFrame:
    """The Jaccard scores of the audited attack's victims."""
    found = pl.read_parquet((folder / "scores.parquet").read_bytes())
    return found.filter(pl.col("arm") == cell["attack"]).select("target", "seed", "jaccard")


def gained(mine: pl.DataFrame, theirs: pl.DataFrame) -> Interval:
    """How much higher one attack's Jaccard scores are than another's, on the same targets with victims of the same seeds.

    Args:
        mine: columns `target`, `seed`, `jaccard`.
        theirs: likewise; what the two do not have in common does not count.
    """
    both = mine.join(theirs, on=["target", "seed"], suffix="_theirs").with_columns(
        gain=pl.col("jaccard") - pl.col("jaccard_theirs")
    )
    by_target: Sequence[pl.DataFrame] = both.fill_null(float("nan")).sort("target", "seed").partition_by("target")
    return hierarchical_bootstrap([frame["gain"].to_list() for frame in by_target], shared_seeds=True)
