"""Several audits at once: what one does to another, and what is left when the one who started them is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from encircle.audit import Audit, Case, Judgement
from encircle.audit.identity import run_folder
from encircle.audit.progress import Silent
from encircle.audit.several import run_cases
from encircle.audit.time_limit import TimeLimit
from encircle.core import EncircleError, InputError, StorageError

from ..programs import children_of, program, wait_for_end_of
from .tiny_cases import TINY, case_of, scores_of

ENDLESS = {"kind": "imf", "models": 1, "epochs": 1_000_000}


class Noted:
    """A reporter that notes what it is told, and fails or acts when it is told a certain thing."""

    def __init__(self, at: str = "", act: Any = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.at, self.act = at, act

    def note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.at:
            self.act()

    def plan(self, title: str, work: dict[str, int]) -> None:
        self.note("plan", title, work)

    def begin(self, kind: str, label: str) -> None:
        self.note("begin", kind, label)

    def advance(self, done: int, planned: int) -> None:
        self.note("advance", done, planned)

    def finish(self, kind: str, *, reused: bool = False) -> None:
        self.note("finish", kind, reused)


def pair(**changes: Any) -> list[Case]:
    """Two cases that differ in their seed."""
    return [case_of(TINY, seed=seed, title=f"Tiny {seed}", **changes) for seed in range(2)]


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    cases = [case_of(TINY, targets=[9999]), case_of(TINY, targets=1, victims=1)]
    for jobs in (1, 2):
        bad, good = run_cases(cases, tmp_path / str(jobs), jobs, lambda _: Silent())
        assert isinstance(bad, EncircleError)
        assert isinstance(good, Judgement)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["killed", "interrupted", "ended"])
def test_an_audit_that_is_stopped_leaves_no_process_behind(how: signal.Signals, tmp_path: Path) -> None:
    endless = {**TINY, "attack": {"kind": "imf", "models": 1, "epochs": 1_000_000}}
    for number in range(2):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump({**endless, "seed": number}))
    with program("-m", "encircle", "audit", "0.yaml", "1.yaml", "--jobs", 2, cwd=tmp_path) as audit:
        audit.reach(lambda: len([*tmp_path.glob("runs/*/case.yaml")]) == 2, "both are at work")
        workers = children_of(audit.pid)
        assert len(workers) >= 2
        audit.interrupt(how)
        assert audit.end() == (-how if how == signal.SIGKILL else 130)
        wait_for_end_of(workers)


@pytest.mark.slow
def test_whatever_else_ends_it_ends_the_workers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nobody reads what it prints."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    workers: list[int] = []

    def refuse() -> None:
        workers.extend(children_of(os.getpid()))
        raise BrokenPipeError

    before = children_of(os.getpid())
    with pytest.raises(BrokenPipeError):
        run_cases(pair(attack=ENDLESS), tmp_path / "runs", 2, lambda _: Noted("begin", refuse))
    assert workers
    assert set(children_of(os.getpid())) <= set(before)
    assert not [*tmp_path.glob("encircle-audits-*")]


def open_files(pid: int | str) -> list[str]:
    """What a process has open."""
    files = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            files.append(str(path.readlink()))
    return files


def pipes_of(pid: int | str) -> set[str]:
    return {file for file in open_files(pid) if file.startswith("pipe:")}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupt_between_two_starts_leaves_no_worker(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the second is started, and after, when it is not yet listened to."""
    pids: list[int] = []
    start, set_blocking = subprocess.Popen, os.set_blocking

    def started(*arguments: Any, **settings: Any) -> Any:
        if len(pids) == 1 and moment == "before":
            raise KeyboardInterrupt
        process = start(*arguments, **settings)
        pids.append(process.pid)
        return process

    def interrupted(*arguments: Any) -> None:
        if len(pids) == 2:
            raise KeyboardInterrupt
        set_blocking(*arguments)

    monkeypatch.setattr("encircle.jobs.local.os.set_blocking", interrupted)
    before = pipes_of("self")
    monkeypatch.setattr("encircle.jobs.local.subprocess.Popen", started)
    with pytest.raises(KeyboardInterrupt):
        run_cases(pair(attack=ENDLESS), tmp_path, 2, lambda _: Silent())
    assert len(pids) == (1 if moment == "before" else 2)
    wait_for_end_of(pids)
    assert pipes_of("self") == before


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_own_audit_only(tmp_path: Path) -> None:
    """It is found by its run folder, which only it has open."""
    endless = case_of(TINY, attack=ENDLESS)
    others = pair(targets=1, victims=1)
    audit = Audit.from_case(endless)
    folder = str(run_folder(audit, tmp_path, audit.data.check()))

    def kill() -> None:
        for pid in set(children_of(os.getpid())) - before:
            if any(file.startswith(folder) for file in open_files(pid)):
                os.kill(pid, signal.SIGKILL)

    before = set(children_of(os.getpid()))
    reporters = [Noted("begin", kill), Silent(), Silent()]
    lost, *judged = run_cases([endless, *others], tmp_path, 2, reporters.__getitem__)
    assert type(lost) is EncircleError
    assert str(lost).endswith("run again to resume.")
    assert all(isinstance(result, Judgement) for result in judged)


def test_processes_give_the_scores_of_one_process_and_tell_the_same(tmp_path: Path) -> None:
    cases = pair(targets=1, victims=1)
    calls: dict[int, list[Any]] = {}
    scores: dict[int, list[Any]] = {}
    for jobs in (1, 2):
        reporters = [Noted(), Noted()]
        judgements = run_cases(cases, tmp_path / str(jobs), jobs, reporters.__getitem__)
        scores[jobs] = [scores_of(judgement.folder) for judgement in judgements if isinstance(judgement, Judgement)]
        calls[jobs] = [[call for call in reporter.calls if call[0] != "advance"] for reporter in reporters]
        assert all("advance" in {name for name, *_ in reporter.calls} for reporter in reporters)
    assert calls[1] == calls[2]
    assert len(scores[1]) == 2
    for alone, together in zip(scores[1], scores[2], strict=True):
        assert alone.equals(together, null_equal=True)


def test_a_worker_s_error_is_of_the_class_that_it_was(tmp_path: Path) -> None:
    """Exit codes depend on it."""
    (tmp_path / "file").touch()
    for result in run_cases([case_of(TINY, targets=[9999])] * 2, tmp_path, 2, lambda _: Silent()):
        assert type(result) is InputError
        assert result.exit_code == 2
    for result in run_cases(pair(), tmp_path / "file", 2, lambda _: Silent()):
        assert type(result) is StorageError
        assert "Not a directory" in str(result)


def test_a_full_disk_is_an_error_and_not_the_input_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")

    monkeypatch.setattr("encircle.audit.several.run_audit", full)
    [error] = run_cases([case_of(TINY)], tmp_path, 1, lambda _: Silent())
    assert type(error) is StorageError
    assert str(error).startswith("cannot write some/file: No space left on device; free some space")


@pytest.mark.parametrize("jobs", [1, 2])
def test_audits_that_are_out_of_time_begin_nothing_and_go_on_later(jobs: int, tmp_path: Path) -> None:
    cases = pair(targets=1, victims=1)
    results = run_cases(cases, tmp_path, jobs, lambda _: Silent(), limit=TimeLimit.starting_now(0))
    assert [str(result) for result in results] == [TimeLimit(0).sentence] * 2
    assert {type(result).exit_code for result in results if isinstance(result, EncircleError)} == {3}
    assert not list(tmp_path.rglob("verdict.json"))
    [result] = run_cases(cases[:1], tmp_path, 1, lambda _: Silent(), limit=TimeLimit.starting_now(60))
    assert isinstance(result, Judgement)
