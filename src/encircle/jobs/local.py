"""Worker processes on this machine that share its threads: the executor without a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from .task import Order, Outcome, Task

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

EventListener = Callable[[str, Sequence[Any]], None]
"""Receives a task's id and an event of its work."""


@final
@dataclass
class _Worker:
    """One worker process and its current order.

    Attributes:
        process: the process.
        messages: descriptor of the pipe for its lines.
        descriptors: of the pipe and of its end; readable when there is news, and closed with the worker.
        order: its current order.
        started: start of the order, in seconds of the monotonic clock.
        unfinished_line: the beginning of its next line.
    """

    process: subprocess.Popen[bytes]
    messages: int
    descriptors: list[int]
    order: Order | None = None
    started: float = 0.0
    unfinished_line: bytes = b""


@final
@dataclass
class LocalExecutor:
    """Does tasks in long-lived processes, as many at a time as the machine has threads.

    Args:
        work: the work function, `"module:function"`, which workers import.
        cpus: threads shared by the tasks; default: all that this process may use. A task that wants more threads
            runs alone.
        single_thread: whether numeric libraries begin with one thread in a worker, whatever the environment says; the work
            itself asks for more. Sums of more than 10,000 numbers by numpy's BLAS depend on it in their last bit.
        listener: receives the events of tasks, in order, during `wait`, which passes its exceptions on.
    """

    work: str
    cpus: int | None = None
    single_thread: bool = True
    listener: EventListener | None = None
    _workers: list[_Worker] = field(default_factory=list, init=False)
    _shares: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    @property
    def threads(self) -> int:
        """The budget of threads."""
        return self.cpus or len(os.sched_getaffinity(0))

    def start(self) -> None:
        """Does nothing: workers start when needed."""

    def has_room(self, task: Task) -> bool:
        """Whether enough threads are free."""
        used = sum(worker.order.task.cpus for worker in self._workers if worker.order is not None)
        return used == 0 or used + task.cpus <= self.threads

    def submit(self, order: Order) -> None:
        """Begin an attempt in an idle worker, or a new one."""
        worker = next((worker for worker in self._workers if worker.order is None), None) or self._start_worker()
        worker.order, worker.started = order, time.monotonic()
        line = {
            "task": order.task.id,
            "kind": order.task.kind,
            "spec": order.task.spec,
            "inputs": {name: str(folder) for name, folder in order.inputs.items()},
            "out": str(order.out),
            "log": str(order.log),
        }
        with contextlib.suppress(BrokenPipeError):  # it has just died; `wait` will notice
            assert worker.process.stdin is not None  # noqa: S101 - it was opened as a pipe
            worker.process.stdin.write(json.dumps(line).encode() + b"\n")
            worker.process.stdin.flush()

    def wait(self, seconds: float) -> list[Outcome]:
        """Outcomes; returns as soon as there is one."""
        outcomes: list[Outcome] = []
        deadline = time.monotonic() + seconds
        while not outcomes:
            remaining = deadline - time.monotonic()
            events = self._selector.select(max(remaining, 0.0))
            for worker in {id(key.data): key.data for key, _ in events}.values():
                outcomes += self._read(worker)
            if remaining <= 0 or not self._workers:
                break
        return outcomes

    def shares(self) -> Mapping[str, float]:
        """The progress of each running task that reported it."""
        return self._shares

    def cancel(self, task: str) -> None:
        """End the process that does this task."""
        for worker in list(self._workers):
            if worker.order is not None and worker.order.task.id == task:
                self._end_worker(worker)

    def close(self) -> None:
        """End all workers."""
        for worker in list(self._workers):
            self._end_worker(worker)
        self._selector.close()
        self._selector = selectors.DefaultSelector()

    def _start_worker(self) -> _Worker:
        """Start a worker.

        If an interrupt prevents its registration, the worker ends by itself: its standard input is closed.
        """
        paths = [path or str(Path.cwd()) for path in sys.path]  # no others: -P leaves out the working directory
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        if self.single_thread:
            environment |= dict.fromkeys(_ONE_THREAD, "1")
        reading, writing = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "encircle.jobs.worker", self.work, str(writing)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[writing],
                start_new_session=True,
                env=environment,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._workers.append(worker := _Worker(process, reading, [reading]))
        os.set_blocking(reading, False)
        with contextlib.suppress(OSError, AttributeError):  # on a system without such descriptors
            worker.descriptors.append(os.pidfd_open(process.pid))
        for descriptor in worker.descriptors:
            self._selector.register(descriptor, selectors.EVENT_READ, worker)
        return worker

    def _end_worker(self, worker: _Worker) -> None:
        """End a worker with all processes that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        while worker.descriptors:
            descriptor = worker.descriptors.pop()
            with contextlib.suppress(KeyError):  # an interrupt came before its registration
                self._selector.unregister(descriptor)
            os.close(descriptor)
        if worker.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
        self._workers.remove(worker)
        if worker.order is not None:
            self._shares.pop(worker.order.task.id, None)

    def _read(self, worker: _Worker) -> list[Outcome]:
        try:
            content = os.read(worker.messages, 1 << 16)
        except BlockingIOError:  # no message: the worker may have ended while a child of its work still holds the pipe
            return [] if worker.process.poll() is None else self._lost_outcome(worker)
        if not content:
            return self._lost_outcome(worker)
        *lines, worker.unfinished_line = (worker.unfinished_line + content).split(b"\n")
        return [outcome for line in lines if (outcome := self._outcome_of(worker, json.loads(line))) is not None]

    def _outcome_of(self, worker: _Worker, message: Mapping[str, Any]) -> Outcome | None:
        order = worker.order
        if order is None or message.get("task") != order.task.id:
            return None
        if message["word"] == "share":
            self._shares[order.task.id] = message["share"]
            return None
        if message["word"] == "event":
            if self.listener is not None:
                self.listener(order.task.id, message["event"])
            return None
        worker.order = None
        self._shares.pop(order.task.id, None)
        status = "failed" if message["error"] else "done"
        return Outcome(order.task.id, status, message["seconds"], self._name_of(worker), message["error"])  # type: ignore[arg-type]

    def _lost_outcome(self, worker: _Worker) -> list[Outcome]:
        """A worker has ended by itself: its task is lost."""
        code = worker.process.wait()
        order, seconds = worker.order, time.monotonic() - worker.started
        self._end_worker(worker)
        if order is None:
            return []
        return [Outcome(order.task.id, "lost", seconds, self._name_of(worker), _cause_of_end(code))]

    def _name_of(self, worker: _Worker) -> str:
        return f"process {worker.process.pid}"


def _cause_of_end(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, most likely for want of memory; run fewer tasks at a time (--cpus)."
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}; see its log."
    return f"its process ended with code {code}; see its log."
