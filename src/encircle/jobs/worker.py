"""A worker process: does one task after another for its driver, and leaves when the driver is gone.

It reads orders as JSON lines from its standard input and writes outcomes to a separate pipe, so that
no output of a library can disturb the messages. Started by `local.py` as `python -P -m encircle.jobs.worker WORK FD`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import EncircleError, internal_error
from ..storage import is_full
from .task import Tell, Work

_SHARE_INTERVAL = 0.25
"""Seconds between two progress messages; events are sent at once."""

_DEATH_SIGNAL = 1
"""`PR_SET_PDEATHSIG` of Linux's prctl."""


def attempt(work: str, kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, tell: Tell) -> str:
    """Do a task's work; an error is printed with its traceback and returned as one sentence.

    Args:
        work: the work function as `"module:function"`; the name comes from our own code, never from a file.
        kind: as for `Work`.
        spec: as for `Work`.
        inputs: as for `Work`.
        out: as for `Work`.
        tell: as for `Work`.

    Returns:
        The error's sentence; empty if the work was done.
    """
    try:
        module, _, name = work.partition(":")
        function: Work = getattr(importlib.import_module(module), name)
        function(kind, spec, inputs, out, tell)
    except Exception as error:
        traceback.print_exc()
        return _sentence(error)
    return ""


def _sentence(error: Exception) -> str:
    if isinstance(error, EncircleError):
        return str(error)
    if isinstance(error, MemoryError):
        return "it ran out of memory; give it a machine with more, or fewer tasks at a time."
    if isinstance(error, OSError) and is_full(error):
        return f"the disk is full ({error.filename or 'scratch folder'}); free some space."
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}; check the path."
    return internal_error(error)


def main() -> None:
    """Work until standard input ends."""
    work, out = sys.argv[1], os.fdopen(int(sys.argv[2]), "w", encoding="utf-8")
    _leave_with_driver()
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    _send(out, {"word": "ready"})
    while True:
        _do(work, orders.get(), out)


def _listen(orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Take orders. The end of input means the end of the driver, and ends this process at once."""
    with contextlib.suppress(ValueError, OSError):
        for line in sys.stdin:
            orders.put(json.loads(line))
    with contextlib.suppress(OSError):  # with all processes that the work started
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _leave_with_driver() -> None:
    """End with the driver even if work holds the interpreter's lock; be killed first when memory is short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def _do(work: str, order: Mapping[str, Any], out: Any) -> None:
    last_share = time.monotonic()

    def tell(message: float | Sequence[Any]) -> None:
        nonlocal last_share
        if isinstance(message, Sequence):
            _send(out, {"word": "event", "task": order["task"], "event": message})
        elif time.monotonic() - last_share > _SHARE_INTERVAL:
            last_share = time.monotonic()
            _send(out, {"word": "share", "task": order["task"], "share": min(max(float(message), 0.0), 1.0)})

    inputs = {name: Path(folder) for name, folder in order["inputs"].items()}
    started = time.monotonic()
    with _printing_into(Path(order["log"])):
        error = attempt(work, order["kind"], order["spec"], inputs, Path(order["out"]), tell)
    _send(out, {"word": "end", "task": order["task"], "error": error, "seconds": time.monotonic() - started})


@contextlib.contextmanager
def _printing_into(log: Path) -> Any:
    """Send all output, of Python and of libraries below it, into a file."""
    originals = [os.dup(1), os.dup(2)]
    try:
        with contextlib.suppress(OSError):  # without a log, the work can still be done
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.close(handle)
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        for descriptor, original in enumerate(originals, start=1):
            os.dup2(original, descriptor)
            os.close(original)


def _send(out: Any, what: Mapping[str, Any]) -> None:
    out.write(json.dumps(what) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
