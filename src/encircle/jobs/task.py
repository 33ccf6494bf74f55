"""Tasks, orders, outcomes and executors: the vocabulary of driver and executors. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, final

Tell = Callable[[float | Sequence[Any]], None]
"""Receives the finished share of a task, from 0 to 1, or an event: a JSON-able list.

Events go to the listener of a `LocalExecutor`. A cluster ignores both.
"""

Work = Callable[[str, Mapping[str, Any], Mapping[str, Path], Path, Tell], None]
"""The signature of work: `work(kind, spec, inputs, out, tell)`.

It reads the products of the tasks it needs (`inputs`: folders by task id) and writes files below the empty folder
`out`. They become its product if it returns. The same task gives the same files, on every worker and every time.
"""


@final
@dataclass(frozen=True)
class Task:
    """A unit of work, named by a hash of its content.

    Attributes:
        id: hex digits of a hash over everything that decides the product.
        kind: of work; tasks of one kind take about the same time.
        label: its name for people.
        spec: input of the work function; JSON-able.
        folder: for its product, relative to the study's folder, with forward slashes.
        needs: ids of the tasks whose products it reads.
        cpus: threads it computes with.
        gpus: share of an accelerator it needs.
        limit: seconds after which it counts as hung and is ended.
        is_result: whether the product is a result; others are deleted once every task that needs them is done.
        here: whether it must run on the driver's machine (it combines other products).
    """

    id: str
    kind: str
    label: str
    spec: Mapping[str, Any]
    folder: str
    needs: tuple[str, ...] = ()
    cpus: int = 1
    gpus: float = 0.0
    limit: float = 7200.0
    is_result: bool = True
    here: bool = False


@final
@dataclass(frozen=True)
class Order:
    """An order to an executor: one attempt at a task.

    Attributes:
        task: the task.
        attempt: 1 for the first.
        inputs: folders of the products it needs, by task id, on the driver's disk.
        out: the empty folder on the driver's disk that the executor fills with the product's files.
        log: the file for the attempt's output, on the driver's disk.
    """

    task: Task
    attempt: int
    inputs: Mapping[str, Path]
    out: Path
    log: Path


@final
@dataclass(frozen=True)
class Outcome:
    """The outcome of an attempt.

    Attributes:
        task: its id.
        status: `"done"` (the product lies in the order's `out`), `"failed"` (the work raised an error: it would again) or
            `"lost"` (the process or the machine ended: another attempt may succeed).
        seconds: of the work itself.
        worker: its worker, for people.
        error: one sentence; empty when done.
    """

    task: str
    status: Literal["done", "failed", "lost"]
    seconds: float
    worker: str
    error: str = ""


class Executor(Protocol):
    """Does tasks: on worker processes of this machine, or on a cluster. Called from the driver's single thread.

    An executor is configured in its constructor. `start()` comes first and `close()` last, the other methods in between.
    """

    def start(self) -> None:
        """Begin; raises `InputError` if a library is missing or an address does not answer."""

    def has_room(self, task: Task) -> bool:
        """Whether this task would begin about at once; raises `InputError` if it never could."""

    def submit(self, order: Order) -> None:
        """Begin an attempt; returns at once. Called only after `has_room` returned True."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Outcomes since the last call, waiting at most this long for the first."""

    def shares(self) -> Mapping[str, float]:
        """The progress of running tasks, by id, where known."""

    def cancel(self, task: str) -> None:
        """End a running attempt by force; it has no outcome. An unknown id is ignored."""

    def close(self) -> None:
        """End all attempts, and leave no process behind."""


@final
@dataclass
class Tally:
    """The state of a study.

    Attributes:
        counts: tasks by kind, then by state (`"waiting"`, `"running"`, `"done"`, `"failed"`, `"blocked"`).
        failures: label, sentence and log (relative to the study's folder, or None) of each failed task.
        reasons: for each unreachable result, by its task's id: sentence and log of the failed task.
        seconds: total time of finished attempts, by kind.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[tuple[str, str, str | None]] = field(default_factory=list)
    reasons: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
