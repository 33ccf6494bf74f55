"""Ctrl-C, SIGTERM and closed pipes: one sentence or none, and an exit code that is no verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from encircle.cli import main
from encircle.cli.interrupts import words_for

from .audit.tiny_cases import TINY
from .programs import HERE, children_of, program, wait_for_end_of

RESUME = "stopped; run the same command again to resume.\n"
ENDLESS = {**TINY, "attack": {"kind": "imf", "models": 1, "epochs": 1_000_000}}

SLOW_LIBRARY = """
import pathlib, time
pathlib.Path("loading").touch()
time.sleep(600)
"""

STUBBORN = """
import sys, time
from encircle.cli import commands, interrupts, main
interrupts._PATIENCE = float(sys.argv.pop())
def run():
    try:
        print("at work", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("ending", flush=True)
        time.sleep(600)
commands.run = run
main()
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["audit"], RESUME),
        (["audit", "case.yaml", "--jobs", "2"], RESUME),
        (["study", "run", "x"], RESUME),
        (["study", "retry", "x"], RESUME),
        (["reach", "x", "--json"], RESUME),
        (["reproduce", "kdd21"], RESUME),
        (["audit", "x", "--dry-run"], "stopped.\n"),
        (["study", "report", "x"], "stopped.\n"),
        (["report", "audit"], "stopped.\n"),
        (["list", "cases"], "stopped.\n"),
        ([], "stopped.\n"),
    ],
)
def test_what_is_said_depends_on_whether_there_is_anything_to_resume(arguments: list[str], words: str) -> None:
    assert words_for(arguments) + "\n" == words


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("command", "words"), [("audit", RESUME), ("list", "stopped.\n")])
def test_while_libraries_are_loaded(command: str, words: str, number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(SLOW_LIBRARY)
    path = os.pathsep.join([str(tmp_path), str(HERE / "src")])
    with program("-m", "encircle", command, "x", cwd=tmp_path, PYTHONPATH=path) as encircle:
        encircle.reach((tmp_path / "loading").exists, "its library is loaded")
        encircle.interrupt(number)
        assert encircle.end() == 130
        assert encircle.err == words


def assert_only_stopped(errors: str) -> None:
    """Nothing but progress was said before: a line now and then, on a machine that is slow."""
    *progress, last = errors.splitlines(keepends=True)
    assert last == RESUME
    assert all(line.startswith("[") for line in progress)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_an_audit_is_at_work(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(ENDLESS))
    with program("-m", "encircle", "audit", "case.yaml", cwd=tmp_path) as encircle:
        encircle.reach(lambda: [*tmp_path.glob("runs/*/parts/*")], "its first piece is finished")
        encircle.interrupt(number)
        assert encircle.end() == 130
        assert_only_stopped(encircle.err)
        assert encircle.out == ""


@pytest.mark.parametrize("patience", [600, 1])
def test_where_stopping_takes_for_ever_a_second_interrupt_or_a_clock_ends_it(patience: int) -> None:
    """Also where the first one was swallowed, as by a destructor."""
    with program("-c", STUBBORN, "audit", "x", patience) as encircle:
        encircle.reach(lambda: "at work" in encircle.lines(), "it is at work")
        encircle.interrupt()
        if patience > 1:
            encircle.reach(lambda: "ending" in encircle.lines(), "it is ending")
            encircle.interrupt()
        assert encircle.end() == 130
        assert encircle.err == RESUME


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["first worker", "both workers", "at work"])
def test_workers_hear_nothing_of_it_and_leave(moment: str, tmp_path: Path) -> None:
    """Also while they begin, which takes seconds: Ctrl-C on a terminal is sent to every process of the command."""
    for seed in range(2):
        (tmp_path / f"{seed}.yaml").write_text(yaml.safe_dump({**ENDLESS, "seed": seed}))
    with program("-m", "encircle", "audit", "0.yaml", "1.yaml", "--jobs", "2", cwd=tmp_path) as encircle:
        if moment == "at work":
            encircle.reach(lambda: len([*tmp_path.glob("runs/*/case.yaml")]) == 2, "both are at work")
        else:
            count = 1 if moment == "first worker" else 2
            encircle.reach(lambda: len(children_of(encircle.pid)) >= count, f"there are {count} processes")
        started = children_of(encircle.pid)
        encircle.interrupt(group=True)
        assert encircle.end() == 130
        assert_only_stopped(encircle.err)
        wait_for_end_of(started)


DESTRUCTIVE = """
import time
from encircle.cli import commands, main
class Slow:
    def __del__(self):
        print("at work", flush=True)
        time.sleep(600)
def run():
    Slow()
    try:
        time.sleep(600)
    finally:
        print("ended cleanly", flush=True)
commands.run = run
main()
"""


def test_an_interrupt_that_a_destructor_swallows_comes_again() -> None:
    with program("-c", DESTRUCTIVE, "audit") as encircle:
        encircle.reach(lambda: "at work" in encircle.lines(), "it is at work")
        encircle.interrupt()
        assert encircle.end() == 130
        assert encircle.err == RESUME
        assert encircle.lines()[-1] == "ended cleanly"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["encircle", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_an_interrupt_of_python_s_own(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr("encircle.cli.audits.find_marked", interrupted)
    assert run(monkeypatch, "check-poison", ".") == 130
    assert capfd.readouterr().err == "stopped.\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_errors_of_typer_stay_what_they_were(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "audit", "--nonsense") == 2
    assert "No such option" in capsys.readouterr().err
    assert run(monkeypatch, "nonsense") == 2
    assert "No such command" in capsys.readouterr().err
    assert run(monkeypatch, "--help") == 0
    assert "Usage" in capsys.readouterr().out
    run(monkeypatch)
    shown = capsys.readouterr()
    assert "Usage" in shown.out + shown.err


@pytest.mark.parametrize("error", [EOFError("made up"), RuntimeError("made up")])
def test_an_error_nobody_foresaw_is_never_a_verdict(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("encircle.cli.audits.find_marked", broken)
    assert run(monkeypatch, "check-poison", ".") == 3
    assert f"internal error {type(error).__name__}: made up" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["list", "cases"], ["check-poison", "."], ["audit", "nowhere.yaml"]])
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_what_nobody_reads_any_more_ends_quietly(arguments: list[str], closed: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "encircle", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(HERE / "src")},
            stdout=writing if closed == "stdout" else subprocess.PIPE,
            stderr=writing if closed == "stderr" else subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    expected = 2 if arguments[0] == "audit" else 141 if closed == "stdout" else 0
    assert done.returncode == expected
    if closed == "stdout":
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("arguments", "full", "code"),
    [(["list", "cases"], "stdout", 3), (["audit", "nowhere.yaml"], "stderr", 2), (["audit", "--no"], "stderr", 3)],
)
def test_a_full_disk_below_what_is_printed_is_no_verdict(arguments: list[str], full: str, code: int) -> None:
    with Path("/dev/full").open("w") as device:
        done = subprocess.run(
            [sys.executable, "-m", "encircle", *arguments],
            env={**os.environ, "PYTHONPATH": str(HERE / "src")},
            stdout=device if full == "stdout" else subprocess.PIPE,
            stderr=device if full == "stderr" else subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == code
    if full == "stdout":
        assert done.stderr.startswith("error: cannot write")
        assert len(done.stderr.splitlines()) == 1


def test_init_on_a_full_disk(tmp_path: Path) -> None:
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "from encircle.cli import main; sys.argv = ['encircle', 'init', 'case.yaml']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: cannot write case.yaml: File too large; free some space")
    assert list(tmp_path.iterdir()) == []
