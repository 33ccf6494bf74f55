"""What is said of a study at work where there is no terminal."""

from __future__ import annotations

import pytest

from encircle.cli import study_board
from encircle.cli.study_board import StudyBoard

COUNTS = {"attack": {"waiting": 2, "done": 1}, "control": {"waiting": 1}}


def hear_all(board: StudyBoard) -> None:
    board.hear("begin", {"counts": COUNTS})
    board.hear("start", {"task": "a", "kind": "attack", "label": "Case [1]: target 2, IMF"})
    board.hear("progress", {"task": "a", "share": 0.5})
    board.hear("start", {"task": "b", "kind": "control", "label": "noise"})
    board.hear("failed", {"task": "b", "kind": "control", "label": "noise", "error": "no memory"})
    board.hear("done", {"task": "a", "kind": "attack", "label": "x", "seconds": 10.0})


def test_a_line_now_and_then_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study_board, "PAUSE", 0.0)
    with StudyBoard(as_json=False) as board:
        hear_all(board)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert "1 of 4 tasks done, about " in lines[1]
    assert "now: Case [1]: target 2, IMF" in lines[1]
    assert "2 of 4 tasks done, 1 failed, about " in lines[-1]


def test_not_more_often_than_that(capsys: pytest.CaptureFixture[str]) -> None:
    with StudyBoard(as_json=False) as board:
        hear_all(board)
    assert capsys.readouterr().err == ""


def test_json_lines_are_all_there_is_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study_board, "PAUSE", 0.0)
    with StudyBoard(as_json=True) as board:
        hear_all(board)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert len(captured.out.splitlines()) == 6
