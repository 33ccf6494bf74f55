"""Several audits at once: what one does to another, and what is left when the one who started them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from encircle.audit import Judgement
from encircle.audit.many import run_cases
from encircle.audit.progress import Silent
from encircle.core import EncircleError

from .tiny_cases import TINY, case_of, scores_of


def test_processes_give_the_scores_of_one_process(tmp_path: Path) -> None:
    cases = [case_of(TINY, targets=1, victims=1), case_of(TINY, targets=1, victims=1, seed=8, title="Other")]
    alone = run_cases(cases, tmp_path / "alone", 1, lambda _: Silent())
    together = run_cases(cases, tmp_path / "together", 2, lambda _: Silent())
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Judgement)
        assert isinstance(other, Judgement)
        assert scores_of(one.folder).equals(scores_of(other.folder), null_equal=True)


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    cases = [case_of(TINY, targets=[9999]), case_of(TINY, targets=1, victims=1)]
    for jobs in (1, 2):
        bad, good = run_cases(cases, tmp_path / str(jobs), jobs, lambda _: Silent())
        assert isinstance(bad, EncircleError)
        assert isinstance(good, Judgement)


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.parent.name))
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_an_audit_that_is_stopped_leaves_no_process_behind(how: signal.Signals, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump({**TINY, "targets": 8, "seed": number}))
    command = [
        sys.executable,
        "-m",
        "encircle",
        "audit",
        str(tmp_path / "0.yaml"),
        str(tmp_path / "1.yaml"),
        "--jobs",
        "2",
    ]
    started = subprocess.Popen(
        [*command, "--runs", str(tmp_path / "runs")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "runs").glob("*/case.yaml"))) < 2:
        assert time.monotonic() < deadline
        assert started.poll() is None
        time.sleep(0.1)
    workers = children_of(started.pid)
    assert len(workers) >= 2
    os.kill(started.pid, how)
    assert started.wait(60) == (130 if how == signal.SIGINT else -how)
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived the audit that started it"
        time.sleep(0.2)
