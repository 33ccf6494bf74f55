"""A run that was killed at any moment, or that met a full disk, resumes and ends with identical scores."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .tiny_cases import TINY, TINY_IMAGES

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize(("content", "kills"), [(TINY, 8), (TINY_IMAGES, 4)], ids=["table", "images"])
def test_killed_at_random_moments(content: dict[str, object], kills: int, tmp_path: Path) -> None:
    case = tmp_path / "case.yaml"
    case.write_text(yaml.safe_dump(content))
    command = [sys.executable, str(HERE / "kill_and_resume.py"), str(case), str(tmp_path / "runs"), str(kills), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == kills
    assert told["files"] > 10
    assert all(told["same"])
    assert told["leftovers"] == []


def small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))


def audit(case: Path, runs: Path, *, full_disk: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "encircle", "audit", str(case), "--runs", str(runs)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=small_files_only if full_disk else None
    )


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    case = tmp_path / "case.yaml"
    case.write_text(yaml.safe_dump({**TINY, "targets": 1, "victims": 1}))
    full = audit(case, tmp_path / "runs", full_disk=True)
    assert full.returncode == 3
    assert "Traceback" not in full.stderr
    errors = [line for line in full.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "cannot write" in errors[0]
    assert "ERROR" in full.stdout
    assert list((tmp_path / "runs").rglob("case.yaml")), "what was finished before the disk was full is still there"
    assert not list((tmp_path / "runs").rglob(".partial-*"))
    assert audit(case, tmp_path / "runs").returncode == 0


def test_two_at_once(tmp_path: Path) -> None:
    from encircle.audit import Audit, read_case, run_audit
    from encircle.core import InputError
    from encircle.storage import exclusive_lock

    case = read_case(yaml.safe_dump({**TINY, "targets": 1, "victims": 1}), [], "case")
    folder = run_audit(Audit.from_case(case), tmp_path).folder
    with exclusive_lock(folder), pytest.raises(InputError, match="another process is at work"):
        run_audit(Audit.from_case(case), tmp_path)
