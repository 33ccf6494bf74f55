"""The kinds of task in a study: one row a kind, in the order of their first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from .costs import TaskCost
from .task_work import TaskWork


@final
@dataclass(frozen=True)
class TaskKind:
    """A kind of task.

    Attributes:
        name: its name in tasks and saved studies.
        words: the products of its tasks, for people.
        work: makes a product.
        prior: assumed seconds for a task, until one has been timed.
        cost: seconds for a task, from a probe; None: `prior`, for short tasks.
        is_shared: whether its products serve many runs.
        needs_run: whether it needs tasks of a run, and so comes with them. Other shared kinds come before all runs.
    """

    name: str
    words: str
    work: Callable[[TaskWork], None]
    prior: float = 1.0
    cost: Callable[[TaskCost], float] | None = None
    is_shared: bool = False
    needs_run: bool = True

    @property
    def comes_first(self) -> bool:
        """Whether its tasks come before those of all runs."""
        return self.is_shared and not self.needs_run


TASK_KINDS = {
    kind.name: kind
    for kind in (
        TaskKind("files", "files that cases name", TaskWork.files, 0.1, is_shared=True, needs_run=False),
        TaskKind("data", "data sets, decoded and checked", TaskWork.data, is_shared=True, needs_run=False),
        TaskKind(
            "weights", "starting weights", TaskWork.weights, 15.0, TaskCost.weights, is_shared=True, needs_run=False
        ),
        TaskKind(
            "features",
            "training sets after frozen stages",
            TaskWork.features,
            1.0,
            TaskCost.features,
            is_shared=True,
            needs_run=False,
        ),
        TaskKind("path", "code paths, measured", TaskWork.path, is_shared=True, needs_run=False),
        TaskKind(
            "model",
            "clean victims and attacker's models",
            TaskWork.model,
            2.0,
            TaskCost.model,
            is_shared=True,
            needs_run=False,
        ),
        TaskKind("ensemble", "ensembles", TaskWork.ensemble, 5.0, TaskCost.ensemble, is_shared=True, needs_run=False),
        TaskKind("targets", "draws of targets", TaskWork.targets, is_shared=True, needs_run=False),
        TaskKind(
            "unexplained",
            "poisons and victims that serve every explainer",
            TaskWork.shared_victims,
            4.0,
            TaskCost.victims,
            is_shared=True,
        ),
        TaskKind("clean", "targets and their clean scores", TaskWork.clean, 1.0, TaskCost.scoring),
        TaskKind("control", "control arms", TaskWork.arm, 3.0, TaskCost.control),
        TaskKind("attack", "attack arms", TaskWork.arm, 25.0, TaskCost.attack),
        TaskKind("defended", "arms under a defence", TaskWork.arm, 4.0, TaskCost.defended),
        TaskKind("ceiling", "ceilings", TaskWork.ceiling, 1.0, TaskCost.ceiling),
        TaskKind("run", "runs put together and judged", TaskWork.run, 2.0),
    )
}
"""Every kind of task, by its name."""
