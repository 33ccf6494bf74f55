"""A study on a Ray cluster of two nodes, one of which is killed; then its head is. Prints one line of JSON.

Run as `python -m tests.jobs.cluster_nodes FOLDER` in a session of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from encircle.core import EncircleError
from encircle.jobs.cluster import ClusterExecutor
from encircle.jobs.driver import Driver
from encircle.jobs.task import Order, Task

from .cluster_probe import descendants, listening
from .cluster_work import WORK, notes, study

LIMIT = 60.0


def main() -> None:
    folder = Path(sys.argv[1])
    from ray.cluster_utils import Cluster  # type: ignore[import-untyped]  # reads the environment as it is loaded

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1, num_gpus=1)
    told = {**_study(cluster, other, folder), **_headless(cluster, folder)}
    print(json.dumps(told), flush=True)
    os.killpg(0, signal.SIGKILL)  # Ray's own way takes ten seconds


def _study(cluster: Any, other: Any, folder: Path) -> dict[str, Any]:
    journal, raylet = folder / "journal", _process(other, "raylet")
    tasks = study(journal, 12, 0.8)
    events: list[tuple[str, Any]] = []
    driver = Driver(
        folder / "study",
        tasks,
        ClusterExecutor(WORK, address=cluster.address),
        listener=lambda name, facts: events.append((name, facts)),
    )
    killed: list[str] = []
    sockets: list[str] = []

    def spoil() -> None:
        sockets.extend(listening(descendants(os.getpid())) if _await(journal, ended=1) else [])
        victim = _await(journal, ended=2)
        killed.append(victim[1])
        os.kill(victim[2], signal.SIGKILL)
        victim = _await(journal, ended=5, raylet=raylet)
        killed.append(victim[1])
        for process in descendants(raylet):
            os.kill(process, signal.SIGKILL)

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    tally = driver.run()
    spoiler.join()
    ended = Counter(name for what, name, _, _ in notes(journal) if what == "end")
    return {
        "counts": tally.counts,
        "killed": killed,
        "lost": [facts["label"].replace(" ", "-") for name, facts in events if name == "lost"],
        "errors": [facts["error"] for name, facts in events if name == "lost"],
        "ended": ended,
        "nodes": len({parent for _, name, _, parent in notes(journal) if name.startswith("make")}),
        "sockets": sockets,
    }


def _headless(cluster: Any, folder: Path) -> dict[str, Any]:
    """What becomes of an executor whose cluster's head is killed."""
    executor = ClusterExecutor(WORK, address=cluster.address)
    executor.start()
    began = time.monotonic()
    while executor._nodes and len(executor._nodes) > 1 and time.monotonic() < began + LIMIT:
        executor.wait(0.5)  # until the other node is known to be dead
    tasks = [
        Task(f"{n:040x}", "make", f"long {n}", {"name": "long", "seconds": 60.0}, f"long/{n}", here=n == 1)
        for n in range(2)
    ]
    large = Task("2" * 40, "make", "large", {"name": "large"}, "large", gpus=1.0)
    room = [executor.has_room(task) for task in (*tasks, large)]
    for task in tasks:
        out = folder / "out" / task.id
        out.mkdir(parents=True)
        executor.submit(Order(task, 1, {}, out, folder / f"{task.id}.log"))
    executor.wait(1.0)
    os.kill(_process(cluster.head_node, "gcs_server"), signal.SIGKILL)
    began, error = time.monotonic(), ""
    while not error and time.monotonic() < began + LIMIT:
        try:
            executor.wait(1.0)
        except EncircleError as gone:
            error = str(gone)
    seconds = time.monotonic() - began
    executor.cancel(tasks[0].id)
    began = time.monotonic()
    executor.close()
    return {
        "room": room,
        "gone": error,
        "seconds": seconds,
        "close": time.monotonic() - began,
        "address": cluster.address,
    }


def _process(node: Any, name: str) -> int:
    return int(node.all_processes[name][0].process.pid)


def _await(journal: Path, *, ended: int, raylet: int | None = None) -> tuple[str, str, int, int]:
    """Someone who has just begun, once so many have ended; with `raylet`, on this node."""
    end = time.monotonic() + LIMIT
    seen: set[tuple[str, str, int, int]] = set()
    while time.monotonic() < end:
        lines = notes(journal)
        enough = len({name for what, name, _, _ in lines if what == "end"}) >= ended
        fresh = [line for line in lines if line[0] == "begin" and line not in seen and raylet in {None, line[3]}]
        if enough and fresh and seen:
            return fresh[-1]
        seen |= set(lines)
        time.sleep(0.02)
    raise TimeoutError(f"fewer than {ended} tasks ended")


if __name__ == "__main__":
    main()
