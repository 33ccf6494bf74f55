"""Programs that tests start: what they reach is waited for, not guessed by a clock, and none outlives its test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parents[1]

PATIENCE = 180.0
"""Seconds after which something is thought never to happen, also where other processes have the processors."""

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str) -> T:
    """The first value of a condition that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


@dataclass
class Program:
    """A program at work, in a process group of its own as a terminal gives it."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(encoding="utf-8", errors="replace")

    def lines(self) -> list[str]:
        """The whole lines that it has written so far."""
        return self.out.split("\n")[:-1]

    def reach(self, condition: Callable[[], T], what: str) -> T:
        """Wait for something that happens before the program ends."""

        def still() -> T:
            value = condition()
            assert value or self.process.poll() is None, f"it ended before {what}: {self.out[-2000:]}{self.err[-2000:]}"
            return value

        return wait_for(still, what)

    def interrupt(self, number: signal.Signals = signal.SIGINT, *, group: bool = False) -> None:
        """Send a signal; to its group as Ctrl-C on a terminal does."""
        (os.killpg if group else os.kill)(self.pid, number)

    def end(self) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def program(*arguments: object, cwd: Path | None = None, **environment: str) -> Iterator[Program]:
    """Python at work, with these arguments; whatever it started is ended with it."""
    paths = os.pathsep.join([str(HERE / "src"), str(HERE)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _heard_interrupts(), (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": paths, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        try:
            yield Program(process, folder)
        finally:
            started = children_of(process.pid)
            for pid in (process.pid, *started):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _heard_interrupts() -> Iterator[None]:
    """Let what is started hear SIGINT, which a shell turns off for whatever it runs in the background."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def children_of(parent: int) -> list[int]:
    """The processes that a process has started."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rsplit(")", 1)[1].split()[1]) == parent:
                pids.append(int(entry.parent.name))
    return pids


def alive(pid: int) -> bool:
    """Whether a process is at work; one that is dead and not yet buried is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for_end_of(pids: Iterable[int]) -> None:
    """Wait until none of these processes is at work."""
    left: Sequence[int] = list(pids)
    wait_for(lambda: not any(map(alive, left)), f"the end of the processes {left}")
