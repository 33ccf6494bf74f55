"""Work for tests of everything around it: no torch, done in no time, and able to go wrong in every way there is."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encircle.core import InputError
from encircle.jobs.task import Task, Tell

WORK = "tests.jobs.stubs:work"


def work(kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, tell: Tell) -> None:
    """Write a score that depends on the spec and on the scores of the inputs; misbehave as the kind says."""
    if "count" in spec:  # one line an execution, kept outside of the study
        with Path(spec["count"]).open("a") as handle:
            handle.write(f"{spec['number']}\n")
    time.sleep(spec.get("seconds", 0.0))
    while "until" in spec and not Path(spec["until"]).is_file():
        time.sleep(0.02)
    tell(0.5)
    if kind in _MISDEEDS:
        _MISDEEDS[kind](spec)
    before = [json.loads((folder / "score.json").read_text())["score"] for folder in inputs.values()]
    score = hashlib.sha256(json.dumps([spec["number"], sorted(before)]).encode()).hexdigest()
    (out / "score.json").write_text(json.dumps({"score": score}))
    (out / "inner").mkdir()
    (out / "inner" / "more.bin").write_bytes(score.encode() * spec.get("size", 10))


def _raise(spec: Mapping[str, Any]) -> None:
    sys.stdout.write("some words before\n")
    os.write(2, b"some words of a library\n")
    raise {"input": InputError("the thing is wrong; mend it."), "bug": ZeroDivisionError("divided")}[spec["how"]]


def _times(spec: Mapping[str, Any]) -> bool:
    """Whether it should go wrong still: so many times, as counted in a file."""
    path = Path(spec["times_file"])
    done = len(path.read_text()) if path.is_file() else 0
    path.write_text("x" * (done + 1))
    return done < int(spec["times"])


def _crash(spec: Mapping[str, Any]) -> None:
    if _times(spec):
        os.kill(os.getpid(), spec.get("signal", signal.SIGKILL))


def _exit(spec: Mapping[str, Any]) -> None:
    os._exit(7)


def _memory(spec: Mapping[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
    try:
        bytearray(4 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _full(spec: Mapping[str, Any]) -> None:
    if _times(spec):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")


def _hang(spec: Mapping[str, Any]) -> None:
    if _times(spec):
        time.sleep(3600)


_MISDEEDS = {
    "raise": _raise,
    "crash": _crash,
    "exit": _exit,
    "memory": _memory,
    "full": _full,
    "hang": _hang,
}


def identity(number: int) -> str:
    """The id of a stub task."""
    return hashlib.sha256(f"stub {number}".encode()).hexdigest()


def task(number: int, needs: tuple[int, ...] = (), kind: str = "add", *, is_result: bool = True, **spec: Any) -> Task:
    """A stub task."""
    more = {name: spec.pop(name) for name in ("cpus", "limit", "here", "gpus") if name in spec}
    folder = f"{'runs' if is_result else 'pieces'}/{number}"
    return Task(
        identity(number),
        kind,
        f"task {number}",
        {"number": number, **spec},
        folder,
        tuple(identity(need) for need in needs),
        is_result=is_result,
        **more,
    )


def scores_of(root: Path, tasks: list[Task]) -> dict[str, str]:
    """The scores of all results, read from their products."""
    return {
        task.label: json.loads((root / task.folder / "score.json").read_text())["score"]
        for task in tasks
        if task.is_result
    }


def reference(tasks: list[Task]) -> dict[str, str]:
    """The same scores by the slow, obvious way: one after another, in memory."""
    found: dict[str, str] = {}
    for one in tasks:
        before = sorted(found[need] for need in one.needs)
        found[one.id] = hashlib.sha256(json.dumps([one.spec["number"], before]).encode()).hexdigest()
    return {one.label: found[one.id] for one in tasks if one.is_result}
