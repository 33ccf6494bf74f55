"""Several audits at once, one worker process each, so that every core trains a model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from ..core import EncircleError, InputError, StorageError, internal_error
from ..jobs.local import LocalExecutor
from ..jobs.task import Order, Outcome, Task, Tell
from ..storage import file_error, read_json, write_json
from .audit import Audit
from .case import Case
from .case_file import case_of
from .finish import Judgement, judgement_of
from .progress import Reporter
from .run import run_audit
from .time_limit import UNLIMITED, LimitedReporter, TimeLimit

WORK = "encircle.audit.several:work"
"""The work function of a worker."""

_RESULT = "result.json"
"""The file of a task's product: the run folder's path, or the error that ended the audit."""

_ERRORS = {error.__name__: error for error in (EncircleError, InputError, StorageError)}

_PAUSE = 1.0
"""Seconds of one wait for events; an interrupt ends the wait."""

_ADVANCE_INTERVAL = 0.2
"""Seconds between two progress events of a step."""


def run_cases(
    cases: Sequence[Case],
    runs: Path,
    jobs: int,
    reporter_of: Callable[[int], Reporter],
    *,
    device: str = "cpu",
    limit: TimeLimit = UNLIMITED,
) -> list[Judgement | EncircleError]:
    """Run audits, `jobs` at a time; a failed audit does not stop the others.

    No worker process stays behind, even after an interrupt or an exception of a reporter.

    Args:
        cases: the audits.
        runs: folder of run folders; shared models are trained once and stored there.
        jobs: worker processes; 1 works in this process.
        reporter_of: returns the reporter of the audit with this index in `cases`; called in this process.
        device: where models are trained.
        limit: after it no step may begin; unfinished audits then end with an error.

    Returns:
        For each case its judgement, or the error that ended it. A worker's error keeps its class: `InputError`,
        `StorageError` or `EncircleError`.
    """
    if jobs == 1 or len(cases) == 1:
        return [_audited(case, runs, reporter_of(index), device, limit) for index, case in enumerate(cases)]
    reporters = [reporter_of(index) for index in range(len(cases))]
    shared = {"runs": str(runs), "device": device, "limit": asdict(limit)}
    specs = [{"case": case.model_dump(mode="json"), **shared} for case in cases]
    tasks = [Task(str(index), "audit", cases[index].title, spec, str(index)) for index, spec in enumerate(specs)]

    def report(task: str, event: Sequence[Any]) -> None:
        name, arguments, keywords = event
        getattr(reporters[int(task)], name)(*arguments, **keywords)

    # Workers begin with the same threads as this process: scores are those of one process, bit for bit.
    executor = LocalExecutor(WORK, cpus=jobs, single_thread=False, listener=report)
    with tempfile.TemporaryDirectory(prefix="encircle-audits-") as scratch:
        return _work_off(tasks, executor, Path(scratch))


def _work_off(tasks: Sequence[Task], executor: LocalExecutor, scratch: Path) -> list[Judgement | EncircleError]:
    """Do the tasks, each in its own folder below `scratch`; returns the results in the same order."""
    results: dict[str, Judgement | EncircleError] = {}
    waiting = list(reversed(tasks))
    with closing(executor):
        executor.start()
        while len(results) < len(tasks):
            while waiting and executor.has_room(waiting[-1]):
                task = waiting.pop()
                out = scratch / task.folder
                out.mkdir()
                executor.submit(Order(task, 1, {}, out, scratch / f"{task.folder}.log"))
            for outcome in executor.wait(_PAUSE):
                results[outcome.task] = _result(outcome, scratch / outcome.task / _RESULT)
    return [results[task.id] for task in tasks]


def _result(outcome: Outcome, path: Path) -> Judgement | EncircleError:
    """A worker's result for an audit."""
    if outcome.status == "lost":
        cause = outcome.error.partition(";")[0]
        return EncircleError(f"a worker process ended unexpectedly ({cause}); run again to resume.")
    if outcome.status == "failed":
        return EncircleError(outcome.error)
    try:
        result = read_json(path)
        if "error" in result:
            return _ERRORS[result["error"]](result["sentence"])
        return judgement_of(Path(result["folder"]))
    except (EncircleError, OSError) as error:
        return error if isinstance(error, EncircleError) else file_error(error, path)


def work(kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, tell: Tell) -> None:
    """Run the audit of one case; see `jobs.task.Work`.

    Args:
        kind: ignored, there is one kind.
        spec: `case` (keys and values), `runs` (folder of run folders), `device`, `limit` (`TimeLimit`).
        inputs: none.
        out: the folder for the file with the audit's result.
        tell: receives every call of the audit's reporter, as `[name, arguments, keyword arguments]`.
    """
    try:
        case = case_of(spec["case"], spec["case"]["title"])
        result = _audited(case, Path(spec["runs"]), _Forwarding(tell), spec["device"], TimeLimit(**spec["limit"]))
    except InputError as error:  # a kind that only the starting process knows
        result = error
    if isinstance(result, EncircleError):
        name = next(base.__name__ for base in type(result).__mro__ if base in _ERRORS.values())
        write_json(out / _RESULT, {"error": name, "sentence": str(result)})
    else:
        write_json(out / _RESULT, {"folder": str(result.folder)})


def _audited(case: Case, runs: Path, reporter: Reporter, device: str, limit: TimeLimit) -> Judgement | EncircleError:
    """The judgement of a case, or the error that ended its audit."""
    try:
        return run_audit(Audit.from_case(case, device), runs, LimitedReporter(reporter, limit))
    except EncircleError as error:
        return error
    except OSError as error:
        return file_error(error, runs)
    except Exception as error:
        return EncircleError(internal_error(error))


@final
class _Forwarding:
    """A reporter in a worker: sends every call as an event, to be repeated on the reporter that shows it."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last_advance = 0.0

    def plan(self, title: str, work: dict[str, int]) -> None:
        """Forwarded."""
        self._tell(["plan", [title, work], {}])

    def begin(self, kind: str, label: str) -> None:
        """Forwarded."""
        self._tell(["begin", [kind, label], {}])

    def advance(self, done: int, planned: int) -> None:
        """Forwarded, a few times a second at most."""
        if time.monotonic() - self._last_advance > _ADVANCE_INTERVAL:
            self._last_advance = time.monotonic()
            self._tell(["advance", [done, planned], {}])

    def finish(self, kind: str, *, reused: bool = False) -> None:
        """Forwarded."""
        self._tell(["finish", [kind], {"reused": reused}])
