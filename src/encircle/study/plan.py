"""The plan of a study: its runs divided into tasks, so that shared work is done once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import torch

from ..audit import Audit, Case
from ..audit.rehearsal import rehearse
from ..core import EncircleError, InputError
from ..data import DataSet
from ..jobs.task import Task
from .grid import Run, Study
from .run_tasks import RunTasks
from .task_kinds import TASK_KINDS


@final
@dataclass(frozen=True)
class Planned:
    """A run and its task.

    Attributes:
        run: the run.
        task: id of its last task.
        folder: its run folder, by name below `runs/`.
        poison: number of poison samples per target; 0 if not computed.
    """

    run: Run
    task: str
    folder: str
    poison: int = 0


@final
@dataclass(frozen=True)
class Plan:
    """All tasks of a study.

    Attributes:
        runs: in the order of `Study.runs`.
        tasks: in an order in which every task follows those that it needs.
        wanted: number of tasks of each kind if no run shared any.
        device: where models are trained.
        notes: rows left out or values changed while data were read.
    """

    runs: tuple[Planned, ...]
    tasks: tuple[Task, ...]
    wanted: dict[str, int]
    device: str
    notes: tuple[str, ...] = ()


def plan(study: Study, root: Path, *, device: str = "cpu", gpus: float = 0.0) -> Plan:
    """Divide the runs of a study into tasks.

    Args:
        study: the expanded study.
        root: base folder for files named by its cases.
        device: where models are trained.
        gpus: share of an accelerator that training and crafting need.

    Returns:
        The runs and their tasks.

    Raises:
        InputError: a case cannot be audited; names the run.
    """
    planner = _Planner(root, device, gpus, study.limit)
    for run in study.runs:
        try:
            planner.add(run)
        except EncircleError as error:
            raise InputError(f"{run.case.title}: {error}") from None
    return planner.plan()


def plan_of_audit(audit: Audit, case: Case, fingerprint: str) -> Plan:
    """Divide one audit into tasks, as if it were a study of its own.

    Args:
        audit: the audit.
        case: its case.
        fingerprint: of its data.
    """
    planner = _Planner(Path(), str(audit.device), 0.0, 0.0)
    planner.add_audit(Run((), case), audit, fingerprint)
    return planner.plan()


@final
class _Planner:
    """Collects tasks by id: equal work of two runs has the same id."""

    def __init__(self, root: Path, device: str, gpus: float, limit: float) -> None:
        self._root, self._device, self._gpus, self._limit = root, device, gpus, limit
        self._runs: list[Planned] = []
        self._tasks: dict[str, Task] = {}
        self._wanted: dict[str, int] = {}
        self._notes: dict[str, None] = {}
        self._tried: set[str] = set()
        self._data: Callable[[str, int], tuple[DataSet, str]] = lru_cache(maxsize=4)(self._load)

    def _load(self, settings: str, seed: int) -> tuple[DataSet, str]:
        data = self._loading.data.load(seed)
        return data, data.check()

    def plan(self) -> Plan:
        """The plan of all added tasks."""
        tasks = list(self._tasks.values())
        order = {name: index for index, name in enumerate(TASK_KINDS)}
        first = [task for task in tasks if TASK_KINDS[task.kind].comes_first]
        rest = [task for task in tasks if not TASK_KINDS[task.kind].comes_first]
        first.sort(key=lambda task: order[task.kind])
        return Plan(tuple(self._runs), (*first, *rest), self._wanted, self._device, tuple(self._notes))

    def add(self, run: Run) -> None:
        """Add the tasks of one run, after its self-test."""
        self._loading = case = run.case.with_files(lambda name: self._root / name)
        data, fingerprint = self._data(repr(case.data), case.seed)
        audit = Audit.from_case(case, self._device, data=data, described=run.case.model_dump(mode="json"))
        rehearse(audit, self._tried, device=torch.device("cpu"))  # this machine may have no accelerator
        self.add_audit(run, audit, fingerprint)

    def add_audit(self, run: Run, audit: Audit, fingerprint: str) -> None:
        """Add the tasks of one run for a given audit."""
        self._notes |= dict.fromkeys(audit.data.notes)
        how: dict[str, Any] = {
            "device": self._device,
            "gpus": self._gpus,
            "path_of": lambda name: str(self._root / name),
        }
        task, folder = RunTasks(self._task, run.case, audit, fingerprint, **how).all()
        poison = audit.settings.budget.size(len(audit.data.train))
        self._runs.append(Planned(run, task, folder.removeprefix("runs/"), poison))

    def _task(self, kind: str, identity: str, label: str, spec: dict[str, Any], **more: Any) -> str:
        """Add a task unless it is planned already; returns its id."""
        self._wanted[kind] = self._wanted.get(kind, 0) + 1
        if identity not in self._tasks:
            folder = more.pop("folder", f"{'shared' if TASK_KINDS[kind].is_shared else 'pieces'}/{identity[:24]}")
            self._tasks[identity] = Task(
                identity, kind, label, spec, folder, limit=self._limit, is_result=kind == "run", **more
            )
        return identity
