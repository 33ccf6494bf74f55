"""`encircle ablate`, `encircle reach` and `encircle budget`: what a newcomer sees, and what a program reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from encircle.cli import main, strength
from encircle.strength import Smallest
from encircle.study.folder import Conclusion

from .audit.tiny_cases import TINY

QUICK = {
    **TINY,
    "attack": {"kind": "imf", "models": 1, "epochs": 1},
    "victims": 1,
    "judging": {"minimum_targets": 2, "threshold": 1.0},
}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["encircle", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(QUICK, sort_keys=False))
    return path


@pytest.mark.slow
def test_budget_says_what_is_enough_and_where_the_report_is(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("budget", case, "--share", 0.02, "--share", 0.05, "--cpus", 1)
    assert run(monkeypatch, *asked) == 0
    shown = capsys.readouterr().out
    assert "No share up to 5 % was shown to be enough. The largest that was tried:" in shown
    assert "studies/mine-budget/report.html" in shown
    assert Path("studies/mine-budget/report.html").is_file()
    assert run(monkeypatch, *asked, "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tried"] == [0.05]


@pytest.mark.slow
def test_ablate_shows_each_factor_and_the_best(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("ablate", case, "--factor", "momentum 0.9", "--factor", "gradient matching", "--cpus", 1)
    assert run(monkeypatch, *asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for word in ("choice", "report", "as given", "momentum 0.9", "gradient", "IMF (paper's settings)"):
        assert word in shown
    assert "Best where settings are chosen:" in shown
    assert "studies/mine-ablation/report/report.html" in shown
    assert run(monkeypatch, *asked, "--json") == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert rows[0]["name"] == "as given"
    assert rows[0]["gain"]["mean"] == 0


@pytest.mark.slow
def test_reach_sets_the_attacks_side_by_side(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("reach", case, "--set", "ceiling.epochs=1", "--set", "targets=1", "--cpus", 1)
    assert run(monkeypatch, *asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for word in (
        "IMF as",
        "(tuned)",
        "selected",
        "fraction of the reference ceiling",
        "WM's",
        "studies/mine-reach/report.html",
    ):
        assert word in shown
    assert run(monkeypatch, *asked, "--json") == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert rows[0]["name"] == "IMF as published"


def test_a_share_that_is_enough_is_a_fail_for_whoever_asks_by_exit_code(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Smallest(0.02, 0.01, (0.01, 0.02), Conclusion(Path(), "FAIL", "", {"title": "Mine", "cells": []}))
    monkeypatch.setattr(strength, "smallest_budget", lambda *given, **settings: found)
    assert run(monkeypatch, "budget", case) == 1
    assert "Poison of 2 % of the training data is enough" in capsys.readouterr().out
    assert run(monkeypatch, "budget", case, "--exit-zero") == 0


@pytest.mark.parametrize(
    ("asked", "runs", "words"),
    [
        (("ablate", "--factor", "momentum 0.9"), 2, "at most five attacks more"),
        (("reach",), 4, "ceilings"),
        (("budget", "--share", 0.02, "--share", 0.05, "--share", 0.1), 3, "asks for few"),
    ],
)
def test_a_dry_run_says_what_would_be_done_and_does_none_of_it(
    asked: tuple[Any, ...],
    runs: int,
    words: str,
    case: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, *options = asked
    assert run(monkeypatch, command, case, *options, "--cpus", 1, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert f"{runs} runs in {runs} cells" in shown
    assert words in shown
    assert "with 1 worker, from a short probe" in shown
    assert not Path("studies").exists()


@pytest.mark.parametrize("command", ["ablate", "reach", "budget"])
def test_a_case_that_is_not_there_is_named(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, command, "nowhere.yaml") == 2


def test_shares_that_are_none_are_refused(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "budget", case, "--share", 2) == 2
    assert "between 0 and 1" in capsys.readouterr().err


def test_a_factor_that_is_none_is_refused_with_the_nearest(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "ablate", case, "--factor", "gradient machting") == 2
    assert "gradient matching" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["damping=-1", "other_share=half", "kind=watermark", "nonsense", "dampng=1"])
def test_a_selected_setting_that_is_none_is_refused(
    setting: str, case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "reach", case, "--selected", setting) == 2
    shown = capsys.readouterr().err
    assert setting.partition("=")[0] in shown or "watermark" in shown
    assert "internal" not in shown


def test_what_is_selected_stands_over_the_default(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def pretended(*given: Any, selection: Any, **settings: Any) -> tuple[()]:
        asked.append(selection)
        return ()

    monkeypatch.setattr(strength, "reach", pretended)
    assert run(monkeypatch, "reach", case, "--selected", "damping=0.1", "--selected", "bases=influential") == 0
    assert asked == [{"damping": 0.1, "bases": "influential"}]
