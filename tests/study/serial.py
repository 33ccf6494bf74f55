"""The slow, obvious way to do a plan: one task after another in this process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from encircle.jobs.task import Order, Outcome
from encircle.study.plan import Plan
from encircle.study.work import perform
from tests.jobs.test_driver import InProcess


def do(plan: Plan, root: Path) -> Counter[str]:
    """Do every task; returns how many there were of each kind."""
    done: dict[str, Path] = {}
    for task in plan.tasks:
        folder = root / task.folder
        folder.mkdir(parents=True)
        perform(task.kind, task.spec, {need: done[need] for need in task.needs}, folder, lambda share: None)
        done[task.id] = folder
    return Counter(task.kind for task in plan.tasks)


class Serial(InProcess):
    """The same as an executor; `done` holds kinds and labels."""

    def submit(self, order: Order) -> None:
        task = order.task
        self.done.append((task.kind, task.label))
        perform(task.kind, task.spec, order.inputs, order.out, lambda share: None)
        self._come.append(Outcome(task.id, "done", 0.0, "here"))
