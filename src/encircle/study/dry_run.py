"""Dry runs of studies and audits: the work to do and its time. No model is kept, no file written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from ..audit import Audit, Case
from ..audit.computing import check_threads
from ..audit.rehearsal import rehearse
from ..jobs.store import DATABASE
from .folder import reopen
from .grid import Study, expand
from .plan import Plan, plan, plan_of_audit
from .probe import forecast
from .run import standing
from .study_file import StudyFile
from .task_kinds import TASK_KINDS

Say = Callable[[str], None]
"""Receives a description of the work being timed."""


@final
@dataclass(frozen=True)
class KindOfWork:
    """The tasks of one kind.

    Attributes:
        words: the kind, for people.
        tasks: number of tasks to do.
        unshared: their number if every run did its own; None if none is shared.
        seconds: for all of them, one after another.
    """

    words: str
    tasks: int
    unshared: int | None
    seconds: float


@final
@dataclass(frozen=True)
class StudyOutlook:
    """The work of a study.

    Attributes:
        title: of the study.
        runs: number of audits.
        cells: number of combinations of the varied keys.
        tasks: number of tasks to do.
        poison: the fewest and the most poison samples of a target.
        notes: rows left out or values changed while data were read.
        work: by kind of task.
        workers: number of tasks done at once.
        seconds: until all tasks are done.
    """

    title: str
    runs: int
    cells: int
    tasks: int
    poison: tuple[int, int]
    notes: tuple[str, ...]
    work: tuple[KindOfWork, ...]
    workers: int
    seconds: float

    def facts(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@final
@dataclass(frozen=True)
class AuditOutlook:
    """The work of an audit.

    Attributes:
        title: of the case.
        work: number of steps, by kind.
        notes: the poison's size, and parts of data or weights left out or changed while they were read.
        seconds: on one processor.
    """

    title: str
    work: dict[str, int]
    notes: tuple[str, ...]
    seconds: float

    def facts(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def outlook_of_study(file: StudyFile, origin: str, *, cpus: int | None, device: str, say: Say) -> StudyOutlook:
    """The work of a study that is not begun yet.

    Args:
        file: the study.
        origin: its name in errors.
        cpus: number of tasks done at once; None: one per processor of this process.
        device: where models are trained.
        say: receives a description of the work being timed.

    Raises:
        InputError: a case cannot be audited.
    """
    study = expand(file, origin)
    return _outlook(study, plan(study, Path(), device=device), Path(), {}, cpus, say)


def outlook_of_rest(root: Path, *, cpus: int | None, device: str, again: bool, say: Say) -> StudyOutlook:
    """The remaining work of a study, by its folder.

    Args:
        root: the folder.
        cpus: as for `outlook_of_study`.
        device: where models are trained.
        again: whether failed tasks would be tried again.
        say: receives a description of the work being timed.

    Raises:
        InputError: the folder holds no study, or a case cannot be audited.
    """
    study = reopen(root)
    todo = plan(study, root, device=device)
    ended = {"done"} if again else {"done", "failed", "blocked"}
    counts = standing(root)[0].counts if (root / DATABASE).is_file() else {}
    finished = {kind: sum(states.get(state, 0) for state in ended) for kind, states in counts.items()}
    return _outlook(study, todo, root, finished, cpus, say)


def _outlook(
    study: Study, todo: Plan, root: Path, finished: Mapping[str, int], cpus: int | None, say: Say
) -> StudyOutlook:
    workers = cpus or len(os.sched_getaffinity(0))
    planned = {kind: sum(task.kind == kind for task in todo.tasks) for kind in TASK_KINDS}
    remaining = {kind: max(count - finished.get(kind, 0), 0) for kind, count in planned.items()}
    expected = forecast(todo, root, workers, say).seconds if any(remaining.values()) else {}
    work = tuple(
        KindOfWork(
            row.words,
            remaining[kind],
            todo.wanted[kind] if row.is_shared or todo.wanted[kind] > planned[kind] else None,
            expected.get(kind, 0.0) * remaining[kind] / planned[kind],
        )
        for kind, row in TASK_KINDS.items()
        if remaining[kind]
    )
    poison = [run.poison for run in todo.runs]
    return StudyOutlook(
        title=study.title,
        runs=len(study.runs),
        cells=len(study.cells),
        tasks=sum(remaining.values()),
        poison=(min(poison), max(poison)),
        notes=todo.notes,
        work=work,
        workers=workers,
        seconds=sum(kind.seconds for kind in work) / workers,
    )


def outlook_of_case(case: Case, device: str, say: Say) -> AuditOutlook:
    """The work of an audit.

    Args:
        case: the audit.
        device: where models are trained.
        say: receives a description of the work being timed.

    Raises:
        InputError: the case cannot be audited.
    """
    audit = Audit.from_case(case, device)
    check_threads(case.threads)
    rehearse(audit)
    notes = [audit.poison_in_words(), *audit.data.notes]
    if audit.surplus:
        stages = ", ".join(sorted({name.partition(".")[0] for name in audit.surplus}))
        notes.append(f"the checkpoint's {stages} have no place in the network and are left out")
    expected = forecast(plan_of_audit(audit, case, audit.data.check()), Path(), 1, say)
    return AuditOutlook(case.title, dict(audit.plan()), tuple(notes), expected.total)
