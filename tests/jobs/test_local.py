"""Worker processes: what they share, what they print, and that they leave with whoever started them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from encircle.jobs.local import LocalExecutor
from encircle.jobs.task import Order, Outcome, Task

from ..programs import PATIENCE, children_of, program, wait_for_end_of
from .stubs import WORK, task

pytestmark = pytest.mark.timed


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    found = LocalExecutor(WORK, cpus=3)
    found.start()
    yield found
    found.close()


def order(folder: Path, one: Task) -> Order:
    out = folder / "out" / one.label
    out.mkdir(parents=True)
    return Order(one, 1, {}, out, folder / f"{one.label}.log")


def outcomes(executor: LocalExecutor, count: int, seconds: float = PATIENCE) -> list[Outcome]:
    found: list[Outcome] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += executor.wait(1.0)
    assert len(found) == count
    return found


def outcome(executor: LocalExecutor) -> Outcome:
    return outcomes(executor, 1)[0]


def test_threads_are_a_budget(executor: LocalExecutor, tmp_path: Path) -> None:
    for number, cpus in enumerate((2, 1)):
        one = task(number, seconds=0.5, cpus=cpus)
        assert executor.has_room(one)
        executor.submit(order(tmp_path, one))
    assert not executor.has_room(task(9))
    assert [found.status for found in outcomes(executor, 2)] == ["done", "done"]
    assert executor.has_room(task(9, cpus=99))
    assert LocalExecutor(WORK).threads == len(os.sched_getaffinity(0))


def test_a_worker_is_used_again_and_a_dead_one_replaced(executor: LocalExecutor, tmp_path: Path) -> None:
    names = []
    for number in range(2):
        executor.submit(order(tmp_path, task(number)))
        names.append(outcome(executor).worker)
    assert names[0] == names[1]
    os.kill(int(names[0].removeprefix("process ")), signal.SIGKILL)
    executor.submit(order(tmp_path, task(2, seconds=0.2)))
    found = outcome(executor)
    if found.status == "lost":  # it may have died with the order or before it
        executor.submit(order(tmp_path, task(3)))
        found = outcome(executor)
    assert found.status == "done"
    assert found.worker != names[0]


def test_how_far_it_is(executor: LocalExecutor, tmp_path: Path) -> None:
    shares: list[float] = []
    one = task(0, kind="hang", seconds=0.4, times=9, times_file=str(tmp_path / "times"))
    executor.submit(order(tmp_path, one))
    deadline = time.monotonic() + PATIENCE
    while not shares and time.monotonic() < deadline:
        executor.wait(0.2)
        shares += executor.shares().values()
    assert shares == [0.5]
    executor.cancel(one.id)
    executor.cancel("unknown")
    assert executor.shares() == {}
    assert executor.wait(0.1) == []
    assert executor.has_room(task(1, cpus=3))


def test_events_come_in_order_and_all_of_them(tmp_path: Path) -> None:
    told: list[Any] = []
    executor = LocalExecutor("tests.jobs.test_local:tell_much", cpus=2, listener=lambda *event: told.append(event))
    for number in range(2):
        executor.submit(order(tmp_path, task(number)))
    assert {found.status for found in outcomes(executor, 2)} == {"done"}
    executor.close()
    for number in range(2):
        events = [event for name, event in told if name == task(number).id]
        assert events == [[count, {"text": "x" * 1000}] for count in range(500)]


@pytest.mark.parametrize("single_thread", [True, False])
def test_workers_begin_with_the_threads_of_the_environment_where_that_is_asked(
    single_thread: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    executor = LocalExecutor("tests.jobs.test_local:write_threads", cpus=1, single_thread=single_thread)
    executor.submit(order(tmp_path, task(0)))
    assert outcome(executor).status == "done"
    executor.close()
    assert (tmp_path / "out" / "task 0" / "threads").read_text() == ("1" if single_thread else "3")


def test_events_that_nobody_listens_to_are_passed_over(tmp_path: Path) -> None:
    executor = LocalExecutor("tests.jobs.test_local:tell_much", cpus=1)
    executor.submit(order(tmp_path, task(0)))
    assert outcome(executor).status == "done"
    executor.close()


def test_a_worker_finds_what_its_driver_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing in the working folder, where that one does not look either."""
    (tmp_path / "json.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    executor = LocalExecutor(WORK, cpus=1)
    executor.submit(order(tmp_path, task(0)))
    assert outcome(executor).status == "done"
    executor.close()


@pytest.mark.parametrize("spec", [{"how": "input"}, {"how": "bug"}])
def test_what_was_printed_is_kept(spec: dict[str, Any], executor: LocalExecutor, tmp_path: Path) -> None:
    executor.submit(order(tmp_path, task(0, kind="raise", **spec)))
    assert outcome(executor).status == "failed"
    text = (tmp_path / "task 0.log").read_text()
    assert text.index("library") >= 0
    assert "Traceback" in text


def test_a_work_function_that_is_not_there_fails_its_tasks(tmp_path: Path) -> None:
    executor = LocalExecutor("tests.jobs.nowhere:work", cpus=1)
    executor.submit(order(tmp_path, task(0)))
    found = outcome(executor)
    executor.close()
    assert found.status == "failed"
    assert "ModuleNotFoundError" in found.error


@pytest.mark.parametrize("busy", [True, False])
def test_workers_leave_when_the_driver_is_killed(busy: bool, tmp_path: Path) -> None:
    """Also in the middle of work that never lets go of the interpreter's lock."""
    script = (
        "import sys, time; from pathlib import Path; from tests.jobs.test_local import order;"
        "from tests.jobs.stubs import task; from encircle.jobs.local import LocalExecutor;"
        "executor = LocalExecutor('tests.jobs.test_local:hold', cpus=2);"
        f"executor.submit(order(Path(sys.argv[1]), task(0, kind={'busy' if busy else 'idle'!r})));"
        "time.sleep(3600)"
    )
    with program("-c", script, tmp_path) as driver:
        driver.reach((tmp_path / "out" / "task 0" / "begun").exists, "its worker is at work")
        [worker] = children_of(driver.pid)
        driver.interrupt(signal.SIGKILL)
        assert driver.end() == -signal.SIGKILL
        wait_for_end_of([worker])


def test_a_worker_that_ends_is_noticed_though_a_child_of_its_work_lives_on(tmp_path: Path) -> None:
    executor = LocalExecutor("tests.jobs.test_local:hold", cpus=1)
    executor.submit(order(tmp_path, task(0, kind="fork")))
    began = time.monotonic()
    found = outcome(executor)
    executor.close()
    assert found.status == "lost"
    assert "ended with code 3" in found.error
    assert time.monotonic() - began < 600  # for so long it lives


def hold(kind: str, spec: Any, inputs: Any, out: Path, tell: Any) -> None:
    """Work that takes for ever, with or without the interpreter's lock, or leaves a child behind."""
    (out / "begun").touch()
    if kind == "fork":
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        os._exit(3)
    if kind == "busy":
        sum(iter(int, 1))
    time.sleep(3600)


def tell_much(kind: str, spec: Any, inputs: Any, out: Path, tell: Any) -> None:
    """More events than a pipe holds."""
    for count in range(500):
        tell([count, {"text": "x" * 1000}])


def write_threads(kind: str, spec: Any, inputs: Any, out: Path, tell: Any) -> None:
    """What the environment says about threads."""
    (out / "threads").write_text(os.environ["OMP_NUM_THREADS"])


def test_nothing_listens(executor: LocalExecutor, tmp_path: Path) -> None:
    """No server is opened: neither this process nor a worker has a listening socket."""
    executor.submit(order(tmp_path, task(0)))
    worker = int(outcome(executor).worker.removeprefix("process "))
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                listening.add(f"socket:[{fields[9]}]")
    held = {str(path.readlink()) for path in Path(f"/proc/{worker}/fd").iterdir()}
    assert not held & listening
