"""What is to be done, by whom, and what became of it: the words that the driver and every executor share. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, final

Tell = Callable[[float | Sequence[Any]], None]
"""Told the share of a task that is done, from 0 to 1, or an event: a JSON-able list.

Events are for whoever started a `LocalExecutor` with a listener. A cluster ignores both.
"""

Work = Callable[[str, Mapping[str, Any], Mapping[str, Path], Path, Tell], None]
"""What a task's work looks like: `work(kind, spec, inputs, out, tell)`.

It reads the products of the tasks it needs (`inputs`: folders by task id) and writes files below the empty folder
`out`, which become its product if it returns. The same task gives the same files, whoever does it and however often.
"""


@final
@dataclass(frozen=True)
class Task:
    """A piece of work that is known by its content.

    Attributes:
        id: hex digits of a hash over everything that decides the product.
        kind: which work it is; pieces of one kind take about the same time.
        label: what it is called for people.
        spec: what the work function is given; JSON-able.
        folder: where its product goes, relative to the study's folder, with forward slashes.
        needs: ids of the tasks whose products it reads.
        cpus: threads it computes with.
        gpus: share of an accelerator it needs.
        limit: seconds after which it counts as hung and is ended.
        is_result: whether the product is a result; others are deleted once every task that needs them is done.
        here: whether it only makes sense on the driver's machine (it puts together what others made).
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
    """One attempt at a task, as an executor gets it.

    Attributes:
        task: what to do.
        attempt: 1 for the first.
        inputs: folders of the products it needs, by task id, on the driver's disk.
        out: the empty folder on the driver's disk that the executor fills with the product's files.
        log: where the executor puts what the attempt printed, on the driver's disk.
    """

    task: Task
    attempt: int
    inputs: Mapping[str, Path]
    out: Path
    log: Path


@final
@dataclass(frozen=True)
class Outcome:
    """What became of an attempt.

    Attributes:
        task: its id.
        status: `"done"` (the product lies in the order's `out`), `"failed"` (the work raised an error: it would again) or
            `"lost"` (the process or the machine ended under it: another attempt may succeed).
        seconds: how long the work itself took.
        worker: who did it, for people.
        error: one sentence; empty when done.
    """

    task: str
    status: Literal["done", "failed", "lost"]
    seconds: float
    worker: str
    error: str = ""


class Executor(Protocol):
    """Who does tasks: worker processes on this machine, or a cluster. Everything is called from the driver's one thread.

    An executor is configured in its constructor and used as `start()`, then any of the others, then `close()`.
    """

    def start(self) -> None:
        """Begin; raises `InputError` where it cannot (a library is missing, an address does not answer)."""

    def has_room(self, task: Task) -> bool:
        """Whether this task would begin about at once; raises `InputError` for one that never could."""

    def submit(self, order: Order) -> None:
        """Begin an attempt; returns at once. Asked only after `has_room` said yes."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Outcomes that came in, waiting at most this long for the first."""

    def shares(self) -> Mapping[str, float]:
        """How far each running task is, by id, where it is known."""

    def cancel(self, task: str) -> None:
        """End a running attempt, by force; no outcome of it comes in any more. An unknown id is ignored."""

    def close(self) -> None:
        """End everything, running attempts too, and leave no process behind."""


@final
@dataclass
class Tally:
    """How a study stands.

    Attributes:
        counts: tasks by kind, then by state (`"waiting"`, `"running"`, `"done"`, `"failed"`, `"blocked"`).
        failures: label, sentence and log (relative to the study's folder, None where there is none) of each failed task.
        reasons: for each result that cannot be reached, by its task's id: the sentence and log of what failed.
        seconds: time that finished attempts took in all, by kind.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[tuple[str, str, str | None]] = field(default_factory=list)
    reasons: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
