"""Runs a study: an executor does its tasks, and the finished runs give its conclusion."""

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
from ..run_folder import DamagedError, NewerError, load_run
from ..training.source import available
from .folder import Conclusion, conclude, note_plan, noted_runs, reopen
from .grid import Study
from .judge import Missing
from .plan import Planned, plan

WORK = "encircle.study.work:perform"
"""The work function of workers; named here and in no file of a study."""


def executor_of(kind: Literal["local", "ray"], address: str | None, cpus: int | None) -> Executor:
    """The executor of this name, not yet started.

    Args:
        kind: worker processes on this machine, or a Ray cluster.
        address: host and port of a running cluster; None starts one on loopback.
        cpus: threads shared by this machine's workers; None: all of them.

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
    """Do the remaining work of a study, and conclude.

    Args:
        root: the study's folder.
        executor: does the tasks; closed afterwards.
        listener: receives events.
        minutes: begin no new work after this time.
        device: where models are trained.
        gpus: share of an accelerator that training and crafting need.
        again: try failed tasks again.
        only: runs to finish now, by index in `Study.runs`; products that they share with others stay. None: all. The conclusion leaves out cells
            without such a run, even finished ones: claims are corrected for the cells in the conclusion.

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
        if name == "begin":  # from here on only this process works in the folder
            note_plan(root, todo)
        if listener is not None:
            listener(name, facts)

    asked = None if only is None else [todo.runs[index].task for index in only]
    driver = Driver(root, todo.tasks, executor, listener=hear, again=again, only=asked)
    tally = driver.run(seconds=None if minutes is None else 60 * minutes)
    return _conclude(root, study, tally, only)


def _check_machine(study: Study, device: str) -> None:
    """Refuse a device that this machine lacks, or more threads than it has, if this machine does the work."""
    available(device)
    for run in study.runs:
        check_threads(run.case.threads)


def standing(root: Path) -> tuple[Tally, list[tuple[str, float]]]:
    """The state of a study, and its running tasks with their start (seconds since the epoch)."""
    return status(root)


def conclude_now(root: Path) -> Conclusion:
    """Judge and draw the finished runs, without further work."""
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
    """The reason why a finished run cannot be judged and drawn, with the remedy; None without one."""
    try:
        load_run(root / "runs" / planned.folder)
    except DamagedError as error:
        file = error.path.relative_to(root)
        return f"{file} {error.trouble}; delete {file.parent} and run `encircle study resume` to make it again."
    except NewerError as error:
        return str(error)
    return None
