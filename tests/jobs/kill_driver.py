"""Kill a study's driver at random moments, go on each time, and tell what is left of it.

`python -m tests.jobs.kill_driver FOLDER KILLS SEED [local|cluster]` prints one JSON line; a process of its own, because it starts and kills
others. The tasks are stubs, short enough that kills fall into every phase: starting, working, committing, recording, clearing up.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from encircle.jobs.driver import Driver
from encircle.jobs.local import LocalExecutor
from encircle.jobs.products import is_complete
from encircle.jobs.store import DATABASE
from encircle.jobs.task import Executor, Task

from .stubs import WORK, reference, scores_of, task

HERE = Path(__file__).resolve().parents[2]
MARK = "ENCIRCLE_KILL_TEST"
"""In the environment of every process of one killed driver, by which what outlives it is found."""

EXPECTED = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", ".lock", "runs", "pieces", "logs"}


def tasks_of(counter: Path, layers: int, seconds: float) -> list[Task]:
    """Shared tasks, pieces that need them, and results that need pieces: fifteen a layer."""
    tasks: list[Task] = []
    for layer in range(layers):
        first = 15 * layer
        common = {"count": str(counter), "seconds": seconds, "size": 40_000}
        tasks += [task(first + number, is_result=False, **common) for number in range(3)]
        tasks += [task(first + 3 + n, (first + n % 3,), is_result=False, **common) for n in range(8)]
        tasks += [task(first + 11 + n, (first + 3 + 2 * n, first + 4 + 2 * n), **common) for n in range(4)]
    return tasks


def executor_of(kind: str) -> Executor:
    if kind == "local":
        return LocalExecutor(WORK, cpus=2)
    from encircle.jobs.cluster import ClusterExecutor

    return ClusterExecutor(WORK, cpus=2)


def drive(root: Path, counter: Path, kind: str, layers: int, seconds: float) -> None:
    """What the driver that is killed does."""
    Driver(root, tasks_of(counter, layers, seconds), executor_of(kind)).run()


def outliving(mark: str) -> list[str]:
    """Processes that carry the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80])
        except OSError:
            continue
    return found


def recorded(root: Path) -> set[str]:
    """Labels of the tasks that are recorded as done, read from a copy: what the driver left is what it goes on with."""
    if not (root / DATABASE).is_file():
        return set()
    with tempfile.TemporaryDirectory() as folder:
        for path in root.glob(f"{DATABASE}*"):
            shutil.copyfile(path, Path(folder) / path.name)
        with contextlib.closing(sqlite3.connect(Path(folder) / DATABASE)) as connection:
            try:
                rows = connection.execute("SELECT label FROM tasks WHERE state = 'done'").fetchall()
            except sqlite3.OperationalError:  # killed before there were tables
                return set()
    return {label.removeprefix("task ") for (label,) in rows}


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    kind = sys.argv[4] if len(sys.argv) > 4 else "local"
    layers, seconds, longest = (4, 0.02, 0.9) if kind == "local" else (4, 0.3, 14.0)
    choose = random.Random(seed)
    killed, studies, again, orphans, phases = 0, 0, 0, 0, Counter[str]()
    wrong: list[str] = []
    started = time.monotonic()
    while killed < kills:
        root, counter = folder / f"study-{studies}", folder / f"count-{studies}"
        finished, tasks = False, tasks_of(counter, layers, seconds)
        while not finished and killed < kills:
            done_before, ran_before = recorded(root) if root.is_dir() else set(), lines(counter)
            mark = f"{os.getpid()}-{studies}-{killed}-{time.monotonic_ns()}"
            child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.jobs.kill_driver",
                    "drive",
                    str(root),
                    str(counter),
                    kind,
                    str(layers),
                    str(seconds),
                ],
                cwd=HERE,
                env={**os.environ, MARK: mark},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            delay = choose.uniform(0.2, longest)
            if killed % 2:  # from when it is at work, which on a busy machine it may not be for seconds
                delay /= 3
                deadline = time.monotonic() + 60.0
                while not (root / "scratch").is_dir() and child.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.01)
            try:
                finished = child.wait(delay) == 0
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
                killed += 1
                phases["scratch"] += (root / "scratch").is_dir()
                phases["half a product"] += bool([*root.glob("*/.partial-*"), *root.glob("scratch/*/product.json")])
                whole = {one.label.removeprefix("task ") for one in tasks if is_complete(root / one.folder, one.id)}
                phases["unrecorded"] += bool(whole - recorded(root)) if root.is_dir() else False
            deadline = time.monotonic() + 60.0  # until whatever has ended is gone
            while (left := outliving(mark)) and time.monotonic() < deadline:
                time.sleep(0.05)
            orphans += len(left)
            ran = lines(counter) - ran_before
            again += sum(ran[label] for label in done_before)
        drive(root, counter, kind, layers, seconds)
        if scores_of(root, tasks) != reference(tasks):
            wrong.append(root.name)
        wrong += [str(path.relative_to(folder)) for path in root.rglob(".partial-*")]
        wrong += [str(path.relative_to(folder)) for path in root.iterdir() if path.name not in EXPECTED]
        wrong += [str(path.relative_to(folder)) for path in [*root.glob("pieces/*"), *root.glob("logs/*")]]
        studies += 1
    print(
        json.dumps(
            {
                "executor": kind,
                "seed": seed,
                "kills": killed,
                "studies": studies,
                "tasks in a study": 15 * layers,
                "killed with an attempt at work": phases["scratch"],
                "killed while committing a product": phases["half a product"],
                "killed between committing and recording": phases["unrecorded"],
                "done again after being recorded": again,
                "processes left": orphans,
                "wrong or left over": wrong,
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    )


def lines(counter: Path) -> Counter[str]:
    """How often each task was begun."""
    return Counter(counter.read_text().split()) if counter.is_file() else Counter()


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        drive(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]), float(sys.argv[6]))
    else:
        main()
