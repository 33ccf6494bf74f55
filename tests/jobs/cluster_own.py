"""A Ray of our own: what it does with each kind of task, and what it leaves. Prints one line of JSON.

Run as `python -m tests.jobs.cluster_own FOLDER [killed]`; with `killed` the process kills itself in the middle.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from encircle.core import InputError
from encircle.jobs.cluster import ClusterExecutor
from encircle.jobs.task import Order, Outcome, Task

from .cluster_probe import descendants, listening, living
from .cluster_work import WORK

folder = Path(sys.argv[1])
made = 0


def order(kind: str, inputs: dict[str, Path] | None = None, **spec: Any) -> Order:
    global made
    made += 1
    out = folder / f"out-{made}"
    out.mkdir()
    task = Task(f"{made:040x}", kind, f"{kind} {made}", {"name": kind, **spec}, str(made))
    return Order(task, 1, inputs or {}, out, folder / f"log-{made}")


def do(executor: ClusterExecutor, orders: list[Order], limit: float = 60.0) -> dict[str, Outcome]:
    left, outcomes, end = list(orders), {}, time.monotonic() + limit
    while len(outcomes) < len(orders) and time.monotonic() < end:
        while left and executor.has_room(left[0].task):
            executor.submit(left.pop(0))
        outcomes.update({outcome.task: outcome for outcome in executor.wait(1.0)})
    return outcomes


def main() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    executor = ClusterExecutor(WORK, cpus=2)
    executor.start()
    assert executor._bridge is not None and executor._scratch is not None
    told: dict[str, Any] = {"session": executor._bridge.pid, "scratch": str(executor._scratch)}
    if "killed" in sys.argv:
        for _ in range(2):
            executor.submit(order("make", seconds=600.0))
        told["processes"], end = 0, time.monotonic() + 60  # the bridge, the head, a raylet, their helpers, two at work
        while told["processes"] < 6 and time.monotonic() < end:
            time.sleep(0.1)
            told["processes"] = sum(session == told["session"] for _, session in living().values())
        print(json.dumps(told), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    first = order("make")
    told["first"] = do(executor, [first])[first.task.id].status
    orders = [order("sum", {first.task.id: first.out}, size=100_000), *map(order, ("refuse", "break", "die", "look"))]
    outcomes = do(executor, orders)
    told["sockets"] = listening(descendants(os.getpid()))
    told["outcomes"] = {
        each.task.kind: [outcomes[each.task.id].status, outcomes[each.task.id].error] for each in orders
    }
    told["value"] = (orders[0].out / "deep" / "value").read_bytes().hex()[:64]
    told["environment"] = (orders[4].out / "environment").read_text().splitlines()
    told["log"] = orders[2].log.read_text()

    many = [order("make") for _ in range(100)]
    began = time.monotonic()
    told["many"] = sum(outcome.status == "done" for outcome in do(executor, many).values())
    told["milliseconds"] = (time.monotonic() - began) * 10

    long = order("make", seconds=60.0)
    executor.submit(long)
    executor.wait(1.0)
    executor.cancel(long.task.id)
    told["cancelled"] = [each.task for each in executor.wait(1.0)]
    again = order("make")
    told["after"] = do(executor, [again])[again.task.id].status
    executor.submit(Order(long.task, 2, {}, long.out, long.log))  # still at work when all is closed
    try:
        executor.has_room(Task("f" * 40, "make", "large", {}, "f", gpus=1000.0))
    except InputError as error:
        told["large"] = str(error)
    executor.close()
    told["left"] = [process for process, (_, session) in living().items() if session == told["session"]]
    told["children"] = len(descendants(os.getpid())) - 1
    told["handlers"] = handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    told["loaded"] = "ray" in sys.modules
    print(json.dumps(told))


if __name__ == "__main__":
    main()
