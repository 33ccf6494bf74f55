"""Peak memory of crafting over that of one ordinary training step at the same batch, and whether it stays flat.

Each case is a process of its own, so that nothing is left over from another. What is compared is the process's peak above what it held when
the models were built and the data were there: activations, gradients, the optimiser's state, copies. On a GPU torch's own count is used.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import HERE, save, say
from benchmarks.networks import SIZES, Size, ensemble_of, problem_of, recipe_of, samples_of, source_of
from encircle.attacks import IMF, Watch
from encircle.threat import Budget
from encircle.training import CodePath

CASES: dict[str, dict[str, Any]] = {
    "training step": {},
    "finite difference, K = 1": {"models": 1, "form": "finite-difference"},
    "exact, reverse over reverse, K = 1": {"models": 1, "form": "exact", "path": ("loop", "reverse")},
    "exact, forward over reverse, K = 1": {"models": 1, "form": "exact", "path": ("loop", "forward")},
    "finite difference, K = 4 in a loop": {"models": 4, "form": "finite-difference"},
    "exact, forward over reverse, K = 4 in a loop": {"models": 4, "form": "exact", "path": ("loop", "forward")},
    "training step, K = 4 in a loop": {"steps of": 4, "path": ("loop", "reverse")},
    "training step, K = 4 vectorised": {"steps of": 4, "path": ("vectorised", "reverse")},
    "finite difference, K = 4 vectorised": {
        "models": 4,
        "form": "finite-difference",
        "path": ("vectorised", "reverse"),
    },
}
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes in this process's memory now."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * PAGE


def peak() -> int:
    """The most bytes that were ever in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(size: Size, case: dict[str, Any], device: str) -> dict[str, float]:
    """Peak bytes above the start, in this process.

    Args:
        size: of the network and its data.
        case: one of `CASES`.
        device: of the models.
    """
    torch.set_num_threads(1)
    path = CodePath(*case.get("path", ("loop", "reverse")))
    if "models" not in case:
        ensemble = ensemble_of(source_of(size, device), recipe_of(size), case.get("steps of", 1), path)
        samples = samples_of(size, size.batch)
        batch, labels = samples.inputs.to(device), samples.labels.to(device)
        if path.members == "vectorised":
            _ = ensemble.joined
        gc.collect()
        before = _start(device)
        for _ in range(3):
            ensemble.step(batch, labels)
        return {"bytes": _most(device) - before}
    problem = problem_of(size, "CAM", path=path, clean=size.batch, device=device)
    made = problem.ensemble(case["models"], False)
    if path.members == "vectorised":
        _ = made.joined
    object.__setattr__(problem, "ensemble", lambda members, staggered: made)
    # As many poison samples as a batch holds, and every clean sample seen once an epoch: the same batch in both.
    imf = IMF(models=case["models"], epochs=2, form=case["form"], restart=False, staggered=False, target_share=0.0)
    gc.collect()
    before = _start(device)
    imf(problem, Budget(count=size.poisons - 1), torch.Generator().manual_seed(0), Watch())
    return {"bytes": _most(device) - before}


def _start(device: str) -> int:
    if device == "cpu":
        return resident()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _most(device: str) -> int:
    return peak() if device == "cpu" else torch.cuda.max_memory_allocated()


def over_time(size: Size, iterations: int) -> dict[str, float]:
    """Bytes in memory along a long crafting, after a tenth of it, half of it and all of it."""
    torch.set_num_threads(1)
    problem = problem_of(size, "CAM", clean=size.batch)
    bytes_by_step: dict[int, int] = {}

    def note(done: int, planned: int) -> None:
        if done in {iterations // 10, iterations // 2, iterations - 1}:
            gc.collect()
            bytes_by_step[done] = resident()

    imf = IMF(models=2, epochs=iterations, restart=False, staggered=False, target_share=0.0)
    count = size.batch // 4
    problem = problem_of(size, "CAM", clean=size.batch - count)
    imf(problem, Budget(count=count), torch.Generator().manual_seed(0), Watch(progress=note))
    return {f"MiB after {done} iterations": round(value / 2**20, 1) for done, value in bytes_by_step.items()}


def alone(arguments: list[str]) -> dict[str, Any]:
    """The same program with these arguments in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    # Large blocks go back to the system at once, so that a peak is what was held together.
    quiet = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        check=False,
        cwd=HERE,
        env=quiet,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, help="a network and a case, in this process")
    parser.add_argument("--over-time", nargs=2, help="a network and a number of iterations, in this process")
    parser.add_argument("--networks", nargs="*", default=["small-32", "resnet13-64", "resnet13-112"])
    parser.add_argument("--device", default="cpu")
    wanted = parser.parse_args()
    if wanted.one:
        sys.stdout.write(json.dumps(measure(SIZES[wanted.one[0]], CASES[wanted.one[1]], wanted.device)))
        return
    if wanted.over_time:
        sys.stdout.write(json.dumps(over_time(SIZES[wanted.over_time[0]], int(wanted.over_time[1]))))
        return
    rows = []
    for name in wanted.networks:
        step = 0.0
        for case in CASES:
            figures = alone(["--one", name, case, "--device", wanted.device])["bytes"]
            step = step or figures
            row = {"network": name, "title": SIZES[name].title, "case": case, "MiB": round(figures / 2**20, 1)}
            rows.append({**row, "over a training step": round(figures / step, 2)})
            say(f"{row['title']}, {case}: {row['MiB']} MiB, {figures / step:.2f} of a training step")
    flat = {}
    for name, iterations in (("table", 4000), ("small-32", 1000)):
        flat[SIZES[name].title] = alone(["--over-time", name, str(iterations)])
        say(f"{SIZES[name].title}: {flat[SIZES[name].title]}")
    save("memory", "make bench", {"peaks": rows, "over time": flat}, wanted.device)


if __name__ == "__main__":
    main()
