"""Variants side by side: gains paired by hand, and a run that fails is named."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from encircle.core import EncircleError
from encircle.strength.side_by_side import Finished, SideBySide, effect_over, variants_study
from encircle.study.folder import Conclusion
from tests.audit.tiny_cases import TINY, case_of
from tests.study.serial import Serial


class TestEffectOver:
    def test_pairs_by_target_and_seed_in_any_order(self) -> None:
        random = np.random.default_rng(0)
        rows = [(target, seed) for target in (5, 2, 9, 4, 7) for seed in (0, 1)]
        table = pl.DataFrame(rows, schema=["target", "seed"], orient="row")
        mine = table.with_columns(jaccard=pl.Series(random.uniform(size=10)))
        theirs = table.with_columns(jaccard=pl.Series(random.uniform(size=10)))
        found = effect_over(mine, theirs.sample(fraction=1, shuffle=True, seed=1))
        assert found.mean == pytest.approx(float((mine["jaccard"] - theirs["jaccard"]).mean()))  # type: ignore[arg-type]
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.mean < found.high

    def test_against_itself_it_is_exactly_nothing(self) -> None:
        mine = pl.DataFrame(
            {"target": [1, 1, 2, 3, 4, 5], "seed": [0, 1, 0, 0, 0, 0], "jaccard": [0.1, None, 0.3, 0.5, 0.2, 0.9]}
        )
        found = effect_over(mine, mine)
        assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_towards_other_desired_maps_no_gain_is_defined() -> None:
    scores = pl.DataFrame({"target": [1, 2], "seed": [0, 0], "jaccard": [0.1, 0.4]})
    goal = {"1/goal": np.ones(4), "1/mask": np.ones(4, bool)}
    first = Finished({}, {}, scores, "cpu", goal)
    assert first.effect_over(Finished({}, {}, scores, "cpu", dict(goal))).mean == 0
    for other in ({**goal, "1/goal": np.zeros(4)}, {"1/goal": np.ones(4)}):
        assert math.isnan(first.effect_over(Finished({}, {}, scores, "cpu", other)).mean)


@pytest.mark.parametrize(("missing", "why"), [([{"why": "it hung."}], "it hung."), ([], "it did not finish.")])
def test_a_variant_that_did_not_finish_is_named(
    missing: list[dict[str, str]], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [{"title": "half", "verdict": "ERROR", "missing": missing}]
    conclusion = Conclusion(tmp_path, "ERROR", "", {"cells": cells})
    monkeypatch.setattr("encircle.strength.side_by_side.go_on", lambda *given, **settings: conclusion)
    case = case_of(TINY).model_dump(mode="json")
    with pytest.raises(EncircleError, match=f"the run 'half' is needed: {why}"):
        SideBySide(Serial)(variants_study("Some", case, {"half": {"targets": 1}}), tmp_path)
