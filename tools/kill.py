"""Kill the driver of a study of stub tasks many times and commit what was found: `make kill` writes results/kill.json.

See tests/jobs/kill_driver.py for what is killed and what is looked for.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
SEED = 20_000


def kills(count: int, kind: str) -> dict[str, Any]:
    """Kill a driver so many times; returns what kill_driver.py found."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.jobs.kill_driver", folder, str(count), str(SEED), kind]
        done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True)
        return dict(json.loads(done.stdout))


def main() -> None:
    """Kill, print and save; exit with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--local", type=int, default=50, help="kills of a driver with worker processes")
    parser.add_argument("--cluster", type=int, default=10, help="kills of a driver with a Ray of its own")
    wanted = parser.parse_args()
    outcomes = [kills(count, kind) for kind, count in (("local", wanted.local), ("cluster", wanted.cluster)) if count]
    versions = {"python": platform.python_version(), "ray": metadata.version("ray"), "system": platform.system()}
    for outcome in outcomes:
        sys.stdout.write("".join(f"{name}: {value}\n" for name, value in outcome.items()) + "\n")
    content = json.dumps({"command": "make kill", "versions": versions, "runs": outcomes}, indent=1) + "\n"
    (HERE / "results" / "kill.json").write_text(content, encoding="utf-8")
    faults = ("done again after being recorded", "processes left", "wrong or left over")
    sys.exit(int(any(outcome[fault] for outcome in outcomes for fault in faults)))


if __name__ == "__main__":
    main()
