"""Stub work for the tests of the Ray executor; it keeps a journal of who began and ended what."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encircle.core import InputError
from encircle.jobs.task import Task, Tell

WORK = "tests.jobs.cluster_work:work"


def work(kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, tell: Tell) -> None:
    print("doing", kind, spec["name"])
    note(spec, "begin")
    time.sleep(spec.get("seconds", 0.0))
    if kind == "refuse":
        raise InputError("this cannot be used; use another.")
    if kind == "break":
        raise ZeroDivisionError("nought")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "look":
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "ENCIRCLE_ACCELERATOR")
        (out / "environment").write_text("\n".join(f"{name}={os.environ.get(name)}" for name in names))
    read = b"".join((inputs[name] / "deep" / "value").read_bytes() for name in sorted(inputs))
    (out / "deep").mkdir()
    (out / "deep" / "value").write_bytes(hashlib.sha256(spec["name"].encode() + read).digest() * spec.get("size", 1))
    tell(1.0)
    note(spec, "end")


def note(spec: Mapping[str, Any], what: str) -> None:
    if "journal" in spec:
        with Path(spec["journal"]).open("a") as journal:
            journal.write(f"{what} {spec['name']} {os.getpid()} {os.getppid()}\n")


def notes(journal: Path) -> list[tuple[str, str, int, int]]:
    """What was noted, who, its process and the process that started it (a node's raylet)."""
    lines = [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []
    return [(what, name, int(process), int(parent)) for what, name, process, parent in lines]


def study(journal: Path, count: int, seconds: float) -> list[Task]:
    """Tasks that read each other's products: many, two that read them all, one that is done here."""
    spec = {"journal": str(journal)}
    ids = [f"{number:040x}" for number in range(count + 3)]
    makes = [
        Task(ids[n], "make", f"make {n}", {**spec, "name": f"make-{n}", "seconds": seconds, "size": 8192}, f"made/{n}")
        for n in range(count)
    ]
    both = [
        Task(ids[n], "sum", f"sum {n}", {**spec, "name": f"sum-{n}"}, f"sums/{n}", needs=tuple(ids[:count]))
        for n in (count, count + 1)
    ]
    last = Task(ids[-1], "end", "end", {**spec, "name": "end"}, "sums/end", needs=(both[0].id, both[1].id), here=True)
    return [*makes, *both, last]


def reference(tasks: list[Task], folder: Path) -> None:
    """The same, one after the other in this process."""
    folders: dict[str, Path] = {}
    for task in tasks:
        folders[task.id] = folder / task.folder
        folders[task.id].mkdir(parents=True)
        spec = {name: value for name, value in task.spec.items() if name not in {"journal", "seconds"}}
        work(task.kind, spec, {need: folders[need] for need in task.needs}, folders[task.id], lambda share: None)
