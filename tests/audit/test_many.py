"""Several audits at once: what one does to another, and what is left when the one who started them is killed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from encircle.audit import Judgement
from encircle.audit.many import _deaf_children, run_cases
from encircle.audit.progress import Silent
from encircle.core import EncircleError, StorageError

from ..programs import children_of, program, wait_for_end_of
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
def test_whatever_else_ends_it_ends_the_workers_too(tmp_path: Path) -> None:
    """As where nobody reads what it prints."""

    def refuse(*_: object) -> None:
        raise BrokenPipeError

    refusing = SimpleNamespace(plan=refuse, begin=refuse, advance=refuse, finish=refuse)
    endless = {"kind": "imf", "models": 1, "epochs": 1_000_000}
    cases = [case_of(TINY, attack=endless, seed=seed) for seed in range(2)]
    with pytest.raises(BrokenPipeError):
        run_cases(cases, tmp_path, 2, lambda _: refusing)
    assert multiprocessing.active_children() == []


def test_a_full_disk_is_an_error_and_not_the_input_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")

    monkeypatch.setattr("encircle.audit.many.run_audit", full)
    [error] = run_cases([case_of(TINY)], tmp_path, 1, lambda _: Silent())
    assert type(error) is StorageError
    assert str(error).startswith("cannot write some/file: No space left on device; free some space")


def test_an_interrupt_waits_while_processes_begin() -> None:
    """Also one that another thread is given: half a process would complain of it."""

    def hear() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)

    begun = False
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), _deaf_children():
            thread = threading.Thread(target=hear)
            thread.start()
            thread.join()
            begun = True
    finally:
        signal.signal(signal.SIGINT, before)
    assert begun
