"""A forecast of a study's time: a few seconds of each kind of work, timed and scaled up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import final

from ..audit import Case
from ..jobs.task import Task
from .costs import Probe, Say, TaskCost
from .plan import Plan
from .task_kinds import TASK_KINDS


@final
@dataclass(frozen=True)
class Forecast:
    """A forecast of a study's time.

    Attributes:
        seconds: by kind of task, for all its tasks one after another.
        workers: number of workers at once.
    """

    seconds: dict[str, float]
    workers: int

    @property
    def total(self) -> float:
        """Seconds until the study is done."""
        return sum(self.seconds.values()) / self.workers


def forecast(plan: Plan, root: Path, workers: int, say: Say) -> Forecast:
    """Time one epoch of training, and some of crafting, for every setting of them in the study.

    Of several budgets only the largest is timed, so that the forecast errs upwards.

    Args:
        plan: the study's plan.
        root: base folder for files named by its cases.
        workers: number of tasks done at once.
        say: receives a description of the work being timed.
    """
    probes: dict[str, Probe] = {}
    costs: dict[str, float] = {}
    case_of = lru_cache(maxsize=64)(Case.model_validate_json)
    by_size = sorted(plan.tasks, key=lambda task: -_budget(task))
    for task in by_size:
        kind = TASK_KINDS[task.kind]
        seconds = kind.prior
        if kind.cost is not None:
            case = case_of(json.dumps(task.spec["case"]))
            seconds = kind.cost(TaskCost(_probe_of(case, task, probes, root, say), task, case, say))
        costs[task.kind] = costs.get(task.kind, 0.0) + seconds
    return Forecast(costs, workers)


def _budget(task: Task) -> float:
    budget = task.spec.get("case", {}).get("budget", {})
    return float(budget.get("fraction") or budget.get("count") or 0)


def _probe_of(case: Case, task: Task, probes: dict[str, Probe], root: Path, say: Say) -> Probe:
    key = repr((case.data, case.model, case.recipe, case.checkpoint, case.seed if case.checkpoint else 0, case.threads))
    if key not in probes:
        say(f"timing one epoch of training: {case.title}")
        probes[key] = Probe(case.with_files(lambda name: root / name), task.spec["device"])
    return probes[key]
