"""A study at work: its tasks given to an executor, and concluded from what is finished."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..audit.computing import check_threads
from ..core import InputError
from ..jobs.cluster import ClusterExecutor
from ..jobs.driver import Driver, Listener
from ..jobs.local import LocalExecutor
from ..jobs.store import status
from ..jobs.task import Executor, Tally
from ..run_folder import DamagedError, load_run
from ..training.source import available
from .folder import Conclusion, conclude, note_plan, noted_runs, reopen
from .grid import Study
from .judge import Missing
from .plan import Planned, plan

WORK = "encircle.study.work:perform"
"""What workers do; named here and nowhere in a file of a study."""


def executor_of(kind: Literal["local", "ray"], address: str | None, cpus: int | None) -> Executor:
    """The executor of this name, not yet started.

    Args:
        kind: worker processes on this machine, or a Ray cluster.
        address: host and port of a running cluster; None starts one on loopback.
        cpus: threads that this machine's workers share; None for all that it has.

    Raises:
        InputError: an address for worker processes on this machine.
    """
    if kind == "ray":
        return ClusterExecutor(WORK, address=address, cpus=cpus)
    if address is not None:
        raise InputError("--address is that of a Ray cluster; say --executor ray too, or leave it out.")
    return LocalExecutor(WORK, cpus=cpus)


def go_on(
    root: Path,
    executor: Executor,
    *,
    listener: Listener | None = None,
    minutes: float | None = None,
    device: str = "cpu",
    gpus: float = 0.0,
    again: bool = False,
    only: Collection[int] | None = None,
) -> Conclusion:
    """Do what is left of a study, and conclude.

    Args:
        root: the study's folder.
        executor: who does it; is closed afterwards.
        listener: told what happens.
        minutes: begin nothing new after so many.
        device: where models are trained.
        gpus: share of an accelerator that training and crafting need.
        again: try failed tasks again.
        only: runs to finish now, by their place in `Study.runs`; what they share with others is kept for those. None: all. Cells of which no run
            is asked for are left out of the conclusion, also where they were finished before: claims are corrected for what is in it.

    Raises:
        InputError: a case cannot be audited, or another process is at work in the folder.
        StorageError: the folder cannot be written.
        KeyboardInterrupt: after everything was stopped cleanly.
    """
    study = reopen(root)
    if isinstance(executor, LocalExecutor):
        _check_machine(study, device)
    todo = plan(study, root, device=device, gpus=gpus)

    def hear(name: str, facts: Mapping[str, Any]) -> None:
        if name == "begin":  # from here on the folder is ours alone
            note_plan(root, todo)
        if listener is not None:
            listener(name, facts)

    asked = None if only is None else [todo.runs[index].task for index in only]
    driver = Driver(root, todo.tasks, executor, listener=hear, again=again, only=asked)
    tally = driver.run(seconds=None if minutes is None else 60 * minutes)
    return _conclude(root, study, tally, only)


def _check_machine(study: Study, device: str) -> None:
    """Refuse a device or more threads than this machine has, where it is this machine that works."""
    available(device)
    for run in study.runs:
        check_threads(run.case.threads)


def standing(root: Path) -> tuple[Tally, list[tuple[str, float]]]:
    """How a study stands, and what is at work since when (seconds since the epoch); also while it runs."""
    return status(root)


def conclude_now(root: Path) -> Conclusion:
    """Judge and draw what is finished, without doing anything more."""
    study = reopen(root)
    tally, _ = status(root)
    return _conclude(root, study, tally)


def _conclude(root: Path, study: Study, tally: Tally, only: Collection[int] | None = None) -> Conclusion:
    if only is not None:
        study = replace(study, cells=tuple(cell for cell in study.cells if set(only) & set(cell.runs)))
    asked = {index for cell in study.cells for index in cell.runs}
    missing = {}
    for index, planned in enumerate(noted_runs(root, study)):
        if index not in asked:
            continue
        if not (root / "runs" / planned.folder / "verdict.json").is_file():
            why, log = tally.reasons.get(
                planned.task, ("it is not done yet; go on with `encircle study resume`.", None)
            )
            missing[planned.task] = Missing(planned.run.case.title, why, log)
        elif trouble := _trouble(root, planned):
            missing[planned.task] = Missing(planned.run.case.title, trouble, None)
    return conclude(root, study, missing, counts=tally.counts, seconds=tally.seconds)


def _trouble(root: Path, planned: Planned) -> str | None:
    """What keeps a finished run from being judged and drawn, with the remedy; None where nothing does."""
    try:
        load_run(root / "runs" / planned.folder)
    except DamagedError as error:
        file = error.path.relative_to(root)
        return f"{file} {error.trouble}; delete {file.parent} and run `encircle study resume` to make it again."
    return None
