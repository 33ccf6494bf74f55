"""What workers of a study do: named here and in no file of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..audit.computing import computing
from ..audit.users_code import users_errors
from ..jobs.task import Tell
from .task_kinds import TASK_KINDS
from .task_work import TaskWork


def perform(kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, tell: Tell) -> None:
    """Do a task; see `jobs.task.Work`.

    Args:
        kind: which work it is (`TASK_KINDS`).
        spec: what is to be done.
        inputs: the products it reads, by the id of the task that made them.
        out: where its own product goes.
        tell: told how far it is.

    Raises:
        EncircleError: what an audit raises.
    """
    task = TaskWork(spec, inputs, out, tell)
    work = TASK_KINDS[kind].work
    if "case" not in spec:
        work(task)
        return
    with users_errors(), computing(task.case.threads):
        work(task)
