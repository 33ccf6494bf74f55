"""`encircle study`: exit codes, what is said where, and the whole way from a newcomer's first command."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from encircle.cli import main
from encircle.core import InputError

from .audit.tiny_cases import TINY
from .programs import children_of, program, wait_for_end_of

QUICK = {**TINY, "attack": {"kind": "imf", "models": 1, "epochs": 1}, "targets": 1, "victims": 1}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["encircle", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def study(folder: Path, **content: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "Mine", "case": QUICK, **content}, sort_keys=False))
    return path


@pytest.mark.slow
def test_run_status_report_retry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = study(tmp_path, grid={"explainer.kind": ["grad"], "targets": [1, 29]})
    assert run(monkeypatch, "study", "run", path, "--cpus", 2) == 3
    shown = capsys.readouterr()
    assert "ERROR" in shown.out
    assert "studies/mine/report.html" in shown.out
    assert "fewer than 29 targets" in shown.err
    assert run(monkeypatch, "study", "status", "studies/mine") == 0
    shown = capsys.readouterr()
    assert "blocked" in shown.out
    assert "encircle study retry studies/mine" in shown.err
    assert run(monkeypatch, "study", "status", "studies/mine", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["run"] == {"done": 1, "blocked": 1}
    assert run(monkeypatch, "study", "retry", "studies/mine", "--json", "--cpus", 2) == 3
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["event"] for event in events} == {"begin", "start", "failed", "end", "concluded"}
    assert events[-1]["counts"]["finished"] == 1
    assert run(monkeypatch, "study", "report", "studies/mine") == 3


@pytest.mark.parametrize("command", ["resume", "retry"])
def test_a_study_stays_on_the_device_that_it_was_begun_on(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def go_on(root: Path, executor: object, *, device: str, **settings: object) -> None:
        asked.append(device)
        raise InputError("enough.")

    monkeypatch.setattr("encircle.cli.studies.go_on", go_on)
    assert run(monkeypatch, "study", command, tmp_path) == 2
    (tmp_path / "plan.json").write_text(json.dumps({"runs": [], "wanted": {}, "device": "cuda"}))
    assert run(monkeypatch, "study", command, tmp_path) == 2
    assert run(monkeypatch, "study", command, tmp_path, "--device", "cpu") == 2
    assert asked == ["cpu", "cuda", "cpu"]


def test_dry_run_says_what_would_be_done_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = study(tmp_path, grid={"budget.fraction": [0.02, 0.05], "victims": [1]})
    assert run(monkeypatch, "study", "run", path, "--dry-run", "--cpus", 3) == 0
    shown = capsys.readouterr().out
    assert "2 runs in 2 cells" in shown
    assert "with 3 workers" in shown
    assert "clean victims" in shown
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("flags", [["--dry-run"], []])
def test_a_grid_that_holds_one_audit_twice_is_refused(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = study(tmp_path, grid={"budget.fraction": {"a tenth": 0.1, "ten percent": 0.1}})
    assert run(monkeypatch, "study", "run", path, *flags) == 2
    assert "'Mine · a tenth' and 'Mine · ten percent' are the same audit" in capsys.readouterr().err
    assert not (tmp_path / "studies").exists()


def test_init_writes_a_study_that_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "study", "init") == 0
    assert "encircle study run study.yaml --dry-run" in capsys.readouterr().out
    assert run(monkeypatch, "study", "init") == 2
    assert run(monkeypatch, "list", "studies") == 0
    assert "how-much" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("study", "run", "nowhere.yaml"), "there is no study file nowhere.yaml"),
        (("study", "status", "nowhere"), "holds no study"),
        (("study", "resume", "nowhere"), "holds no study"),
        (("study", "retry", "nowhere"), "holds no study"),
        (("study", "report", "nowhere"), "holds no study"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    shown = capsys.readouterr().err
    assert words in shown.replace("\n", " ")
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--address", "127.0.0.1:1"), "say --executor ray too"),
        (("--executor", "ray", "--address", "127.0.0.1:1"), "no Ray cluster answers at 127.0.0.1:1"),
        (("--executor", "ray", "--address", "nonsense"), "write host:port"),
        (("--device", "toaster"), "finds no device 'toaster'"),
        (("--cpus", "100000"), "--cpus 100000 is more than this machine can do at a time; give at most "),
    ],
)
def test_where_it_cannot_run_is_one_sentence(
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "study", "run", study(tmp_path), *arguments) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")


def test_report_before_anything_was_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "study.yaml").write_text(yaml.safe_dump({"case": QUICK}))
    assert run(monkeypatch, "study", "report", "empty") == 2
    assert "nothing was run in empty yet" in capsys.readouterr().err


def test_files_elsewhere_are_refused_for_cases_and_studies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "case.yaml").write_text(
        yaml.safe_dump({**QUICK, "goal": {"kind": "from-file", "path": "/etc/hostname"}})
    )
    assert run(monkeypatch, "audit", tmp_path / "case.yaml", "--dry-run") == 2
    assert "--allow-outside" in capsys.readouterr().err
    path = study(tmp_path, set={"goal": {"kind": "from-file", "path": "../../etc/hostname"}})
    assert run(monkeypatch, "study", "run", path, "--dry-run") == 2
    assert "--allow-outside" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_cleanly_and_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    path = study(tmp_path, set={"recipe.epochs": 1_000_000})  # a model is at work until it is ended
    with program("-m", "encircle", "study", "run", path, "--folder", "here", "--json", "--cpus", 2, cwd=tmp_path) as it:

        def training() -> bool:
            events = [json.loads(line) for line in it.lines()]
            return any(event["event"] == "start" and event["kind"] == "model" for event in events)

        it.reach(training, "a model is trained")
        workers = children_of(it.pid)
        assert workers
        assert run_status(tmp_path)["running"]  # from another terminal, meanwhile
        it.interrupt(number, group=True)
        assert it.end() == 130
        assert it.err == "stopped; go on with: encircle study resume here\n"
        wait_for_end_of(workers)
    assert run_status(tmp_path)["running"] == []


def run_status(folder: Path) -> dict[str, Any]:
    with program("-m", "encircle", "study", "status", "here", "--json", cwd=folder) as asked:
        assert asked.end() == 0, asked.err
        facts: dict[str, Any] = json.loads(asked.out)
        return facts
