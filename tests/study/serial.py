"""The slow, obvious way to do a plan: one task after another in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import final

from encircle.jobs.task import Order, Outcome, Task
from encircle.study.plan import Plan
from encircle.study.work import perform


def do(plan: Plan, root: Path) -> Counter[str]:
    """Do every task; returns how many there were of each kind."""
    done: dict[str, Path] = {}
    for task in plan.tasks:
        folder = root / task.folder
        folder.mkdir(parents=True)
        perform(task.kind, task.spec, {need: done[need] for need in task.needs}, folder, lambda share: None)
        done[task.id] = folder
    return Counter(task.kind for task in plan.tasks)


@final
class Serial:
    """The same as an executor: each task at once, in this process."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self._come: list[Outcome] = []

    def start(self) -> None:
        pass

    def has_room(self, task: Task) -> bool:
        return not self._come

    def submit(self, order: Order) -> None:
        task = order.task
        self.done.append((task.kind, task.label))
        perform(task.kind, task.spec, order.inputs, order.out, lambda share: None)
        self._come.append(Outcome(task.id, "done", 0.0, "here"))

    def wait(self, seconds: float) -> list[Outcome]:
        come, self._come = self._come, []
        return come

    def shares(self) -> Mapping[str, float]:
        return {}

    def cancel(self, task: str) -> None:
        pass

    def close(self) -> None:
        pass
