"""`kill -9` of the driver, ten times at random moments; `make kill` does it fifty times, and on Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timed

HERE = Path(__file__).resolve().parents[2]


def assert_nothing_was_lost(folder: Path, kills: int, kind: str) -> None:
    command = [sys.executable, "-m", "tests.jobs.kill_driver", str(folder), str(kills), "7", kind]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == kills
    assert found["wrong or left over"] == []
    assert found["done again after being recorded"] == 0
    assert found["processes left"] == 0
    assert found["killed with an attempt at work"] > 0 or kind == "cluster"  # Ray takes seconds to start


@pytest.mark.slow
def test_ten_kills_of_a_driver_with_worker_processes(tmp_path: Path) -> None:
    assert_nothing_was_lost(tmp_path, 10, "local")


@pytest.mark.slow
def test_a_kill_of_a_driver_with_ray(tmp_path: Path) -> None:
    assert_nothing_was_lost(tmp_path, 1, "cluster")
