"""The process that holds Ray for `ClusterExecutor`, and the code that Ray runs on the nodes. No torch.

The bridge receives orders and sends outcomes over a socket. It ends with the driver, however the driver ends, and ends
every process that it started.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import io
import logging
import os
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

from ..core import RESULTS_VERSION
from .products import pack, unpack
from .worker import attempt

Nodes = dict[str, tuple[float, float]]
"""Processors and accelerators of each living node, by its id."""

CACHE = 2 << 30  # bytes of inputs that stay in Ray's memory for later tasks
LOG = 100_000  # characters of a task's output that come back
FETCH = 60.0  # seconds to read a result that is already on this machine
TICK = 0.1  # seconds until a task is begun while others run

ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
"""The environment of every task: rounding on Ray's nodes is that of local workers. The work itself asks for more threads."""

LOST = (  # the first match counts; names unknown to this version of Ray are skipped
    ("OutOfMemoryError", "its process was killed for want of memory; give it a machine that has more."),
    ("NodeDiedError", "the machine it ran on went away; see to the machine."),
    ("WorkerCrashedError", "its process ended under it; see its log."),
    ("ObjectLostError", "what it read or made went away with a machine; see to the machine."),
    ("ObjectStoreFullError", "Ray's memory for products is full; give Ray more (--object-store-memory)."),
    ("OutOfDiskError", "a node's disk is full; free some space."),
)


def end_session(session: int) -> None:
    """Kill the remaining processes of a session, and wait for their end."""
    end = time.monotonic() + 5.0
    while (pids := _members(session)) and time.monotonic() < end:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _members(session: int) -> list[int]:
    """Processes of a session; without /proc, only those of its leader's group."""
    if not Path("/proc/self/stat").exists():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
        return []
    pids = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if entry.name.isdecimal():
                state, _, _, sid = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:4]
                if int(sid) == session and state not in "ZX" and int(entry.name) != os.getpid():
                    pids.append(int(entry.name))
    return pids


@final
@dataclass
class Bridge:
    """Ray's side of the socket; runs in the bridge process.

    Args:
        driver: the socket to the driver.
        work: the work function, `"module:function"`.
        scratch: a folder for Ray's files; deleted at the end.

    Attributes:
        ray: the library, loaded late.
        queue: messages of the driver.
        send_lock: held during a send.
        running: the serial number of every running task, by Ray's reference to it.
        inputs: the ids of the products that a running task reads, by serial number.
        stored_products: products in Ray's memory and their bytes, by id, the most recently used last.
        remote_functions: Ray's function for a task, by the threads and accelerators that it needs.
    """

    driver: Connection
    work: str
    scratch: str
    ray: Any = None
    queue: queue.SimpleQueue[tuple[Any, ...]] = field(default_factory=queue.SimpleQueue)
    send_lock: threading.Lock = field(default_factory=threading.Lock)
    running: dict[Any, int] = field(default_factory=dict)
    inputs: dict[int, list[str]] = field(default_factory=dict)
    stored_products: OrderedDict[str, tuple[Any, int]] = field(default_factory=OrderedDict)
    remote_functions: dict[tuple[float, float], Any] = field(default_factory=dict)

    def say(self, *words: Any) -> None:
        """Send a message to the driver; called by two threads."""
        with self.send_lock:
            self.driver.send(words)

    def nodes(self) -> Nodes:
        """The living nodes."""
        alive = [node for node in self.ray.nodes() if node["Alive"]]
        return {n["NodeID"]: (n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in alive}

    def begin(self, address: str | None, cpus: int | None, paths: list[str]) -> None:
        """Load Ray and start it, or connect to the given one.

        Args:
            address: host:port of a cluster's head; None starts a Ray on this machine.
            cpus: threads for a Ray on this machine; None leaves the count to Ray.
            paths: the driver's module search path.

        Raises:
            RuntimeError: a Ray of our own is reachable from other machines.
        """
        self.ray = importlib.import_module("ray")
        config = self.ray.job_config.JobConfig()
        # Nodes on this machine import the driver's modules. Ray puts each path before the last; installed packages are the node's.
        installed = (sys.prefix, sys.base_prefix)
        config._py_driver_sys_path = [p for p in reversed(paths) if not any(map(Path(p).is_relative_to, installed))]
        own = {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": self.scratch} if address is None else {}
        self.ray.init(
            address=address or "local",
            job_config=config,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **own,
        )
        if address is None and not self.ray.util.get_node_ip_address().startswith(("127.", "::1")):
            raise RuntimeError("this version of Ray does not stay on loopback")

    def listen(self) -> None:
        """Queue messages of the driver; once it is gone, end all started processes, and this one."""
        with contextlib.suppress(Exception):  # also if the driver ended in the middle of a message
            while True:
                self.queue.put(self.driver.recv())
        self.vanish()

    def watch(self) -> None:
        """Report the nodes once a second, or that this machine's own is gone: Ray would wait for ever."""
        own_node = self.ray.get_runtime_context().get_node_id()
        parent = os.getppid()
        with contextlib.suppress(OSError):
            while os.getppid() == parent:
                nodes: Nodes | None = None
                with contextlib.suppress(self.ray.exceptions.RayError):  # the head may be back in a moment
                    nodes = self.nodes()
                if nodes is not None:
                    self.say("nodes", nodes) if own_node in nodes else self.say("gone")
                time.sleep(1.0)
        self.vanish()

    def vanish(self) -> None:
        """End this process and all that it started."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        end_session(os.getsid(0))
        shutil.rmtree(self.scratch, ignore_errors=True)
        os._exit(1)

    def serve(self) -> None:
        """Obey the driver's messages and send outcomes, until the message close."""
        while True:
            try:
                word, *rest = self.queue.get(block=not self.running)
            except queue.Empty:
                ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=TICK)
                for ref in ready:
                    serial = self.running.pop(ref)
                    self.say("outcome", serial, *self.outcome(ref, self.inputs.pop(serial)))
                continue
            if word == "close":
                return
            if word == "submit":
                self.submit(*rest)
            else:
                self.cancel(*rest)

    def submit(
        self, serial: int, kind: str, spec: dict[str, Any], inputs: dict[str, str], need: tuple[float, float]
    ) -> None:
        """Hand a task to Ray.

        Args:
            serial: the attempt's number, sent with its outcome.
            kind: as for `Work`.
            spec: as for `Work`.
            inputs: as for `Work`.
            need: threads and accelerators.
        """
        cpus, gpus = need
        try:
            products = [self.put(name, Path(folder)) for name, folder in inputs.items()]
            if need not in self.remote_functions:
                # A process binds to an accelerator at the first access. Ray reuses processes, but
                # only for tasks with the same environment, and never for tasks with accelerators.
                begin = ENVIRONMENT | ({"ENCIRCLE_ACCELERATOR": "1"} if gpus else {"CUDA_VISIBLE_DEVICES": ""})
                self.remote_functions[need] = self.ray.remote(
                    num_cpus=cpus, num_gpus=gpus, max_retries=0, runtime_env={"env_vars": begin}
                )(_perform)
            ref = self.remote_functions[need].remote(RESULTS_VERSION, self.work, kind, spec, list(inputs), *products)
        except Exception as problem:
            self.say("outcome", serial, *self.verdict(problem))
        else:
            self.running[ref] = serial
            self.inputs[serial] = list(inputs)

    def put(self, name: str, folder: Path) -> Any:
        """A product in Ray's memory. The least recently used products make room."""
        if name not in self.stored_products:
            files = pack(folder)
            self.stored_products[name] = self.ray.put(files), sum(map(len, files.values()))
        self.stored_products.move_to_end(name)
        while len(self.stored_products) > 1 and sum(size for _, size in self.stored_products.values()) > CACHE:
            self.stored_products.popitem(last=False)
        return self.stored_products[name][0]

    def outcome(self, ref: Any, inputs: list[str]) -> tuple[Any, ...]:
        """The outcome of an ended task: status, sentence, log, seconds, worker, files."""
        try:
            result: tuple[Any, ...] = self.ray.get(ref, timeout=FETCH)
        except Exception as problem:
            for name in inputs:  # if an input is lost, the next attempt puts it anew
                self.stored_products.pop(name, None)
            return self.verdict(problem)
        return result

    def verdict(self, problem: Exception) -> tuple[Any, ...]:
        """The outcome that an error of Ray means for the task."""
        errors = self.ray.exceptions
        cause = getattr(problem, "cause", None)
        if isinstance(problem, errors.RayTaskError) and not isinstance(cause, errors.RayError):
            last = _line(str(problem).strip().splitlines()[-1])
            why = f"a node could not begin it ({last}); install the same encircle on every node."
            return "failed", why, str(problem)[-LOG:], 0.0, "", {}
        for name, why in LOST:
            if isinstance(problem, getattr(errors, name, ())) or isinstance(cause, getattr(errors, name, ())):
                return "lost", why, str(problem)[-LOG:], 0.0, "", {}
        why = f"Ray did not do it ({type(problem).__name__}: {_line(problem)}); see the logs of Ray."
        return "lost", why, str(problem)[-LOG:], 0.0, "", {}

    def cancel(self, serial: int) -> None:
        """End a task, by force."""
        for ref in [ref for ref, number in self.running.items() if number == serial]:
            with contextlib.suppress(Exception):
                self.ray.cancel(ref, force=True)
            del self.running[ref], self.inputs[serial]


def bridge() -> None:
    """The bridge process: `python -c ... paths descriptor`, started by `ClusterExecutor`."""
    driver = Connection(int(sys.argv[2]))
    os.set_inheritable(driver.fileno(), False)  # else the driver would miss the end of this process
    work, address, cpus, scratch, paths = driver.recv()
    ray_side = Bridge(driver, work, scratch)
    threading.Thread(target=ray_side.listen, daemon=True).start()
    try:
        ray_side.begin(address, cpus, paths)
        ray_side.say("ready", ray_side.nodes())
    except Exception as problem:
        ray_side.say("refused", _line(problem))
        ray_side.vanish()
    threading.Thread(target=ray_side.watch, daemon=True).start()
    ray_side.serve()
    for serial in list(ray_side.running.values()):
        ray_side.cancel(serial)
    ray_side.ray.shutdown()
    ray_side.vanish()


def _line(problem: object) -> str:
    return " ".join(str(problem).split())[:300].rstrip(".") or type(problem).__name__


def _perform(
    version: int, work: str, kind: str, spec: dict[str, Any], names: list[str], *products: dict[str, bytes]
) -> tuple[Any, ...]:
    """Do one task in a process of Ray on some node. Products come and go as arguments and results."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    if version != RESULTS_VERSION:
        why = f"{socket.gethostname()} has another version of encircle than the driver; install the same on every node."
        return "failed", why, "", 0.0, worker, {}
    log = _Tail()
    seconds = 0.0
    files: dict[str, bytes] = {}
    try:
        with _folder() as folder, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            inputs = {name: folder / f"input-{number}" for number, name in enumerate(names)}
            for name, product in zip(names, products, strict=True):
                inputs[name].mkdir()
                unpack(product, inputs[name])
            out = folder / "out"
            out.mkdir()
            began = time.monotonic()
            error = attempt(work, kind, spec, inputs, out, lambda message: None)
            seconds = time.monotonic() - began
            if not error:
                files = pack(out)
    except OSError as problem:  # an error of the node's disk, not of the work: another node may succeed
        why = f"the disk of {socket.gethostname()} does not take it ({problem.strerror or problem}); free some space there."
        return "lost", why, log.text(), seconds, worker, {}
    return "failed" if error else "done", error, log.text(), seconds, worker, files


@final
class _Tail(io.TextIOBase):
    """Stores the end of the output."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._pieces.append(text)
        self._length += len(text)
        if self._length > 2 * LOG:
            self._pieces = [self.text()]
            self._length = LOG
        return len(text)

    def text(self) -> str:
        return "".join(self._pieces)[-LOG:]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder. Folders of killed processes are deleted by the next process."""
    for lock_file in Path(tempfile.gettempdir()).glob("encircle-task-*/lock"):
        with contextlib.suppress(OSError), lock_file.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock_file.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="encircle-task-"))
    try:
        with (folder / "locking").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "locking").rename(folder / "lock")  # so that it is never visible unlocked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
