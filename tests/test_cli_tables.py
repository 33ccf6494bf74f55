"""What commands print: whole in eighty columns, and nothing but shown by a terminal."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from encircle.audit import Case, Judgement
from encircle.cli import audits, main, tables
from encircle.cli.terminal import Stream
from encircle.core import EncircleError
from encircle.report.text_table import cells_table, doses_table
from encircle.scoring import Interval
from encircle.strength import Ablation, Reached
from encircle.strength.ablation import Row
from encircle.strength.text_tables import ablation_table, reach_table

from .audit.tiny_cases import TINY

ARMS = {
    "clean": "clean",
    "base": "unperturbed bases (dirty label)",
    "noise": "random noise (dirty label)",
    "watermark": "WM (unbounded)",
    "influence": "influence (dirty label)",
    "ceiling": "ceiling",
}
LONG = "A case whose title says everything about it that anybody may ever want to know, and then a little more"
SHIFT = {"mean": 0.27, "low": 0.22, "high": 0.31}
CELL = {
    "verdict": "FAIL",
    "shift": SHIFT,
    "p_adjusted": 0.0004,
    "label_kept": 0.987,
    "accuracy_change": {"mean": -0.012, "low": None, "high": None},
    "l1_clean": {"mean": 0.42, "low": None, "high": None},
    "l1_attack": {"mean": 0.25, "low": None, "high": None},
}

Shown = Callable[[int], str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], str]:
    """What is printed in so many columns."""

    def render(width: int, printing: Callable[[], None]) -> str:
        stream = Stream(file=io.StringIO(), width=width, highlight=False, emoji=False)
        for module in (audits, tables):
            monkeypatch.setattr(module, "answers", stream)
        printing()
        text = stream.file.getvalue()  # type: ignore[attr-defined]
        assert "…" not in text
        return str(text)

    return render


def judgement(*, intervals: bool = True) -> Judgement:
    def estimate(mean: float) -> dict[str, float | None]:
        return {"mean": mean, "low": mean - 0.05 if intervals else None, "high": mean + 0.05 if intervals else None}

    arms = [
        {
            "arm": arm,
            "title": title,
            "jaccard": estimate(0.11 + number / 10),
            "jaccard_change": estimate(0.13 + number / 10),
            "l1": estimate(0.17 + number / 10),
            "label_kept": {"mean": 0.91 + number / 100},
        }
        for number, (arm, title) in enumerate(ARMS.items())
    ]
    return Judgement(Path(), "FAIL", "", {"arms": arms})


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("intervals", [True, False])
def test_verdicts_are_whole_at_every_width(width: int, intervals: bool, shown: Any) -> None:
    cases = [Case(title=LONG), Case(title="Short"), Case(title="Other")]
    results = [judgement(intervals=intervals), judgement(intervals=intervals), EncircleError("broken")]
    text = shown(width, lambda: audits._show_verdicts(cases, results))
    lines = text.splitlines()
    for line in (f"{LONG}: FAIL", "Short: FAIL", "Other: ERROR"):
        assert line in lines
    assert all(len(line) <= width for line in lines if LONG not in line)
    for number, title in enumerate(ARMS.values()):
        for form, base in ((".2f", 0.11), ("+.2f", 0.13), (".2f", 0.17)):
            if (form, number) == ("+.2f", 0):
                continue  # clean is what changes are counted from
            mean = base + number / 10
            assert text.count(f"{mean:{form}}") >= 2
            if intervals:
                assert text.count(f"[{mean - 0.05:{form}}, {mean + 0.05:{form}}]") >= 2
        assert f"{91 + number}%" in text
        if width >= 80:
            assert any(line.startswith(f"{title} ") for line in lines)
    assert ("0.11 [0.06, 0.16]" in text) == (intervals and width > 100)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_cells_are_whole_at_every_width(width: int, shown: Any) -> None:
    titles = ["2% · CAM · IMF", "12.34567% · CAM over hidden units · WM (projected)"]
    summary = {"title": "Mine", "cells": [{**CELL, "title": title} for title in titles]}
    gain = Interval(0.12, -0.05, 0.2)
    rows = tuple(Row(title, phase, {}, gain, CELL) for title, phase in zip(titles, ("choice", "report"), strict=True))
    reached = Reached(titles[1], {}, gain, {"mean": 0.65}, 0.11, CELL["shift"], CELL)
    for table, numbers in (
        (cells_table(summary), ["FAIL", "< 0.001", "99%"]),
        (doses_table(summary), ["FAIL", "99%", "-1.2"]),
        (
            ablation_table(Ablation("Mine", rows, "")),
            ["[-0.05, +0.20]", "0.42 → 0.25", "99%", "-1.2", "choice"],
        ),
        (reach_table((reached,)), ["[-0.05, +0.20]", "0.42 → 0.25 (0.11)", "65%", "99%", "-1.2"]),
    ):
        text = shown(width, lambda table=table: tables.show(table))
        for number in ["+0.27", "[+0.22, +0.31]", *numbers]:
            assert number in text
        if width >= 80:
            assert all(len(line) <= width for line in text.splitlines())


EVIL = "\x1b[2J\x1b[31mred\rPASS\n\x9b1mnext\u202e [bold]line"
TAME = r"\x1b[2J\x1b[31mred PASS \x9b1mnext\u202e [bold]line"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["encircle", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_title_is_shown_and_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = {**TINY, "targets": 1, "victims": 1, "attack": {"kind": "imf", "models": 1, "epochs": 1}}
    Path("case.yaml").write_text(yaml.safe_dump({**quick, "title": EVIL}))
    Path("wrong.yaml").write_text(yaml.safe_dump({**quick, "title": EVIL, EVIL: 1}))
    Path("study.yaml").write_text(yaml.safe_dump({"title": EVIL, "case": quick, "grid": {"victims": {EVIL: 1}}}))
    for asked, code in (
        (("audit", "case.yaml", "--dry-run"), 0),
        (("audit", "case.yaml", "case.yaml"), 0),
        (("audit", "wrong.yaml"), 2),
        (("audit", EVIL.replace("\n", "")), 2),
        (("study", "run", "study.yaml", "--dry-run", "--cpus", 1), 0),
        (("study", "run", "study.yaml", "--cpus", 1), 0),
        (("study", "status", "studies/study"), 0),
    ):
        assert run(monkeypatch, *asked) == code, asked
        text = "".join(capsys.readouterr())
        assert r"\x1b[31mred" in text, asked
        assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text.replace("\n", "")), asked
        assert "\u202e" not in text
    assert run(monkeypatch, "audit", "case.yaml") == 0
    assert f"{TAME}: WARN" in capsys.readouterr().out.splitlines()
    assert run(monkeypatch, "study", "status", "studies/study", "--json") == 0
    assert json.loads(capsys.readouterr().out)["title"] == EVIL


@pytest.mark.parametrize(
    "asked",
    [
        ("audit", "digits-cam", "--runs", "{long}"),
        ("audit", "digits-cam", "--report", "{long}"),
        ("audit", "{long}"),
        ("report", "{long}"),
        ("report", "runs", "--out", "{long}"),
        ("init", "{long}"),
        ("clear-cache", "--runs", "{long}"),
        ("check-poison", "{long}"),
        ("study", "run", "how-much", "--folder", "{long}"),
        ("study", "run", "{long}"),
        ("study", "resume", "{long}"),
        ("study", "init", "{long}"),
        ("budget", "digits-cam", "--folder", "{long}"),
        ("reproduce", "kdd21", "--preset", "smoke", "--folder", "{long}"),
    ],
)
def test_a_path_that_is_too_long_is_one_sentence_at_once(
    asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *(word.format(long="x" * 300) for word in asked)) in {2, 3}
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert "internal" not in errors[0]
    assert list(tmp_path.iterdir()) == []
