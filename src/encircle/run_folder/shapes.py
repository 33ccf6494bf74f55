"""The content of a run's files: the columns of its tables and the shapes of its JSON (docs/run-folder.md).

Audits write these files. Judge, study, report, strength and reproduction read them. No torch is needed.
"""

from __future__ import annotations

from typing import Any, Final, NotRequired, TypedDict

import polars as pl

from ..score_names import MAP_SCORES, VICTIM_SCORES

SHAPE_VERSION: Final = 2
"""Raised when a column or an entry changes its name or meaning.

Runs without a version are of version 1: two columns had other names (`FORMER_COLUMNS`).
"""

FORMER_COLUMNS: Final = {"turned": "ihvp_cosine", "apart": "feature_distance"}
"""Names of columns of `history.parquet` in version 1, and their names now."""

Columns = dict[str, Any]
"""polars types of columns, by name."""

SCORE_COLUMNS: Final[Columns] = {
    "target": pl.Int64,
    "arm": pl.String,
    "seed": pl.Int64,
    "victim_class": pl.Int64,
    **{score.key: pl.Boolean if score.key == "label_kept" else pl.Float64 for score in (*MAP_SCORES, *VICTIM_SCORES)},
}
"""One row per target, arm and victim."""

POISON_COLUMNS: Final[Columns] = {
    "target": pl.Int64,
    "arm": pl.String,
    "count": pl.Int64,
    **dict.fromkeys(("share_of_set", "share_of_class", "linf", "l2", "psnr"), pl.Float64),
    "bounded": pl.Boolean,
}
"""One row per target and undefended arm."""

HISTORY_COLUMNS: Final[Columns] = {
    "target": pl.Int64,
    "iteration": pl.Int64,
    "epoch": pl.Float64,
    "member": pl.Int64,
    **dict.fromkeys(("upper", "distance", "label", "lower"), pl.Float64),
    **dict.fromkeys(("form_cosine", "alignment", "ihvp_cosine", "feature_distance", "held_out"), pl.Float64),
    "attempt": pl.Int64,
}
"""One row per target, attack iteration and model of the ensemble."""

NEEDED_HISTORY: Final = ("target", "iteration", "epoch", "member", "upper", "distance", "label", "lower")
"""Columns of every attack's history, since the first version."""


class Estimate(TypedDict):
    """A mean over targets and victims, with its 95 % interval if one is claimed."""

    mean: float | None
    low: float | None
    high: float | None


class ArmSummary(TypedDict):
    """The results of an arm."""

    arm: str
    title: str
    reference: NotRequired[str]
    jaccard: Estimate
    l1: Estimate
    jaccard_change: Estimate
    l1_change: Estimate
    label_kept: Estimate
    accuracy: Estimate
    accuracy_change: Estimate
    drift: Estimate


class Judged(TypedDict):
    """The judgement of a run's scores."""

    verdict: str
    sentence: str
    advice: list[str]
    demonstration: bool
    attack: str
    threshold: float
    label_kept_threshold: NotRequired[float]
    minimum_targets: NotRequired[int]
    targets: int
    undefined: NotRequired[int]
    victims: int
    label_kept: float | None
    share_of_way: NotRequired[Estimate | None]
    smallest_detectable_shift: float | None
    standard_error: NotRequired[float | None]
    p_value: NotRequired[float | None]
    arms: list[ArmSummary]
    accuracy_resolvable: bool
    held_out: int


class CaseInWords(TypedDict):
    """The settings of the audit, in words."""

    data: str
    model: str
    explainer: str
    goal: str
    budget: str
    start: str
    attacker: NotRequired[str]
    defence: NotRequired[str]


class Verdict(Judged):
    """`verdict.json`."""

    case: CaseInWords
    about: NotRequired[dict[str, str]]
    notes: NotRequired[list[str]]


class DataFacts(TypedDict):
    """The data of a run."""

    name: str
    kind: str
    fingerprint: str
    train: int | None
    validation: int | None
    test: int | None
    pretrain: int | None
    classes: list[str]
    features: NotRequired[list[str]]
    shape: NotRequired[list[int]]
    space: NotRequired[str]


class TargetFacts(TypedDict):
    """A target of a run."""

    row: int
    label: int
    class_name: str


class Provenance(TypedDict):
    """The environment of a run."""

    versions: dict[str, Any]
    python: str
    platform: str
    threads: int
    device: str
    commit: str | None
    results_version: int


class Versioned(TypedDict):
    """What `environment.json` says of its shape; version 1 says nothing."""

    shape_version: NotRequired[int]


class Environment(Provenance, Versioned):
    """`environment.json`."""

    run_id: str
    title: str
    seconds: dict[str, Any]
    surplus_weights: NotRequired[dict[str, Any]]
    seeds: NotRequired[dict[str, Any]]
    data: DataFacts
    targets: list[TargetFacts]
    code_path: NotRequired[Any]
