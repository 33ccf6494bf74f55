"""The work function of a study's workers: named here and in no file of a study."""

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
        kind: of task (`TASK_KINDS`).
        spec: of the task.
        inputs: its input products, by the id of their task.
        out: the folder for its own product.
        tell: receives progress.

    Raises:
        EncircleError: as an audit.
    """
    task = TaskWork(spec, inputs, out, tell)
    work = TASK_KINDS[kind].work
    if "case" not in spec:
        work(task)
        return
    with users_errors(), computing(task.case.threads):
        work(task)
