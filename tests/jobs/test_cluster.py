"""The Ray executor, on real clusters. Ray is loaded in processes of their own only: it does not pass our warnings."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from encircle.core import InputError
from encircle.jobs import bridge, cluster
from encircle.jobs.cluster import ClusterExecutor
from encircle.jobs.products import pack
from encircle.jobs.task import Order, Task

from .cluster_probe import living
from .cluster_work import reference, study

pytestmark = pytest.mark.timed

ROOT = Path(__file__).parents[2]
QUICKLY = {  # a node that is killed and a head that is gone are noticed in seconds
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "4",
}


@contextlib.contextmanager
def script(name: str, folder: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A helper script at work; whatever it leaves in its session is ended."""
    command = [sys.executable, "-m", f"tests.jobs.{name}", str(folder), *words]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        bridge.end_session(process.pid)
        process.communicate()


def line_of(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (folder / "errors").read_text()[-3000:]
    told: dict[str, Any] = json.loads(line)
    return told


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: Ray puts sockets there."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="ec-", dir="/tmp"))
    (folder / "ray").mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_study_on_two_nodes_survives_a_killed_process_a_killed_node_and_outlives_the_head(short: Path) -> None:
    environment = {**cluster.OWN, **cluster.QUIET, **QUICKLY, "RAY_AUTH_TOKEN": "0" * 40}
    environment |= {"RAY_TMPDIR": str(short), "TMPDIR": str(short)}
    with script("cluster_nodes", short, **environment) as process:
        told = line_of(process, short)

    assert {state: sum(kind.get(state, 0) for kind in told["counts"].values()) for state in ("done", "failed")} == {
        "done": 15,
        "failed": 0,
    }
    tasks = study(short / "journal", 12, 0.0)
    reference(tasks, short / "reference")
    for task in tasks:
        product = pack(short / "study" / task.folder)
        del product["product.json"]
        assert product == pack(short / "reference" / task.folder)

    assert told["nodes"] == 2
    assert len(told["killed"]) == 2
    assert set(told["lost"]) == set(told["killed"])  # and nothing else
    assert all("went away" in error or "ended under it" in error for error in told["errors"])
    assert set(told["ended"].values()) == {1}  # what had ended was not done again
    assert told["sockets"]
    assert all(address.removeprefix("::ffff:") == "127.0.0.1" for address in told["sockets"])

    assert told["room"] == [True, True, False]  # a node with an accelerator may come again
    assert told["gone"] == (
        f"the Ray cluster at {told['address']} no longer answers; start it and run `encircle study resume`."
    )
    assert told["seconds"] < 60
    assert told["close"] < 30


@pytest.mark.slow
def test_own_ray_does_every_kind_of_task_on_loopback_and_leaves_nothing(tmp_path: Path) -> None:
    with script("cluster_own", tmp_path) as process:
        told = line_of(process, tmp_path)

    assert told["first"] == "done"
    assert told["outcomes"] == {
        "sum": ["done", ""],
        "refuse": ["failed", "this cannot be used; use another."],
        "break": ["failed", told["outcomes"]["break"][1]],
        "die": ["lost", "its process ended under it; see its log."],
        "look": ["done", ""],
    }
    assert told["outcomes"]["break"][1].startswith("internal error ZeroDivisionError at cluster_work.py:")
    assert told["environment"] == [
        "OMP_NUM_THREADS=1",
        "MKL_NUM_THREADS=1",
        "CUDA_VISIBLE_DEVICES=",
        "ENCIRCLE_ACCELERATOR=None",
    ]
    assert told["log"].startswith("doing break break\nTraceback")
    task = Task("0", "sum", "", {"name": "sum"}, "sum", needs=("1",))
    reference([Task("1", "make", "", {"name": "make"}, "make"), task], tmp_path / "reference")
    assert told["value"] == (tmp_path / "reference" / "sum" / "deep" / "value").read_bytes().hex()

    assert told["many"] == 100
    assert told["milliseconds"] < 600
    assert told["cancelled"] == []
    assert told["after"] == "done"
    assert told["large"].startswith("large needs 1 threads and 1000 accelerators at once, which no node of the Ray on")
    assert told["sockets"]
    assert all(address.removeprefix("::ffff:") == "127.0.0.1" for address in told["sockets"])
    assert told["left"] == []
    assert told["children"] == 0
    assert told["handlers"]
    assert not told["loaded"]
    assert not Path(told["scratch"]).exists()


@pytest.mark.slow
def test_nothing_of_an_own_ray_outlives_a_killed_driver(tmp_path: Path) -> None:
    with script("cluster_own", tmp_path, "killed") as process:
        told = line_of(process, tmp_path)
        assert told["processes"] >= 6  # the bridge, the head, a raylet, their helpers, two at work
        assert process.wait(60) == -signal.SIGKILL
        end = time.monotonic() + 60
        while left := [name for name, (_, session) in living().items() if session == told["session"]]:
            assert time.monotonic() < end, left
            time.sleep(0.1)
        assert not Path(told["scratch"]).exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://127.0.0.1:10001", ":6379", "127.0.0.1:70000"])
def test_an_address_where_no_cluster_is_is_refused_at_once(address: str) -> None:
    executor = ClusterExecutor("tests.jobs.cluster_work:work", address=address)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"; (start one with|write host:port)"):
        executor.start()
    assert time.monotonic() - began < 30
    executor.close()


def test_an_address_where_something_else_answers_is_refused_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        executor = ClusterExecutor("tests.jobs.cluster_work:work", address=f"127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(
            InputError, match=r"did not take this machine in \(no answer in 1 s\); .* `ray start --addr"
        ):
            executor.start()
    assert time.monotonic() - began < 30


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'encircle\[ray\]'"):
        ClusterExecutor("tests.jobs.cluster_work:work").start()


def executor_with(nodes: dict[str, tuple[float, float]], address: str | None = None) -> ClusterExecutor:
    executor = ClusterExecutor("tests.jobs.cluster_work:work", address=address)
    executor._nodes, executor._nodes_ever, executor._last_message = nodes, dict(nodes), time.monotonic()
    return executor


def task_of(cpus: int = 1, gpus: float = 0.0) -> Task:
    return Task(f"{cpus}-{gpus}", "make", "it", {}, "it", cpus=cpus, gpus=gpus)


def order_of(task: Task, folder: Path) -> Order:
    return Order(task, 1, {}, folder / "out", folder / "logs" / "log")


def test_room_is_what_the_nodes_have_at_once(tmp_path: Path) -> None:
    executor = executor_with({"a": (4.0, 0.0), "b": (4.0, 1.0)})
    assert executor.has_room(task_of(4))
    executor._remote[1] = order_of(task_of(3), tmp_path)
    assert executor.has_room(task_of(4))
    executor._remote[2] = order_of(task_of(2), tmp_path)
    executor._room_known.clear()
    assert not executor.has_room(task_of(4))  # six are free, but no four of them on one node
    assert executor.has_room(task_of(1, 1.0))
    for serial in (3, 4):
        assert executor.has_room(task_of(1, 0.4))
        executor._remote[serial] = order_of(task_of(1, 0.4), tmp_path)
        executor._room_known.clear()
    assert not executor.has_room(task_of(1, 0.4))  # a third would not fit beside two


def test_a_task_for_no_node_is_refused_after_a_time_that_depends_on_hope(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no node of the Ray on this machine has; start a node"):
        executor_with({"a": (4.0, 0.0)}).has_room(task_of(5))
    executor = executor_with({"a": (4.0, 0.0)}, "head:6379")
    executor._nodes_ever["b"] = (4.0, 1.0)  # it was there once
    never, gone = task_of(8), task_of(1, 1.0)
    now = time.monotonic()
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now)
    for seconds, refused in ((0.0, ()), (59.0, ()), (61.0, (never,)), (599.0, (never,)), (601.0, (never, gone))):
        monkeypatch.setattr(cluster.time, "monotonic", lambda seconds=seconds: now + seconds)
        executor._last_message = now + seconds
        for task in (never, gone):
            expected = pytest.raises(InputError) if task in refused else contextlib.nullcontext()
            with expected:
                assert not executor.has_room(task)


def test_a_product_that_leads_out_of_its_folder_fails_the_task(tmp_path: Path) -> None:
    order = order_of(task_of(), tmp_path)
    outcome = cluster._deliver(order, "done", "", "printed", 1.0, "node", {"../outside": b""})
    assert outcome.status == "failed"
    assert "outside" in outcome.error
    assert order.log.read_text() == "printed"
    assert not (tmp_path / "outside").exists()


def test_only_the_end_of_what_is_printed_is_kept() -> None:
    log = bridge._Tail()
    for number in range(100_000):
        print(number, file=log)
    assert len(log.text()) == bridge.LOG
    assert log.text().endswith("99998\n99999\n")


def test_folders_of_killed_processes_are_deleted_but_not_of_living_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge.tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "encircle-task-left"
    left.mkdir()
    (left / "lock").touch()
    with bridge._folder() as mine, bridge._folder() as another:
        assert not left.exists()
        assert mine.is_dir()
        assert another.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_disk_loses_the_task_but_does_not_fail_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge.tempfile, "tempdir", str(tmp_path / "missing"))
    status, error, *_ = bridge._perform(bridge.RESULTS_VERSION, "tests.jobs.cluster_work:work", "make", {}, [])
    assert status == "lost"
    assert "No such file or directory); free some space there." in error
    status, error, *_ = bridge._perform(bridge.RESULTS_VERSION + 1, "tests.jobs.cluster_work:work", "make", {}, [])
    assert status == "failed"
    assert "has another version of encircle than the driver; install the same" in error
