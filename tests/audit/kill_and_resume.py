"""Kill an audit at random moments, resume it each time, and print what the runs ended with; see test_resume.py.

A process of its own, because it forks: `python kill_and_resume.py CASE FOLDER KILLS SEED`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

torch.set_num_threads(1)

from encircle.audit import Audit, read_case, run_audit  # noqa: E402


def contents(folder: Path) -> dict[str, str]:
    """Hashes of everything that must not depend on how often a run was killed."""
    names = ["scores.parquet", "poisons.parquet", "history.parquet", "maps.safetensors", "verdict.json"]
    files = [folder / name for name in names] + sorted(folder.glob("poison/*/*/*"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    case_file, folder, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    case = read_case(case_file.read_text(), [], "case")
    started = time.monotonic()
    undisturbed = contents(run_audit(Audit.from_case(case), folder / "undisturbed").folder)
    whole = time.monotonic() - started
    choose = random.Random(seed)
    killed, finished, left_half = 0, 0, 0
    while killed < kills:
        runs = folder / f"killed-{finished}"
        child = os.fork()
        if child == 0:
            run_audit(Audit.from_case(case), runs)
            os._exit(0)
        time.sleep(choose.uniform(0.02, 0.35) * whole)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            left_half += bool(list(runs.rglob(".partial-*")))
        else:
            finished += 1
    resumed = [
        contents(run_audit(Audit.from_case(case), folder / f"killed-{number}").folder) for number in range(finished + 1)
    ]
    leftovers = [str(path) for path in folder.rglob(".partial-*")]
    print(
        json.dumps(
            {
                "killed": killed,
                "same": [one == undisturbed for one in resumed],
                "files": len(undisturbed),
                "leftovers": leftovers,
            }
        )
    )


if __name__ == "__main__":
    main()
