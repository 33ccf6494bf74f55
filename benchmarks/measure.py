"""What all benchmarks share: repeats in turn within one process, medians and ranges, and files of results."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
RESULTS = HERE / "results" / "bench"


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(float(statistics.median(values)), 4),
        "least": round(float(min(values)), 4),
        "most": round(float(max(values)), 4),
    }


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes, once."""
    started = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - started


def _synchronise() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turn(works: Sequence[Callable[[], Any]], repeats: int, *, warm: int = 1) -> list[list[float]]:
    """Seconds of each work, repeated in turn so that a slow minute slows all of them alike.

    Args:
        works: functions of no arguments.
        repeats: of each work that are timed.
        warm: of each work before these.
    """
    spent: list[list[float]] = [[] for _ in works]
    for repeat in range(warm + repeats):
        for work, times in zip(works, spent, strict=True):
            took = seconds(work)
            if repeat >= warm:
                times.append(took)
    return spent


def ratios(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Of each repeat of the first to the same repeat of the second."""
    return summary([numerator / denominator for numerator, denominator in zip(first, second, strict=True)])


def say(line: str) -> None:
    """A line of progress, at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def machine(device: str = "cpu") -> dict[str, Any]:
    """Where the figures come from."""
    facts: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    torch = sys.modules.get("torch")
    if torch is not None:
        facts |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        if device != "cpu":
            facts |= {"device": torch.cuda.get_device_name(), "driver": torch.version.cuda}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            facts["processor"] = line.partition(":")[2].strip()
            break
    return facts


def save(name: str, command: str, figures: Any, device: str = "cpu") -> None:
    """Write a table of figures to results/bench, under the device's name where it is not the CPU.

    Args:
        name: of the file.
        command: that measures them.
        figures: as JSON holds them.
        device: that they were measured on.
    """
    path = RESULTS / (f"{name}.json" if device == "cpu" else f"{name}-{device}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "machine": machine(device), "figures": figures}
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
