"""The driver: submits ready tasks to an executor, commits their products, then records them."""

from __future__ import annotations

import contextlib
import heapq
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..core import InputError, StorageError, digest
from ..storage import exclusive_lock, sweep
from .products import commit, is_complete, remove, seal
from .store import Store
from .task import Executor, Order, Outcome, Tally, Task

Listener = Callable[[str, Mapping[str, Any]], None]
"""Receives events: a name and JSON-able facts.

`begin` (counts), `rebuilt` (message), then for a task (task, kind, label, attempt) `start`, `progress` (share), `done`
(seconds), `lost` (error), `failed` (error, log), and `end` (counts).
"""

_LOOK = 32
"""Number of ready tasks that are offered to the executor, until one has room."""

_STALE = 60.0
"""Seconds. An older file under a temporary name was left by a killed process."""

_PAUSE = 1.0
"""Seconds between checks of limits and progress while no outcome comes in."""


@final
@dataclass
class _Running:
    order: Order
    since: float


@final
class Driver:
    """Does the remaining ones of a set of tasks, in a folder that it has locked.

    Args:
        folder: the study's folder: products go where tasks say; `scratch/`, `logs/` and the database beside them.
        tasks: all tasks; every task follows those that it needs. Tasks that no unfinished result needs are not done.
        executor: does the tasks; started and closed here.
        listener: receives events.
        attempts: number of tries for a task whose process or machine ended.
        again: try failed tasks again.
        only: results to finish now, by id; products for the other results stay. None: all.
    """

    def __init__(
        self,
        folder: Path,
        tasks: Sequence[Task],
        executor: Executor,
        *,
        listener: Listener | None = None,
        attempts: int = 3,
        again: bool = False,
        only: Collection[str] | None = None,
    ) -> None:
        self._folder = folder
        self._tasks = {task.id: task for task in tasks}
        self._order = list(tasks)
        self._index = {task.id: index for index, task in enumerate(tasks)}
        self._executor = executor
        self._listener: Listener = listener or (lambda name, facts: None)
        self._attempts = attempts
        self._again = again
        self._wanted = None if only is None else self._with_needs(only)
        self._running: dict[str, _Running] = {}
        self._lost: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._ready: list[int] = []
        self._missing: dict[str, int] = {}
        self._dependents: dict[str, list[str]] = {}
        self._readers: dict[str, int] = {}

    def run(self, *, seconds: float | None = None) -> Tally:
        """Do the remaining tasks.

        Args:
            seconds: begin no task after this time; running tasks finish.

        Returns:
            The state of the study.

        Raises:
            InputError: another driver is at work in the folder, or the executor cannot start.
            StorageError: the database cannot be written; recorded tasks stay.
            KeyboardInterrupt: after all tasks were stopped; they wait again.
        """
        with exclusive_lock(self._folder):
            self._sweep()
            store = Store(self._folder)
            try:
                if store.rebuilt:
                    self._listener("rebuilt", {"message": store.rebuilt})
                store.register(list(self._tasks.values()))
                if self._again:
                    store.set_states("waiting", [task for task, state in store.states().items() if state == "failed"])
                self._reconcile(store)
                self._numbers = store.attempts()
                self._listener("begin", {"counts": self._counts(store)})
                if self._ready:
                    self._work(store, None if seconds is None else time.monotonic() + seconds)
                tally = store.tally()
                self._listener("end", {"counts": tally.counts})
                return tally
            finally:
                store.close()

    # -- remaining tasks -----------------------------------------------------------------------------------------------

    def _with_needs(self, results: Collection[str]) -> set[str]:
        needed, look = set[str](), list(results)
        while look:
            name = look.pop()
            if name not in needed:
                needed.add(name)
                look += self._tasks[name].needs
        return needed

    def _counts(self, store: Store) -> dict[str, dict[str, int]]:
        """Counts of the wanted tasks, by kind and state."""
        if self._wanted is None:
            return store.tally().counts
        counts: dict[str, dict[str, int]] = {}
        for name, state in store.states().items():
            if name in self._wanted:
                kind = counts.setdefault(self._tasks[name].kind, {})
                kind[state] = kind.get(state, 0) + 1
        return counts

    def _make_ready(self, name: str) -> None:
        if self._wanted is None or name in self._wanted:
            heapq.heappush(self._ready, self._index[name])

    def _sweep(self) -> None:
        shutil.rmtree(self._folder / "scratch", ignore_errors=True)
        for name in sorted({task.folder.partition("/")[0] for task in self._tasks.values()}):
            sweep(self._folder / name)
        for leftover in self._folder.glob(".partial-*"):
            with contextlib.suppress(OSError):  # its writer may just be done
                if time.time() - leftover.stat().st_mtime > _STALE:
                    leftover.unlink()
        for log in (self._folder / "logs").glob("*.log"):
            with contextlib.suppress(OSError):
                if log.stat().st_size == 0:  # of a cut-off attempt
                    log.unlink()

    def _reconcile(self, store: Store) -> None:
        """Make the database and the disk agree, and collect the missing tasks that unfinished results need."""
        states = store.states()
        complete: dict[str, bool] = {}
        todo: list[str] = []
        look = [task.id for task in reversed(self._tasks.values()) if task.is_result]
        while look:
            task = self._tasks[look.pop()]
            if task.id in complete:
                continue
            complete[task.id] = is_complete(self._folder / task.folder, task.id, thorough=not task.is_result)
            if not complete[task.id]:
                todo.append(task.id)
                look += task.needs
        unfinished = set(todo)
        store.set_states("done", [task for task in self._tasks if task not in unfinished and states[task] != "done"])
        store.set_states("waiting", [task for task in todo if states[task] == "done"])
        failed = {task for task in todo if states[task] == "failed"}
        for name in todo:
            needs = self._tasks[name].needs
            missing = [need for need in needs if not complete[need]]
            self._missing[name] = len(missing)
            for need in missing:
                self._dependents.setdefault(need, []).append(name)
            for need in needs:
                self._readers[need] = self._readers.get(need, 0) + 1
            if not missing and name not in failed:
                self._make_ready(name)
        self._drop_unread()

    def _drop_unread(self) -> None:
        """Delete products that no task needs; a killed driver may have left some."""
        for task in self._tasks.values():
            if not task.is_result and not self._readers.get(task.id) and (self._folder / task.folder).exists():
                remove(self._folder / task.folder)

    # -- at work -------------------------------------------------------------------------------------------------------

    def _work(self, store: Store, deadline: float | None) -> None:
        try:
            self._executor.start()
            while True:
                if deadline is None or time.monotonic() < deadline:
                    self._submit(store)
                    if not self._running and not self._ready:
                        return
                elif not self._running:
                    return
                pause = _PAUSE if self._running else _PAUSE / 5
                began = time.monotonic()
                outcomes = self._executor.wait(pause)
                for outcome in outcomes:
                    self._settle(store, outcome)
                self._look_after_running(store)
                if not outcomes and not self._running and time.monotonic() - began < pause:
                    time.sleep(pause)  # no running task to wait for, as on a cluster without a machine
        finally:
            self._executor.close()
            if self._running:
                store.interrupt()
            shutil.rmtree(self._folder / "scratch", ignore_errors=True)

    def _submit(self, store: Store) -> None:
        """Begin ready tasks in order, as far as there is room; a task without room lets a smaller one pass."""
        passed: list[int] = []
        while self._ready and len(passed) < _LOOK:
            index = heapq.heappop(self._ready)
            task = self._order[index]
            try:
                room = self._executor.has_room(task)
            except InputError as error:
                self._fail(store, Outcome(task.id, "failed", 0.0, "", str(error)), self._begin(store, task).attempt)
                continue
            if not room:
                passed.append(index)
                if not self._running:
                    break
                continue
            self._executor.submit(self._begin(store, task))
        for index in passed:
            heapq.heappush(self._ready, index)

    def _begin(self, store: Store, task: Task) -> Order:
        number = self._numbers[task.id] = self._numbers.get(task.id, 0) + 1
        name = f"{task.kind}-{digest(task.id)[:12]}-{number}"
        out, log = self._folder / "scratch" / name, self._folder / "logs" / f"{name}.log"
        inputs = {need: self._folder / self._tasks[need].folder for need in task.needs}
        order = Order(task, number, inputs, out, log)
        try:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot write {self._folder}: {error.strerror or error}; free some space, then go on with `encircle study resume`."
            ) from error
        store.begin(task.id, number)
        self._running[task.id] = _Running(order, time.monotonic())
        self._listener("start", self._facts(order))
        return order

    def _settle(self, store: Store, outcome: Outcome) -> None:
        running = self._running.get(outcome.task)
        if running is None:
            return
        order = running.order
        if outcome.status == "done":
            self._commit(store, order, outcome)
        elif outcome.status == "lost" and self._lost.get(outcome.task, 0) + 1 < self._attempts:
            self._lost[outcome.task] = self._lost.get(outcome.task, 0) + 1
            store.end(outcome, order.attempt, "waiting", self._log_name(order))
            self._clear(order)
            self._listener("lost", {**self._facts(order), "error": outcome.error})
            heapq.heappush(self._ready, self._index[outcome.task])
        else:
            self._fail(store, outcome, order.attempt)

    def _commit(self, store: Store, order: Order, outcome: Outcome) -> None:
        task = order.task
        try:
            seal(order.out, task)
            commit(order.out, self._folder / task.folder)
        except StorageError as error:
            self._fail(store, Outcome(task.id, "failed", outcome.seconds, outcome.worker, str(error)), order.attempt)
            return
        store.end(outcome, order.attempt, "done", None)
        with contextlib.suppress(OSError):
            order.log.unlink()
        self._clear(order)
        self._listener("done", {**self._facts(order), "seconds": outcome.seconds})
        for dependent in self._dependents.pop(task.id, []):
            self._missing[dependent] -= 1
            if self._missing[dependent] == 0:
                self._make_ready(dependent)
        for need in task.needs:
            self._readers[need] -= 1
            if not self._readers[need] and not self._tasks[need].is_result:
                remove(self._folder / self._tasks[need].folder)

    def _fail(self, store: Store, outcome: Outcome, attempt: int) -> None:
        order = self._running[outcome.task].order
        log = self._log_name(order)
        store.end(outcome, attempt, "failed", log)
        self._clear(order)
        self._listener("failed", {**self._facts(order), "error": outcome.error, "log": log})

    def _look_after_running(self, store: Store) -> None:
        shares = self._executor.shares()
        for running in list(self._running.values()):
            task, spent = running.order.task, time.monotonic() - running.since
            if spent > task.limit:
                self._executor.cancel(task.id)
                sentence = f"it took longer than its limit of {task.limit / 60:g} minutes and was ended; raise the study's limit, or look into its log."
                self._fail(store, Outcome(task.id, "failed", spent, "", sentence), running.order.attempt)
            elif task.id in shares:
                self._listener("progress", {**self._facts(running.order), "share": shares[task.id]})

    def _clear(self, order: Order) -> None:
        """Forget an ended attempt."""
        del self._running[order.task.id]
        shutil.rmtree(order.out, ignore_errors=True)

    def _log_name(self, order: Order) -> str | None:
        """The log of a failed attempt, by its name in the study's folder; an empty one is deleted."""
        with contextlib.suppress(OSError):
            if order.log.stat().st_size:
                return order.log.relative_to(self._folder).as_posix()
            order.log.unlink()
        return None

    def _facts(self, order: Order) -> dict[str, Any]:
        task = order.task
        return {"task": task.id, "kind": task.kind, "label": task.label, "attempt": order.attempt}
