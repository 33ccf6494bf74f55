"""Tasks on a Ray cluster: a given one, or one of its own on this machine. No shared disk, no torch.

Ray never runs in the driver's process. It changes signal handlers, and it ends the process that loaded it a minute after
its head node is gone. A separate process, the bridge, holds Ray; products and outcomes come over a socket. So the
driver always outlives Ray. The bridge ends with the driver, and ends all processes that it started.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, final

from ..core import EncircleError, InputError, StorageError
from .bridge import TICK, Nodes, end_session
from .local import LocalExecutor
from .products import unpack
from .task import Order, Outcome, Task

BRIDGE = "import json,sys; sys.path[:]=json.loads(sys.argv[1]); from encircle.jobs.bridge import bridge; bridge()"
START = 120.0  # seconds for a Ray of its own to begin, on a busy machine
ANSWER = 5.0  # seconds for a given address to answer at all
CONNECT = 60.0  # ... and to accept the connection
SILENCE = 150.0  # seconds without a sign of life from the bridge; Ray itself gives up after 60
NEVER = 60.0  # seconds until a task is refused that no node could ever run
GONE = 600.0  # ... and one whose only nodes went away: machines start again
END = 10.0  # seconds for Ray to end by itself

OWN = {
    # The only way to keep all listening sockets of a Ray from init() on loopback: Ray takes that address
    # for its own. Ray silently changes `_node_ip_address="127.0.0.1"` into the machine's outer address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",  # loopback is open to every account of this machine; the token is not
}
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, Ray would upload the working folder to every node
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@final
class ClusterExecutor:
    """Does tasks on a Ray cluster; those that only make sense `here` in one process on the driver's machine.

    Events of tasks are ignored, and so is the progress of tasks on the cluster.

    Args:
        work: the work function, `"module:function"`; every node must be able to import it.
        address: host:port of the cluster's head; None starts a Ray on this machine that only this machine can reach.
        cpus: threads that Ray of our own may use; None leaves the count to Ray.
    """

    def __init__(self, work: str, *, address: str | None = None, cpus: int | None = None) -> None:
        self._work, self._address, self._cpus = work, address, cpus
        self._local = LocalExecutor(work, cpus=1)
        self._connection: Connection | None = None
        self._bridge: subprocess.Popen[bytes] | None = None
        self._scratch: Path | None = None
        self._nodes: Nodes = {}
        self._nodes_ever: Nodes = {}
        self._last_message = -math.inf
        self._serial = 0
        self._remote: dict[int, Order] = {}  # by serial number; cancelled attempts are absent
        self._local_tasks: set[str] = set()
        self._outcomes: list[Outcome] = []
        self._unfit_since: dict[tuple[float, float], float] = {}
        self._room_known: dict[tuple[float, float], bool] = {}  # answers of has_room, until a change

    def start(self) -> None:
        """Begin; raises `InputError` if Ray is missing or the address does not answer."""
        if importlib.util.find_spec("ray") is None:
            raise InputError("the Ray executor needs the library ray; install it with `pip install 'encircle[ray]'`.")
        if self._address is not None:
            _check_answers(self._address)
        try:
            self._local.start()
            self._start_bridge()
        except BaseException:
            self.close()
            raise

    def has_room(self, task: Task) -> bool:
        """Whether this task would begin about at once; raises `InputError` if it never could."""
        if task.here:
            return self._local.has_room(task)
        self._receive()
        need = _need(task)
        if not _fit([need], self._nodes.values()):
            self._check_could_fit(task, need)
            return False
        self._unfit_since.pop(need, None)
        if need not in self._room_known:
            away = [_need(order.task) for order in self._remote.values()]
            self._room_known[need] = _fit([need, *away], self._nodes.values())
        return self._room_known[need]

    def submit(self, order: Order) -> None:
        """Begin an attempt; returns at once."""
        if order.task.here:
            self._local.submit(order)
            self._local_tasks.add(order.task.id)
            return
        self._serial += 1
        self._remote[self._serial] = order
        self._room_known.clear()
        inputs = {name: str(folder) for name, folder in order.inputs.items()}
        self._send("submit", self._serial, order.task.kind, dict(order.task.spec), inputs, _need(order.task))

    def wait(self, seconds: float) -> list[Outcome]:
        """Outcomes since the last call, waiting at most this long for the first."""
        end = time.monotonic() + seconds
        while True:
            self._receive()
            remaining = end - time.monotonic()
            if self._local_tasks:
                pause = 0.0 if self._outcomes else max(0.0, min(remaining, TICK if self._remote else 1.0))
                done = self._local.wait(pause)
                self._local_tasks.difference_update(outcome.task for outcome in done)
                self._outcomes += done
            elif not self._outcomes and remaining > 0 and self._connection is not None:
                self._connection.poll(min(remaining, 1.0))
            if self._outcomes or remaining <= 0:
                outcomes, self._outcomes = self._outcomes, []
                return outcomes

    def shares(self) -> Mapping[str, float]:
        """The progress of the tasks of this machine; Ray's tasks report none."""
        return self._local.shares()

    def cancel(self, task: str) -> None:
        """End a running attempt by force; it has no outcome."""
        if task in self._local_tasks:
            self._local_tasks.discard(task)
            self._local.cancel(task)
        for serial in [serial for serial, order in self._remote.items() if order.task.id == task]:
            del self._remote[serial]
            self._room_known.clear()
            with contextlib.suppress(EncircleError):
                self._send("cancel", serial)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.task != task]

    def close(self) -> None:
        """End everything, running attempts too, and leave no process behind."""
        self._remote.clear()
        self._local_tasks.clear()
        self._local.close()
        if self._bridge is not None:
            # A bridge that never connected, or is gone, cannot end by itself.
            end = time.monotonic() + (END if self._last_message > 0 else 0.0)
            with contextlib.suppress(EncircleError):
                self._send("close")
            while self._bridge.poll() is None and time.monotonic() < end:
                with contextlib.suppress(OSError):  # it cannot end while its last messages are unread
                    if self._connection is not None and self._connection.poll(TICK):
                        os.read(self._connection.fileno(), 1 << 20)
                time.sleep(0.01)
            end_session(self._bridge.pid)
            self._bridge.wait()
            self._bridge = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _start_bridge(self) -> None:
        """Start the process that holds Ray and wait until it is connected."""
        self._scratch = _short_folder()
        environment = {**os.environ, **QUIET}
        if self._address is None:
            environment.update(OWN, RAY_AUTH_TOKEN=secrets.token_hex(32), TMPDIR=str(self._scratch))
            for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
                environment.pop(name, None)
        paths = [str(Path(path or ".").resolve()) for path in sys.path]
        driver_end, bridge_end = socket.socketpair()
        error_log = self._scratch / "words"
        with bridge_end, error_log.open("wb") as errors:
            self._bridge = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-c", BRIDGE, json.dumps(paths), str(bridge_end.fileno())],
                env=environment,
                pass_fds=[bridge_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # Ctrl+C is for the driver only; the session identifies the processes that it starts
            )
        self._connection = Connection(driver_end.detach())
        seconds = START if self._address is None else CONNECT
        why = f"no answer in {seconds:.0f} s"
        try:
            self._connection.send((self._work, self._address, self._cpus, str(self._scratch), paths))
            if self._connection.poll(seconds):
                word, facts = self._connection.recv()
                if word == "ready":
                    self._nodes, self._nodes_ever = facts, dict(facts)
                    self._last_message = time.monotonic()
                    return
                why = facts
        except (EOFError, OSError):
            lines = error_log.read_text("utf-8", "replace").strip().splitlines() or ["it ended without a word"]
            why = re.sub(r"^\[[^]]*\] (\S+:\d+: )?", "", lines[-1]).split(". ")[0].rstrip(".")
        if self._address is None:
            raise InputError(f"Ray could not be started on this machine ({why}); use worker processes instead.")
        raise InputError(
            f"the Ray cluster at {self._address} did not take this machine in ({why}); this machine must be one of its "
            f"nodes, with the same versions: `ray start --address={self._address}`."
        )

    def _send(self, *words: Any) -> None:
        """Send a message to the bridge."""
        try:
            if self._connection is None:
                raise BrokenPipeError
            self._connection.send(words)
        except OSError:
            raise self._ended_error() from None

    def _receive(self) -> None:
        """Read the messages of the bridge, without waiting."""
        try:
            while self._connection is not None and self._connection.poll():
                word, *rest = self._connection.recv()
                self._last_message = time.monotonic()
                if word != "nodes" or rest[0] != self._nodes:
                    self._room_known.clear()
                if word == "nodes":
                    (self._nodes,) = rest
                    self._nodes_ever.update(self._nodes)
                elif word == "gone":
                    self._last_message = -math.inf
                    break
                elif (order := self._remote.pop(rest[0], None)) is not None:
                    self._outcomes.append(_deliver(order, *rest[1:]))
        except (EOFError, OSError):
            self._last_message = -math.inf
        # Earlier outcomes are returned first.
        if not self._outcomes and time.monotonic() - self._last_message > SILENCE:
            raise self._ended_error()

    def _ended_error(self) -> EncircleError:
        if self._address is None:
            return EncircleError("the Ray that this study started has ended; run `encircle study resume`.")
        return EncircleError(
            f"the Ray cluster at {self._address} no longer answers; start it and run `encircle study resume`."
        )

    def _check_could_fit(self, task: Task, need: tuple[float, float]) -> None:
        """Raise an error for a task that no node can run, unless nodes may still come."""
        now = time.monotonic()
        since = self._unfit_since.setdefault(need, now)
        patience = GONE if _fit([need], self._nodes_ever.values()) else 0.0 if self._address is None else NEVER
        if now - since >= patience:
            where = "the Ray on this machine" if self._address is None else f"the Ray cluster at {self._address}"
            raise InputError(
                f"{task.label} needs {task.cpus} threads and {task.gpus:g} accelerators at once, which no node of {where} "
                "has; start a node that has them, or ask for less."
            )


def _need(task: Task) -> tuple[float, float]:
    return float(task.cpus), float(task.gpus)


def _fit(needs: Iterable[tuple[float, float]], nodes: Iterable[tuple[float, float]]) -> bool:
    """Whether all of these have room on the nodes at once: the largest first, each where it fits, sparing accelerators."""
    free = [list(node) for node in sorted(nodes, key=lambda node: node[1])]
    for cpus, gpus in sorted(needs, key=lambda need: (-need[1], -need[0])):
        share = 1.0 / int(1.0 / gpus + 1e-9) if 0.0 < gpus < 1.0 else gpus  # two shares of 0.4 fill one accelerator
        node = next((node for node in free if node[0] >= cpus and node[1] >= share - 1e-6), None)
        if node is None:
            return False
        node[0] -= cpus
        node[1] -= share
    return True


def _deliver(
    order: Order,
    status: Literal["done", "failed", "lost"],
    error: str,
    log: str,
    seconds: float,
    worker: str,
    files: dict[str, bytes],
) -> Outcome:
    """Write an attempt's product and log to the order's folders."""
    try:
        order.log.parent.mkdir(parents=True, exist_ok=True)
        order.log.write_text(log, encoding="utf-8")
        if status == "done":
            unpack(files, order.out)
    except StorageError as refused:
        status, error = "failed", str(refused)
    except OSError as problem:
        raise StorageError(
            f"cannot write {problem.filename or order.out}: {problem.strerror or problem}; "
            "free some space and run `encircle study resume`."
        ) from problem
    return Outcome(order.task.id, status, seconds, worker, error)


def _check_answers(address: str) -> None:
    """Raise an error unless host:port answers."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise InputError(f"{address!r} is not the address of a Ray cluster; write host:port of its head node.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError):
        raise InputError(
            f"no Ray cluster answers at {address}; start one with `ray start --head` or leave the address out."
        ) from None


def _short_folder() -> Path:
    """A new folder for the bridge; its name is short because Ray puts sockets there, whose paths may have 107 bytes."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="encircle-", dir="/tmp" if len(usual) > 24 else usual))  # noqa: S108
