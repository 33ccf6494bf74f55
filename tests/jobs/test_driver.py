"""The driver: everything in order and once, and whatever goes wrong stays where it is."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encircle.core import InputError, StorageError
from encircle.jobs.driver import Driver
from encircle.jobs.local import LocalExecutor
from encircle.jobs.store import DATABASE, Store, status
from encircle.jobs.task import Order, Outcome, Tally, Task
from encircle.storage import exclusive_lock

from ..programs import children_of, program, wait_for_end_of
from .stubs import WORK, reference, scores_of, task, work

HERE = Path(__file__).resolve().parents[2]


class InProcess:
    """The slow, obvious executor: one task at a time, at once, in this process."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self._come: list[Outcome] = []

    def start(self) -> None:
        pass

    def has_room(self, task: Task) -> bool:
        return not self._come

    def submit(self, order: Order) -> None:
        self.done.append(order.task.label)
        work(order.task.kind, order.task.spec, order.inputs, order.out, lambda share: None)
        self._come.append(Outcome(order.task.id, "done", 0.0, "here"))

    def wait(self, seconds: float) -> list[Outcome]:
        come, self._come = self._come, []
        return come

    def shares(self) -> Mapping[str, float]:
        return {}

    def cancel(self, task: str) -> None:
        pass

    def close(self) -> None:
        pass


def run(root: Path, tasks: list[Task], *, cpus: int = 2, **settings: Any) -> Tally:
    return Driver(root, tasks, LocalExecutor(WORK, cpus=cpus), **settings).run()


def chain(counter: Path | None = None) -> list[Task]:
    """Two shared tasks, four pieces that need both, two results that need two pieces each."""
    more = {} if counter is None else {"count": str(counter)}
    shared = [task(number, is_result=False, **more) for number in (0, 1)]
    pieces = [task(number, (0, 1), is_result=False, **more) for number in (2, 3, 4, 5)]
    return [*shared, *pieces, task(6, (2, 3), **more), task(7, (4, 5), **more)]


def executions(counter: Path) -> Counter[str]:
    return Counter(counter.read_text().split()) if counter.is_file() else Counter()


@given(st.data())
@settings(max_examples=25)
def test_any_graph_is_done_in_order_and_each_task_once(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    root, count = tmp_path_factory.mktemp("study"), data.draw(st.integers(1, 12))
    tasks = []
    for number in range(count):
        needs = data.draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        tasks.append(task(number, tuple(sorted(needs)), is_result=data.draw(st.booleans())))
    executor = InProcess()
    tally = Driver(root, tasks, executor).run()
    wanted = {one.id for one in tasks if one.is_result}
    for one in reversed(tasks):
        if one.id in wanted:
            wanted |= set(one.needs)
    assert sorted(executor.done) == sorted(one.label for one in tasks if one.id in wanted)
    place = {label: number for number, label in enumerate(executor.done)}
    labels = {one.id: one.label for one in tasks}
    assert all(place[labels[need]] < place[one.label] for one in tasks if one.id in wanted for need in one.needs)
    assert scores_of(root, tasks) == reference(tasks)
    assert tally.counts == {"add": {"done": count}}
    assert not list((root / "pieces").glob("*"))
    again = InProcess()
    Driver(root, tasks, again).run()
    assert again.done == []


def test_only_what_is_asked_for_is_done_and_what_others_need_is_kept(tmp_path: Path) -> None:
    tasks = chain()
    first, second = tasks[6], tasks[7]
    executor = InProcess()
    tally = Driver(tmp_path, tasks, executor, only=[first.id]).run()
    assert sorted(executor.done) == sorted(tasks[number].label for number in (0, 1, 2, 3, 6))
    assert tally.counts["add"] == {"done": 5, "waiting": 3}
    later = InProcess()
    Driver(tmp_path, tasks, later, only=[second.id]).run()
    assert sorted(later.done) == sorted(tasks[number].label for number in (4, 5, 7))
    assert scores_of(tmp_path, tasks) == reference(tasks)
    assert not list((tmp_path / "pieces").glob("*"))
    nothing = InProcess()
    Driver(tmp_path, tasks, nothing, only=[]).run()
    assert nothing.done == []


def test_worker_processes_give_what_the_slow_way_gives(tmp_path: Path) -> None:
    events: list[tuple[str, Mapping[str, Any]]] = []
    tally = run(tmp_path, chain(tmp_path / "count"), listener=lambda name, facts: events.append((name, facts)))
    assert scores_of(tmp_path, chain()) == reference(chain())
    assert set(executions(tmp_path / "count").values()) == {1}
    assert tally.counts == {"add": {"done": 8}}
    assert tally.failures == []
    names = Counter(name for name, _ in events)
    assert (names["begin"], names["start"], names["done"], names["end"]) == (1, 8, 8, 1)
    assert all(json.dumps(facts) for _, facts in events)
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {DATABASE, ".lock", "runs", "pieces", "logs", "count", f"{DATABASE}-wal", f"{DATABASE}-shm"}
    assert list((tmp_path / "pieces").iterdir()) == list((tmp_path / "logs").iterdir()) == []


MISDEEDS: dict[str, tuple[dict[str, Any], str]] = {
    "raise input": ({"kind": "raise", "how": "input"}, "the thing is wrong; mend it."),
    "raise bug": ({"kind": "raise", "how": "bug"}, "internal error ZeroDivisionError at stubs.py:"),
    "killed": ({"kind": "crash", "times": 99}, "most likely for want of memory"),
    "segfault": ({"kind": "crash", "times": 99, "signal": int(signal.SIGSEGV)}, "ended by SIGSEGV"),
    "exit": ({"kind": "exit"}, "ended with code 7"),
    "memory": ({"kind": "memory"}, "ran out of memory"),
    "full disk": ({"kind": "full", "times": 99}, "the disk is full (some/file)"),
    "hang": ({"kind": "hang", "times": 99, "limit": 0.5}, "longer than its limit"),
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_failure_stays_where_it_is(misdeed: str, tmp_path: Path) -> None:
    spec, words = MISDEEDS[misdeed]
    spec = {**spec, "times_file": str(tmp_path / "times"), "count": str(tmp_path / "count")}
    kind = spec.pop("kind")
    tasks = chain(tmp_path / "count")
    tasks[2] = task(2, (0, 1), kind, is_result=False, **spec)
    tally = run(tmp_path, tasks)
    assert tally.counts == {
        "add": {"done": 6, "blocked": 1},
        kind: {"failed": 1},
    }
    [(label, sentence, log)] = tally.failures
    assert label == "task 2"
    assert words in sentence
    [reason] = tally.reasons.values()
    assert reason == (f"task 2: {sentence}", log)
    if kind == "raise":
        assert log is not None
        text = (tmp_path / log).read_text()
        assert "some words before" in text
        assert "some words of a library" in text
        assert "Traceback" in text
    assert (tmp_path / "runs/7/score.json").is_file()
    assert not (tmp_path / "runs/6").exists()
    assert set((executions(tmp_path / "count") - Counter("222")).values()) == {1}
    # Nothing is tried again without being asked to, and nothing that is recorded is done twice.
    before = executions(tmp_path / "count")
    assert run(tmp_path, tasks).counts == tally.counts
    assert executions(tmp_path / "count") == before
    # Mended, and asked to: only what failed and what waited for it is done.
    tasks = chain(tmp_path / "count")
    assert run(tmp_path, tasks, again=True).failures == []
    assert executions(tmp_path / "count") - before == Counter("26")
    assert scores_of(tmp_path, tasks) == reference(tasks)


@pytest.mark.parametrize(("times", "done"), [(2, True), (3, False)])
def test_a_lost_attempt_is_repeated_and_not_for_ever(times: int, done: bool, tmp_path: Path) -> None:
    tasks = [task(0, (), "crash", times=times, times_file=str(tmp_path / "times")), task(1)]
    heard = Counter[str]()
    tally = run(tmp_path, tasks, listener=lambda name, facts: heard.update([name]))
    assert (tally.failures == []) is done
    assert heard["lost"] == 2
    assert heard["start"] == 4
    assert (tmp_path / "runs/1/score.json").is_file()


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path), pytest.raises(InputError, match="another process is at work"):
        run(tmp_path, chain())


def test_more_threads_than_there_are_run_alone_and_smaller_ones_pass(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    # The first is at work until the last has begun, which must pass the second to do so.
    tasks = [task(0, until=str(counter)), task(1, cpus=9), task(2), task(3, count=str(counter))]
    order: list[str] = []
    run(tmp_path, tasks, listener=lambda name, facts: order.append(facts["label"]) if name == "start" else None)
    assert sorted(order) == ["task 0", "task 1", "task 2", "task 3"]
    assert order[-1] == "task 1"
    assert scores_of(tmp_path, tasks) == reference(tasks)


def test_a_slice_begins_nothing_after_its_time_and_finishes_what_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [task(number) for number in range(8)]
    clock, started = time.monotonic, list[str]()
    monkeypatch.setattr("encircle.jobs.driver.time.monotonic", lambda: clock() + 1000 * (len(started) >= 2))

    def hear(name: str, facts: Mapping[str, Any]) -> None:
        if name == "start":
            started.append(name)

    tally = Driver(tmp_path, tasks, LocalExecutor(WORK, cpus=1), listener=hear).run(seconds=900)
    assert tally.counts["add"] == {"done": 2, "waiting": 6}
    monkeypatch.undo()
    assert run(tmp_path, tasks).counts == {"add": {"done": 8}}


def test_what_was_not_recorded_is_found_on_the_disk(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    run(tmp_path, chain(counter))
    (tmp_path / DATABASE).unlink()
    assert run(tmp_path, chain(counter)).counts == {"add": {"done": 8}}
    assert set(executions(counter).values()) == {1}


def test_what_is_gone_or_damaged_is_done_again(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    tasks = chain(counter)
    tasks[2] = task(2, (0, 1), "raise", is_result=False, how="bug", count=str(counter))
    run(tmp_path, tasks)  # leaves the products 0, 1 and 3, which task 2 and 6 need
    (tmp_path / "pieces/3/inner/more.bin").write_text("damaged")
    (tmp_path / "pieces/0/product.json").unlink()
    before = executions(counter)
    run(tmp_path, chain(counter), again=True)
    assert executions(counter) - before == Counter("0236")
    assert scores_of(tmp_path, chain()) == reference(chain())


DAMAGES: dict[str, Any] = {
    "garbage": lambda path: path.write_bytes(os.urandom(4096)),
    "nothing": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "scribbled": lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\x55" * (path.stat().st_size - 4096)),
    "another table": lambda path: (
        path.unlink(),
        sqlite3.connect(path).execute("CREATE TABLE tasks (x)").connection.close(),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_made_anew(damage: str, tmp_path: Path) -> None:
    counter = tmp_path / "count"
    tasks = chain(counter)
    tasks[2] = task(2, (0, 1), "raise", is_result=False, how="bug", count=str(counter))
    run(tmp_path, tasks)
    before = executions(counter)
    DAMAGES[damage](tmp_path / DATABASE)
    heard: list[str] = []
    tally = run(
        tmp_path,
        chain(counter),
        listener=lambda name, facts: heard.append(facts["message"]) if name == "rebuilt" else None,
    )
    assert tally.counts == {"add": {"done": 8}}
    assert executions(counter) - before == Counter("26")
    assert scores_of(tmp_path, chain()) == reference(chain())
    if damage != "nothing":
        assert (tmp_path / f"{DATABASE}.damaged-1").is_file()
        assert len(heard) == 1
        assert "damaged-1" in heard[0]


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(InputError, match="another version"):
        run(tmp_path, chain())


def test_a_database_that_cannot_be_written_stops_the_study_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Store.end

    def full(self: Store, outcome: Outcome, number: int, state: str, log: str | None) -> None:
        if outcome.task == task(4).id:
            self._connection.execute("PRAGMA query_only = 1")  # every write fails from here on, as on a full disk
        ended(self, outcome, number, state, log)

    monkeypatch.setattr(Store, "end", full)
    counter = tmp_path / "count"
    with pytest.raises(StorageError, match=r"study.db: attempt to write a readonly database; free some space"):
        run(tmp_path, chain(counter), cpus=1)
    monkeypatch.undo()
    before = executions(counter)
    assert run(tmp_path, chain(counter)).counts == {"add": {"done": 8}}
    assert executions(counter) - before <= Counter("567")  # task 4 was committed, though not recorded
    assert scores_of(tmp_path, chain()) == reference(chain())


def test_a_product_that_cannot_be_committed_fails_its_task_alone(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "blocked").write_text("a file where a folder should be")
    stuck = task(0)
    stuck = Task(stuck.id, stuck.kind, stuck.label, stuck.spec, "blocked/0")
    tally = run(tmp_path, [stuck, task(1)])
    assert [label for label, _, _ in tally.failures] == ["task 0"]
    assert "cannot write" in tally.failures[0][1]
    assert (tmp_path / "runs/1/score.json").is_file()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        run(tmp_path / "study", chain())


def test_status_while_it_runs_and_after(tmp_path: Path) -> None:
    seen: list[tuple[Tally, list[tuple[str, float]]]] = []
    tasks = [task(0), task(1, (0,), "raise", how="bug"), task(2, (1,))]
    run(tmp_path, tasks, listener=lambda name, facts: seen.append(status(tmp_path)) if name == "start" else None)
    running = [[label for label, _ in at_work] for _, at_work in seen]
    assert running[0] == ["task 0"]
    assert time.time() - seen[0][1][0][1] < 60
    tally, at_work = status(tmp_path)
    assert at_work == []
    assert tally.counts == {"add": {"done": 1, "blocked": 1}, "raise": {"failed": 1}}
    with pytest.raises(InputError, match="nothing was run"):
        status(tmp_path / "elsewhere")
    for ending in ("", "-wal", "-shm"):
        (tmp_path / f"{DATABASE}{ending}").unlink(missing_ok=True)
    (tmp_path / DATABASE).write_bytes(b"garbage" * 1000)
    with pytest.raises(InputError, match="is damaged"):
        status(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"")
    with pytest.raises(InputError, match="nothing was run"):
        status(tmp_path)


def test_status_after_a_driver_was_cut_off(tmp_path: Path) -> None:
    run(tmp_path, [task(0)])
    store = Store(tmp_path)
    store.register([task(0), task(1)])
    store.begin(task(1).id, 1)  # and nothing more is heard of it
    store.close()
    assert status(tmp_path) == (Tally({"add": {"done": 1, "waiting": 1}}, seconds=status(tmp_path)[0].seconds), [])
    with exclusive_lock(tmp_path):
        tally, at_work = status(tmp_path)
    assert tally.counts == {"add": {"done": 1, "running": 1}}
    assert [label for label, _ in at_work] == ["task 1"]


def test_what_is_no_longer_planned_is_forgotten_and_not_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.register([task(0), task(1)])
    store.set_states("failed", [task(0).id])
    store.register([task(1)])
    assert store.states() == {task(1).id: "waiting"}
    tally = store.tally()
    assert not tally.reasons
    assert sum(sum(states.values()) for states in tally.counts.values()) == 1
    store.register([task(0), task(1)])
    assert set(store.states().values()) == {"waiting"}
    store.close()


def test_an_interrupt_leaves_no_process_and_nothing_running(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.jobs.stubs import WORK, task;"
        "from encircle.jobs.driver import Driver; from encircle.jobs.local import LocalExecutor;"
        "tasks = [task(n, seconds=3600) for n in range(4)];"
        "Driver(Path(sys.argv[1]), tasks, LocalExecutor(WORK, cpus=2), listener=lambda n, f: print(n, flush=True)).run()"
    )
    with program("-c", script, tmp_path) as driver:
        driver.reach(lambda: driver.lines() == ["begin", "start", "start"], "two tasks are at work")
        workers = children_of(driver.pid)
        assert len(workers) == 2
        driver.interrupt()
        assert driver.end() != 0
        assert "KeyboardInterrupt" in driver.err
        wait_for_end_of(workers)
    tally, at_work = status(tmp_path)
    assert at_work == []
    assert tally.counts == {"add": {"waiting": 4}}
    assert not (tmp_path / "scratch").exists()


MOMENTS = {
    "before an attempt is recorded": "Store.begin = lambda *a: os._exit(9)",
    "after an attempt is recorded": "begin = Store.begin; Store.begin = lambda *a: (begin(*a), os._exit(9))",
    "before a product is sealed": "driver.seal = lambda *a: os._exit(9)",
    "before a product is moved": "driver.commit = lambda *a: os._exit(9)",
    "while a product is moved": "driver.commit = lambda out, place: (place.parent.mkdir(parents=True, exist_ok=True), "
    "out.replace(place.with_name('.partial-1-' + place.name)), os._exit(9))",
    "before it is recorded": "commit = driver.commit; driver.commit = lambda *a: (commit(*a), os._exit(9))",
    "after it is recorded": "end = Store.end; Store.end = lambda *a: (end(*a), os._exit(9))",
    "before a piece is deleted": "driver.remove = lambda *a: os._exit(9)",
    "while a piece is deleted": "driver.remove = lambda place: (place.replace(place.with_name('.partial-1-x')), os._exit(9))",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ending_at_the_worst_moment_of_every_task_loses_nothing(moment: str, tmp_path: Path) -> None:
    """The driver ends by itself at that moment, again and again; each start gets one step further or none."""
    counter = tmp_path / "count"
    script = (
        "import os, sys; from pathlib import Path; from encircle.jobs import driver; from encircle.jobs.store import Store\n"
        "from tests.jobs.test_driver import InProcess, chain\n"
        f"{MOMENTS[moment]}\n"
        "driver.Driver(Path(sys.argv[1]), chain(Path(sys.argv[2])), InProcess()).run()"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "study"), str(counter)], cwd=HERE, check=False
        )
        assert done.returncode in {0, 9}
    store = Store(tmp_path / "study")
    recorded = {
        label for label, state in store._connection.execute("SELECT label, state FROM tasks") if state == "done"
    }
    store.close()
    before = executions(counter)
    assert run(tmp_path / "study", chain(counter)).counts == {"add": {"done": 8}}
    again = executions(counter) - before
    assert not {f"task {number}" for number in again} & recorded
    assert scores_of(tmp_path / "study", chain()) == reference(chain())
    assert not list((tmp_path / "study").rglob(".partial-*"))
    assert not list((tmp_path / "study" / "pieces").iterdir())
    if moment == "before it is recorded":
        assert set((before + again).values()) == {1}


def test_scheduling_needs_no_torch() -> None:
    script = "import sys, encircle.jobs.driver, encircle.jobs.cluster; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_files_that_may_not_grow_stop_the_study_and_it_goes_on_where_they_may(tmp_path: Path) -> None:
    """A real failure to write: no file of the driver may exceed so many bytes, so its database fills up."""
    counter, count = tmp_path / "count", 120
    script = (
        "import resource, sys; from pathlib import Path; from tests.jobs.stubs import WORK, task;"
        "from encircle.jobs.driver import Driver; from tests.jobs.test_driver import InProcess;"
        "from encircle.core import StorageError;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000));"
        f"tasks = [task(n, count=sys.argv[2]) for n in range({count})]\n"
        "try: Driver(Path(sys.argv[1]), tasks, InProcess()).run()\n"
        "except StorageError as error: sys.exit(str(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "study"), str(counter)],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "study.db" in done.stderr
    assert "free some space" in done.stderr
    assert "Traceback" not in done.stderr
    tasks = [task(number, count=str(counter)) for number in range(count)]
    before = executions(counter)
    assert 0 < len(before) < count
    assert run(tmp_path / "study", tasks).counts == {"add": {"done": count}}
    assert sum((executions(counter) - before).values()) <= count - len(before) + 1
    assert scores_of(tmp_path / "study", tasks) == reference(tasks)


def test_a_log_of_the_database_that_is_damaged_loses_nothing(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    script = (
        "import os, sys; from pathlib import Path; from encircle.jobs import driver; from encircle.jobs.store import Store\n"
        "from tests.jobs.test_driver import InProcess, chain\n"
        "end = Store.end; Store.end = lambda *a: (end(*a), os._exit(9) if a[1].task == chain()[5].id else None)\n"
        "driver.Driver(Path(sys.argv[1]), chain(Path(sys.argv[2])), InProcess()).run()"
    )
    root = tmp_path / "study"
    done = subprocess.run([sys.executable, "-c", script, str(root), str(counter)], cwd=HERE, check=False)
    assert done.returncode == 9
    log = root / f"{DATABASE}-wal"
    assert log.stat().st_size > 1000
    log.write_bytes(os.urandom(log.stat().st_size))
    assert run(root, chain(counter)).counts == {"add": {"done": 8}}
    assert set(executions(counter).values()) == {1}
    assert scores_of(root, chain()) == reference(chain())
