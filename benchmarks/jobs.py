"""What scheduling costs: `make bench` writes results/bench/jobs.json.

Every figure is a ratio or a difference taken within this one run, from interleaved repeats; median and range are given. The tasks are a fixed
amount of matrix products on one thread, about five seconds each.

- throughput with one worker: the same tasks back to back in one process, over the executor's time with one worker;
- throughput with as many workers as cores: so many plain processes that share the tasks, over the executor's time;
- cost of a task: time of many tasks that do nothing, over their number.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

from encircle.jobs.cluster import ClusterExecutor  # noqa: E402
from encircle.jobs.driver import Driver  # noqa: E402
from encircle.jobs.local import LocalExecutor  # noqa: E402
from encircle.jobs.task import Executor, Task, Tell  # noqa: E402

WORK = "benchmarks.jobs:work"


def work(kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, tell: Tell) -> None:
    """Multiply matrices.

    Args:
        kind: not used; there is one kind of task.
        spec: `products`, the number of multiplications.
        inputs: not used.
        out: where the result goes.
        tell: not used.
    """
    matrix = np.random.default_rng(0).standard_normal((256, 256)) / 16
    value = matrix
    for _ in range(spec["products"]):
        value = value @ matrix
        value /= np.abs(value).max()
    (out / "value.json").write_text(json.dumps(float(value.sum())))


def tasks_of(count: int, products: int) -> list[Task]:
    """Independent tasks."""
    return [Task(f"{n:064x}", "work", f"task {n}", {"products": products, "n": n}, f"runs/{n}") for n in range(count)]


def plainly(tasks: list[Task], processes: int) -> float:
    """Seconds of the tasks back to back in each of so many processes."""
    script = (
        "import json, sys, tempfile; from pathlib import Path; from benchmarks.jobs import work\n"
        "for spec in json.loads(sys.argv[1]):\n"
        "    with tempfile.TemporaryDirectory() as folder: work('work', spec, {}, Path(folder), print)"
    )
    started = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, json.dumps([dict(task.spec) for task in tasks[first::processes]])], cwd=HERE
        )
        for first in range(processes)
    ]
    if any(process.wait() for process in running):
        sys.exit("a plain process failed")
    return time.monotonic() - started


def driven(tasks: list[Task], executor: Executor) -> float:
    """Seconds of the tasks through a driver, which includes starting the executor and ending it."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        tally = Driver(Path(folder), tasks, executor).run()
        if tally.counts != {"work": {"done": len(tasks)}}:
            sys.exit(f"the tasks failed: {tally.failures[:1]}")
        return time.monotonic() - started


def calibrated(seconds: float) -> int:
    """How many products take so long."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        work("work", {"products": 2000}, {}, Path(folder), lambda share: None)
        return int(2000 * seconds / (time.monotonic() - started))


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a task")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=4, help="of the throughput")
    parser.add_argument("--idle", type=int, default=500, help="tasks that do nothing")
    parser.add_argument("--cluster", action="store_true", help="Ray too")
    wanted = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    products = calibrated(wanted.seconds)
    tasks, nothing = tasks_of(wanted.tasks, products), tasks_of(wanted.idle, 0)
    executors: dict[str, Callable[[int], Executor]] = {"local": lambda cpus: LocalExecutor(WORK, cpus=cpus)}
    if wanted.cluster:
        executors["ray"] = lambda cpus: ClusterExecutor(WORK, cpus=cpus)
    times_of: dict[str, list[float]] = {}
    for repeat in range(wanted.repeats):
        for workers in sorted({1, cores}):
            plain = plainly(tasks, workers)
            for name, make in executors.items():
                spent = driven(tasks, make(workers))
                times_of.setdefault(f"{name}: throughput with {workers} of plain processes", []).append(plain / spent)
        for name, make in executors.items():
            started = driven(nothing[:1], make(cores))
            times_of.setdefault(f"{name}: seconds to start, do one task and end", []).append(started)
            cost = 1000 * (driven(nothing, make(cores)) - started) / (len(nothing) - 1)
            times_of.setdefault(f"{name}: milliseconds a task that does nothing", []).append(cost)
        sys.stderr.write(f"repeat {repeat + 1} of {wanted.repeats} done\n")
    table = {name: summary(values) for name, values in times_of.items()}
    for name, values in table.items():
        sys.stdout.write(f"{name}: {values['median']} ({values['least']} to {values['most']})\n")
    facts = {
        "cores": cores,
        "python": platform.python_version(),
        "task seconds": wanted.seconds,
        "repeats": wanted.repeats,
    }
    path = HERE / "results" / "bench" / "jobs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"command": "make bench", "machine": facts, "figures": table}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
