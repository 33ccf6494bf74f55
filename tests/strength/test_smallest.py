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
from encircle.strength.side_by_side import KEPT
from encircle.study.folder import Conclusion
from tests.audit.tiny_cases import TINY, case_of
from tests.study.serial import Serial

CASE = case_of({**TINY, "victims": 1, "judging": {"minimum_targets": 2}}).model_dump(mode="json")


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

    def __init__(self, least: float, verdicts: dict[float, str] | None = None, lost: tuple[float, ...] = ()) -> None:
        self.least, self.verdicts, self.lost = least, verdicts or {}, lost
        self.asked: list[list[int]] = []

    def __call__(self, root: Path, executor: Any, *, only: list[int], **settings: Any) -> Conclusion:
        self.asked.append(only)
        cells = []
        for step in only:
            share = LADDER[step]
            verdict = self.verdicts.get(share, "FAIL" if share >= self.least else "PASS")
            lost = share in self.lost
            told = {"verdict": "WARN" if lost else verdict, "label_lost": lost, "sentence": "Nothing found."}
            told |= {name: None for name in KEPT if name != "verdict"}
            cells.append({"at": [step], "missing": [{"why": "it broke."}], **told})
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
        kept = json.loads((tmp_path / "smallest.json").read_text())
        assert kept["share"] == least
        assert [dose["share"] for dose in kept["doses"]] == sorted(found.tried)

    def test_none_is_an_answer_too(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        found = self.search(monkeypatch, tmp_path, Pretended(1.0))
        assert (found.share, found.below, found.tried) == (None, None, (LADDER[-1],))
        assert (
            found.sentence == "No share up to 20 % was shown to be enough. The largest that was tried: Nothing found."
        )

    def test_poison_that_costs_the_prediction_is_too_much_and_less_of_it_is_tried(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        found = self.search(monkeypatch, tmp_path, Pretended(0.05, lost=(0.15, 0.2)))
        assert found.share == 0.05
        assert found.below == 0.03

    def test_too_few_targets_are_refused_before_anything_is_run(self, tmp_path: Path) -> None:
        case = {**CASE, "judging": {**CASE["judging"], "minimum_targets": 5}}
        with pytest.raises(InputError, match="with fewer than 5 targets no share can be shown to be enough"):
            smallest_budget(case, LADDER, tmp_path, Serial)

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

    def test_shares_of_less_than_a_sample_are_left_out(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(smallest, "go_on", Pretended(0.0))
        assert smallest_budget(CASE, [0.0001, 0.001, *LADDER], tmp_path, Serial).tried[0] == LADDER[0]
        with pytest.raises(InputError, match="training samples is none at all; ask for larger shares"):
            smallest_budget(CASE, [0.0001, 0.001], tmp_path, Serial)


@pytest.mark.slow
def test_a_real_search_trains_clean_models_once_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = {**CASE, "budget": {**CASE["budget"], "count": 3, "fraction": None}, "judging": dict(CASE["judging"])}
    made: list[Serial] = []

    def executor() -> Serial:
        made.append(Serial())
        return made[-1]

    case["judging"] |= {"threshold": 1.0}  # which nothing reaches
    found = smallest_budget(case, [0.1, 0.02, 0.05], tmp_path, executor)
    written = (tmp_path / "smallest.json").read_bytes()
    assert (found.share, found.tried) == (None, (0.1,))
    assert [cell["title"] for cell in found.conclusion.summary["cells"]] == ["10%"]
    assert (tmp_path / "report.html").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(smallest, "lowest", lambda count, enough: [enough(step) for step in (2, 0, 1)])
        whole = smallest_budget(case, [0.1, 0.02, 0.05], tmp_path, executor)
    assert whole.tried == (0.02, 0.05, 0.1)
    labels = [label for each in made for label in each.done]
    assert len(labels) == len(set(labels))  # clean models and scores of the first step serve the others
    assert sum(kind == "model" for kind, _ in labels) == 2 + 1
    once = smallest_budget(case, [0.1, 0.02, 0.05], tmp_path, executor)
    assert made[-1].done == []
    assert once.tried == found.tried  # what was done besides has no say: claims are corrected for what a search asks
    assert (tmp_path / "smallest.json").read_bytes() == written
