"""One set of options for every command that trains: each is there, and each does what it says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from encircle.audit import Judgement
from encircle.cli import app, main

from .audit.tiny_cases import TINY

QUICK = {
    **TINY,
    "attack": {"kind": "imf", "models": 1, "epochs": 1},
    "victims": 1,
    "judging": {"minimum_targets": 2, "threshold": 1.0},
}
TRAINING: dict[tuple[str, ...], str] = {
    ("audit",): "--runs",
    ("ablate",): "--folder",
    ("reach",): "--folder",
    ("budget",): "--folder",
    ("reproduce",): "--folder",
    ("study", "run"): "--folder",
    ("study", "resume"): "FOLDER",
    ("study", "retry"): "FOLDER",
}
"""Every command that trains, and how it is told where."""

OPTIONS = ("--device", "--jobs", "--dry-run", "--json", "--minutes")
ARGUMENTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("audit",): ("mine.yaml",),
    ("ablate",): ("mine.yaml", "--factor", "momentum 0.9", "--folder", "here"),
    ("reach",): ("mine.yaml", "--folder", "here"),
    ("budget",): ("mine.yaml", "--share", "0.05", "--folder", "here"),
    ("reproduce",): ("kdd21", "--preset", "smoke", "--only", "table2", "--folder", "here"),
    ("study", "run"): ("study.yaml", "--folder", "here"),
    ("study", "resume"): ("begun",),
    ("study", "retry"): ("begun",),
}
"""What each is asked, in a folder with a case, a study and one that is begun."""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["encircle", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENCIRCLE_DATA", str(tmp_path))
    text = yaml.safe_dump({"title": "Mine", "case": {**QUICK, "targets": 1}}, sort_keys=False)
    Path("mine.yaml").write_text(yaml.safe_dump(QUICK, sort_keys=False))
    Path("study.yaml").write_text(text)
    Path("begun").mkdir()
    assert run(monkeypatch, "study", "run", "study.yaml", "--folder", "begun", "--minutes", 0) == 3
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    """What every file holds, but for those that SQLite keeps beside a database that is open."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("study.db-")]
    return {path: path.read_bytes() for path in paths}


def test_every_command_is_known_to_train_or_not_to() -> None:
    others = {"report", "list", "init", "clear-cache", "check-poison", "study status", "study report", "study init"}
    named = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        inside = group.typer_instance.registered_commands
        named |= {f"{group.name} {command.name or command.callback.__name__}" for command in inside}  # type: ignore[union-attr]
    assert named == others | {" ".join(command) for command in TRAINING}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("command", TRAINING, ids=" ".join)
def test_every_command_that_trains_has_the_set(command: tuple[str, ...], option: str) -> None:
    shown = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [*command, "--help"])
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.output)
    assert f"{option} " in text or f"{option}," in text
    assert TRAINING[command] in text


@pytest.mark.parametrize("command", TRAINING, ids=" ".join)
def test_a_dry_run_is_one_object_and_writes_nothing(
    command: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(home)
    capsys.readouterr()
    asked = (*command, *ARGUMENTS[command], "--dry-run", "--json", "--jobs", 1)
    assert run(monkeypatch, *asked) == 0
    [line] = capsys.readouterr().out.splitlines()
    facts = json.loads(line)
    assert facts["event"] == "planned"
    parts = facts.get("audits") or list(facts.get("studies", {}).values()) or [facts]
    assert all(part["seconds"] > 0 for part in parts)
    assert files(home) == before


@pytest.mark.parametrize("command", TRAINING, ids=" ".join)
def test_no_minutes_begin_nothing_and_the_same_command_goes_on(
    command: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *command, *ARGUMENTS[command], "--minutes", 0, "--jobs", 1) == 3
    said = capsys.readouterr().err
    assert "run the same command again to resume" in said or "encircle study resume" in said
    assert not list(home.rglob("verdict.json"))


def test_a_dry_run_of_what_is_finished_has_nothing_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tasks() -> int:
        capsys.readouterr()
        assert run(monkeypatch, "study", "resume", "begun", "--dry-run", "--json") == 0
        return int(json.loads(capsys.readouterr().out)["tasks"])

    assert tasks() > 5
    assert run(monkeypatch, "study", "resume", "begun", "--jobs", 1) == 0
    assert tasks() == 0
    assert run(monkeypatch, "study", "resume", "begun", "--dry-run") == 0
    assert "0 tasks" in capsys.readouterr().out


def test_an_audit_is_one_object(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arms: list[dict[str, Any]] = []
    judged = [Judgement(home, "FAIL", "It bends.", {"arms": arms})]
    monkeypatch.setattr("encircle.cli.audits.run_cases", lambda *_, **__: judged)
    monkeypatch.setattr("encircle.cli.audits.render", lambda *_, **__: home / "report.html")
    capsys.readouterr()
    assert run(monkeypatch, "audit", "mine.yaml", "--json") == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts == {
        "event": "audited",
        "audits": [{"title": "Tiny", "verdict": "FAIL", "sentence": "It bends.", "folder": str(home), "arms": []}],
        "report": str(home / "report.html"),
    }
