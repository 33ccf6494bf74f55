"""The command line: exit codes, one sentence an error, and what a newcomer types first."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from encircle.audit import Judgement
from encircle.cli import main
from encircle.core import EncircleError

from .audit.tiny_cases import TINY

QUICK = {**TINY, "targets": 1, "victims": 1}


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(QUICK))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["encircle", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_an_audit_from_a_case_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path
) -> None:
    assert run(monkeypatch, "audit", case, "--runs", tmp_path / "runs", "--report", tmp_path / "page.html") == 0
    shown = capsys.readouterr()
    assert "WARN" in shown.out
    assert "IMF" in shown.out
    assert str(tmp_path / "page.html") in shown.out
    assert (tmp_path / "page.html").is_file()
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == 1


def test_two_audits_in_processes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**QUICK, "title": "Other", "targets": [10_000]}))
    assert run(monkeypatch, "audit", case, other, "--runs", tmp_path / "runs", "--jobs", 2) == 2
    shown = capsys.readouterr()
    assert "Tiny: WARN" in shown.out
    assert "Other: ERROR" in shown.out
    assert "error: target 10000 is not a row" in shown.err


@pytest.mark.parametrize(
    ("results", "flags", "code"),
    [
        (["PASS"], [], 0),
        (["WARN"], [], 0),
        (["FAIL", "PASS"], [], 1),
        (["FAIL"], ["--exit-zero"], 0),
        (["FAIL", EncircleError("broken")], [], 3),
        ([EncircleError("broken")], ["--exit-zero"], 3),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    case: Path,
    tmp_path: Path,
    results: list[str | EncircleError],
    flags: list[str],
    code: int,
) -> None:
    summary = {"arms": []}
    judged = [Judgement(tmp_path, one, "", summary) if isinstance(one, str) else one for one in results]
    monkeypatch.setattr("encircle.cli.audits.run_cases", lambda *_, **__: judged)
    monkeypatch.setattr("encircle.cli.audits.render", lambda *_, **__: tmp_path / "report.html")
    assert run(monkeypatch, "audit", *[case] * len(results), *flags) == code


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["audit", "nowhere.yaml"], "there is no case file nowhere.yaml"),
        (["audit", "digits-cam", "--set", "budget.fracton=0.1"], "did you mean 'fraction'?"),
        (["audit", "digits-cam", "--set", "budget.fraction=1"], "should be less than 1"),
        (["audit", "digits-cam", "--set", "budget.epsilon=0"], "greater than 0"),
        (["audit", "digits-cam", "--set", "model.kind=two-layer"], "two-layer is for tables"),
        (["report", "nowhere"], "nowhere"),
        (["list", "goal"], "did you mean 'goals'?"),
        (["check-poison", "nowhere"], "not a folder"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in shown.err


def test_an_internal_error_is_an_error_and_never_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr("encircle.audit.several.run_audit", broken)
    assert run(monkeypatch, "audit", case, "--runs", tmp_path) == 3
    shown = capsys.readouterr()
    assert "ERROR" in shown.out
    assert "internal error ZeroDivisionError" in shown.err


def test_a_dry_run_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "audit", "digits-cam", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "10 x craft" in shown
    assert "80 poison samples a target, 9.9% of the 809 training samples" in " ".join(shown.split())
    assert re.search(r"about [\d:]+ on one processor", " ".join(shown.split()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("audit", "digits-cam"), ("audit", "digits-cam", "--dry-run")])
def test_a_device_that_is_not_here(
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *command, "--device", "cuda:77") == 2
    assert "torch finds no device 'cuda:77' on this machine" in " ".join(capsys.readouterr().err.split())


def test_without_a_case_the_first_embedded_one_is_audited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "audit", "--dry-run") == 0
    assert "Handwritten digits, CAM" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("recipe.frozen_stages=9", "the model has 4 stages"),
        ("budget.count=99999", "give either fraction or count"),
        ("goal.name=midleft", "did you mean 'mid-left'?"),
        ("checkpoint=nowhere.pt", "needs either pretraining or checkpoint"),
    ],
)
def test_a_dry_run_refuses_what_the_audit_would(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, sentence: str
) -> None:
    assert run(monkeypatch, "audit", "digits-cam", "--set", setting, "--dry-run") == 2
    assert sentence in capsys.readouterr().err


def test_a_case_file_that_is_not_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert run(monkeypatch, "audit", path) == 2


def test_an_error_nobody_foresaw_is_not_a_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr("encircle.cli.audits.find_marked", broken)
    assert run(monkeypatch, "check-poison", ".") == 3
    assert "internal error ZeroDivisionError" in capsys.readouterr().err


def test_init_writes_a_case_that_can_be_audited_and_overwrites_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    assert run(monkeypatch, "init", path) == 0
    assert run(monkeypatch, "audit", path, "--dry-run") == 0
    assert "My audit" in capsys.readouterr().out
    assert run(monkeypatch, "init", path) == 2


@pytest.mark.parametrize("what", ["attacks", "explainers", "goals", "datasets", "models", "cases"])
def test_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str) -> None:
    assert run(monkeypatch, "list", what) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_exported_poison_is_recognised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path
) -> None:
    run(monkeypatch, "audit", case, "--runs", tmp_path / "runs")
    capsys.readouterr()
    assert run(monkeypatch, "check-poison", tmp_path / "runs") == 1
    assert "poison.parquet" in capsys.readouterr().out
    (tmp_path / "clean").mkdir()
    assert run(monkeypatch, "check-poison", tmp_path / "clean") == 0


def test_a_saved_run_is_drawn_again(monkeypatch: pytest.MonkeyPatch, case: Path, tmp_path: Path) -> None:
    run(monkeypatch, "audit", case, "--runs", tmp_path / "runs")
    page = next((tmp_path / "runs").glob("*/report.html"))
    before = page.read_bytes()
    page.unlink()
    assert run(monkeypatch, "report", page.parent) == 0
    assert page.read_bytes() == before


def test_the_cache_can_be_cleared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{'0' * 64}.safetensors").write_bytes(bytes(2 << 20))
    for sentence in ("Deleted 1 files, 2.0 MiB", "Deleted 0 files, 0.0 MiB"):
        assert run(monkeypatch, "clear-cache", "--runs", tmp_path) == 0
        assert sentence in capsys.readouterr().out
