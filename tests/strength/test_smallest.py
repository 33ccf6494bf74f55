"""The smallest budget: a search that asks little, and answers as a look at every share would."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encircle.core import EncircleError, InputError
from encircle.strength import LADDER, Smallest, lowest, smallest, smallest_budget
from encircle.study.folder import Conclusion
from tests.audit.tiny_cases import TINY, case_of
from tests.study.serial import Serial

CASE = case_of({**TINY, "targets": 2, "victims": 1}).model_dump(mode="json")


@given(st.integers(0, 40), st.integers(0, 45))
def test_the_first_that_is_enough_is_found_by_halving(count: int, first: int) -> None:
    asked: list[int] = []

    def enough(step: int) -> bool:
        asked.append(step)
        return step >= first

    assert lowest(count, enough) == (first if first < count else None)
    assert len(asked) <= 1 + math.ceil(math.log2(max(count, 1)))
    assert len(set(asked)) == len(asked)


class Pretended:
    """Stands in for the studies: from a share on, the verdict is FAIL."""

    def __init__(self, least: float, verdicts: dict[float, str] | None = None) -> None:
        self.least, self.verdicts = least, verdicts or {}
        self.asked: list[list[int]] = []

    def __call__(self, root: Path, executor: Any, *, only: list[int], **settings: Any) -> Conclusion:
        self.asked.append(only)
        cells = []
        for step in only:
            share = LADDER[step]
            verdict = self.verdicts.get(share, "FAIL" if share >= self.least else "PASS")
            cells.append({"at": [step], "verdict": verdict, "missing": [{"why": "it broke."}]})
        return Conclusion(root, "FAIL", "", {"cells": cells})


class TestSearch:
    def search(self, monkeypatch: pytest.MonkeyPatch, root: Path, pretended: Pretended) -> Smallest:
        monkeypatch.setattr(smallest, "go_on", pretended)
        return smallest_budget(CASE, LADDER, root, Serial)

    @pytest.mark.parametrize("least", LADDER)
    def test_every_share_can_be_the_answer(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, least: float) -> None:
        pretended = Pretended(least)
        found = self.search(monkeypatch, tmp_path, pretended)
        place = LADDER.index(least)
        assert found.share == least
        assert found.below == (LADDER[place - 1] if place else None)
        assert len(found.tried) == len(pretended.asked) <= 5
        assert f"{100 * least:g} % of the training data is enough" in found.sentence
        assert json.loads((tmp_path / "smallest.json").read_text())["share"] == least

    def test_none_is_an_answer_too(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        found = self.search(monkeypatch, tmp_path, Pretended(1.0))
        assert (found.share, found.below, found.tried) == (None, None, (LADDER[-1],))
        assert found.sentence.startswith("Up to 20 % of the training data, poison did not bend the explanation")

    def test_what_looked_like_enough_and_is_not_among_all_is_no_answer(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Claims are corrected for all that were tried: what was a FAIL alone may be none in the end."""

        class Second(Pretended):
            def __call__(self, *given: Any, only: list[int], **settings: Any) -> Conclusion:
                if len(only) > 1:
                    self.verdicts = {0.05: "WARN"}
                return super().__call__(*given, only=only, **settings)

        found = self.search(monkeypatch, tmp_path, Second(0.05))
        assert found.share == 0.07
        assert found.below == 0.05

    def test_a_run_that_did_not_finish_ends_the_search(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with pytest.raises(EncircleError, match="the search needs a run of 20 % poison: it broke"):
            self.search(monkeypatch, tmp_path, Pretended(0.1, {0.2: "ERROR"}))

    @pytest.mark.parametrize("shares", [[], [0.0, 0.1], [0.5, 1.0]])
    def test_shares_that_are_none_are_refused(self, shares: list[float], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="shares of the training set lie between 0 and 1"):
            smallest_budget(CASE, shares, tmp_path, Serial)


@pytest.mark.slow
def test_a_real_search_trains_clean_models_once_and_resumes(tmp_path: Path) -> None:
    case = {**CASE, "budget": {**CASE["budget"], "count": 3, "fraction": None}}
    made: list[Serial] = []

    def executor() -> Serial:
        made.append(Serial())
        return made[-1]

    found = smallest_budget(case, [0.1, 0.02, 0.05], tmp_path, executor)
    assert found.share is None  # two targets are a demonstration, whatever they show
    assert found.tried == (0.1,)
    labels = [label for each in made for label in each.done]
    assert len(labels) == len(set(labels))
    assert [cell["title"] for cell in found.conclusion.summary["cells"]] == ["10%"]
    assert (tmp_path / "report.html").is_file()
    case = {**case, "judging": {**case["judging"], "minimum_targets": 2, "threshold": 1e-9}}
    again = smallest_budget(case, [0.1, 0.02, 0.05], tmp_path / "other", executor)
    once = smallest_budget(case, [0.1, 0.02, 0.05], tmp_path / "other", executor)
    assert made[-1].done == []
    assert (once.share, once.tried, once.below) == (again.share, again.tried, again.below)
