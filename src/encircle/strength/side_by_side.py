"""Variants of one case as a study, each finished and set beside the others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import polars as pl

from ..audit.time_limit import UNLIMITED, TimeLimit
from ..core import EncircleError
from ..jobs.driver import Listener
from ..jobs.task import Executor
from ..scoring import Interval, facts_of, hierarchical_bootstrap
from ..storage import read_arrays, read_json
from ..study.folder import begin
from ..study.run import go_on
from ..study.study_file import StudyFile

Settings = dict[str, Any]
"""Keys of a case, or of its attack."""


VARIANT = "variant"
"""What the grid of a study of variants has."""

_TITLES = {"IMF at its best": "IMF (tuned)", "IMF to the letter": "IMF (paper's settings)"}


def title_of(name: str) -> str:
    """An attack's name for people. Saved studies and results know it by another name, which stays what it was."""
    return _TITLES.get(name, name)


def variants_study(title: str, case: Mapping[str, Any], variants: Mapping[str, Settings]) -> StudyFile:
    """A study of variants of a case.

    Args:
        title: of the study.
        case: a case's keys and values.
        variants: the keys of the case that each of them changes, by name.
    """
    return StudyFile(title=title, case=copy.deepcopy(dict(case)), grid={VARIANT: dict(variants)})


@final
@dataclass(frozen=True)
class Finished:
    """What became of a variant.

    Attributes:
        cell: of the study, as in `study.json`.
        verdict: of its run, as in `verdict.json`.
        scores: the Jaccard scores of the audited attack's victims; columns `target`, `seed`, `jaccard`.
        device: what its run was finished on.
        goals: what the scores are towards: the desired maps and masks of all targets, by name.
    """

    cell: Mapping[str, Any]
    verdict: Mapping[str, Any]
    scores: pl.DataFrame
    device: str
    goals: Mapping[str, np.ndarray[Any, Any]]

    def effect_over(self, other: Finished) -> Interval:
        """Its effect over another variant (`effect_over`); undefined where the two have other desired maps, so that scores cannot be compared."""
        alike = self.goals.keys() == other.goals.keys() and all(
            np.array_equal(goal, other.goals[name]) for name, goal in self.goals.items()
        )
        return effect_over(self.scores, other.scores) if alike else Interval(float("nan"), None, None)


@final
@dataclass(frozen=True)
class SideBySide:
    """Runs variants of a case.

    Args:
        executor: makes who does the work, anew for each study.
        listener: told what happens.
        device: where models are trained.
        gpus: share of an accelerator that training and crafting need.
        limit: until when; no limit by default.
    """

    executor: Callable[[], Executor]
    listener: Listener | None = None
    device: str = "cpu"
    gpus: float = 0.0
    limit: TimeLimit = UNLIMITED

    def __call__(self, study: StudyFile, root: Path) -> dict[str, Finished]:
        """Run what is left of a study of variants, and read what was found.

        Args:
            study: of variants (`variants_study`).
            root: its folder.

        Raises:
            InputError: a variant cannot be audited.
            OutOfTimeError: the time is over.
            EncircleError: a run did not finish.
        """
        begin(study, root)
        conclusion = go_on(
            root,
            self.executor(),
            listener=self.listener,
            minutes=self.limit.remaining,
            device=self.device,
            gpus=self.gpus,
            again=True,
        )
        variants = {}
        for cell in conclusion.summary["cells"]:
            if cell["verdict"] == "ERROR":
                check_time(self.limit, conclusion.summary)
                why = cell["missing"][0]["why"] if cell["missing"] else "it did not finish."
                raise EncircleError(f"the run {cell['title']!r} is needed: {why}")
            folder = root / "runs" / cell["runs"][0]["folder"]
            verdict = read_json(folder / "verdict.json")
            scores = pl.read_parquet((folder / "scores.parquet").read_bytes())
            attacked = scores.filter(pl.col("arm") == cell["attack"]).select("target", "seed", "jaccard")
            maps, _ = read_arrays(folder / "maps.safetensors")
            goals = {name: values for name, values in maps.items() if name.endswith(("/goal", "/mask"))}
            device = str(read_json(folder / "environment.json")["device"])
            variants[cell["title"]] = Finished(cell, verdict, attacked, device, goals)
        return {name: variants[name] for name in study.grid[VARIANT]}


def check_time(limit: TimeLimit, summary: Mapping[str, Any]) -> None:
    """End the work where time is all that a study lacks.

    Args:
        limit: when nothing new may begin any more.
        summary: of the study, as in `study.json`.

    Raises:
        OutOfTimeError: the time is over, tasks wait, and none failed.
    """
    if not limit.is_over:
        return
    states = [state for tasks in summary["counts"]["tasks"].values() for state, count in tasks.items() if count]
    if "waiting" in states and "failed" not in states:
        limit.check()


def effect_over(scores: pl.DataFrame, other: pl.DataFrame) -> Interval:
    """How much higher one attack's Jaccard scores are than another's, on the same targets with victims of the same seeds.

    Args:
        scores: columns `target`, `seed`, `jaccard`.
        other: likewise; what the two do not have in common does not count.
    """
    both = scores.join(other, on=["target", "seed"], suffix="_other").with_columns(
        effect=pl.col("jaccard") - pl.col("jaccard_other")
    )
    by_target: Sequence[pl.DataFrame] = both.fill_null(float("nan")).sort("target", "seed").partition_by("target")
    return hierarchical_bootstrap([frame["effect"].to_list() for frame in by_target], shared_seeds=True)


KEPT = (
    "verdict",
    "shift",
    "jaccard_clean",
    "jaccard_attack",
    "l1_clean",
    "l1_attack",
    "label_kept",
    "accuracy_change",
    "accuracy_resolvable",
    "control",
    "targets",
    "victims",
)
"""What is kept of a cell for a page."""


def facts_of_cell(effect: Interval, cell: Mapping[str, Any]) -> dict[str, Any]:
    """What a page needs of a variant, as JSON holds it."""
    return {
        "gain": facts_of(effect),
        **{name: cell[name] for name in KEPT},
    }
