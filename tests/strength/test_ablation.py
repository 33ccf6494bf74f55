"""Ablation: settings that are merged as they should be, gains paired by hand, and a whole one on a tiny case."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from encircle.attacks import IMF
from encircle.audit.audit import settings_of
from encircle.audit.case import AnyAttack, options
from encircle.core import InputError
from encircle.strength import ablate
from encircle.strength.ablation import CHOICE, FACTORS, GIVEN, JOINT, MADE_FOR, PUBLISHED, gained, joint, varied
from tests.audit.tiny_cases import TINY, case_of
from tests.study.serial import Serial

IMF_SETTINGS: dict[str, Any] = settings_of(IMF())


@pytest.mark.parametrize("name", FACTORS)
def test_every_factor_is_a_valid_attack_that_differs_from_the_default(name: str) -> None:
    settings = varied(IMF_SETTINGS, FACTORS[name])
    attack = options(AnyAttack)[settings["kind"]](**settings)
    assert all(getattr(attack, key) == value for key, value in FACTORS[name].items())
    if name != "distance: cosine":  # which is the default, for cases that take another
        assert settings != IMF_SETTINGS


def test_another_kind_keeps_what_the_two_share_and_drops_the_rest() -> None:
    settings = varied(settings_of(IMF(models=7, alpha=0.5)), {"kind": "matching"})
    assert settings["models"] == 7
    assert "alpha" not in settings


def test_the_letter_of_the_paper_is_a_valid_imf() -> None:
    assert settings_of(IMF(**PUBLISHED)) == varied(IMF_SETTINGS, PUBLISHED)


def test_attacks_that_craft_with_surrogates_are_those_that_can_be_varied() -> None:
    assert set(MADE_FOR) == {
        kind
        for kind, one in options(AnyAttack).items()
        if "softplus" in {field.name for field in dataclasses.fields(one)}
    }


class TestJoint:
    def test_changes_of_different_keys_are_all_taken(self) -> None:
        found = joint(IMF_SETTINGS, {"a": ({"momentum": 0.9}, 0.1), "b": ({"kind": "matching"}, 0.2)})
        assert found == varied(IMF_SETTINGS, {"momentum": 0.9, "kind": "matching"})

    @pytest.mark.parametrize(("first", "second", "expected"), [(0.1, 0.2, 0.5), (0.2, 0.1, 0.25)])
    def test_of_one_key_the_one_that_gained_more(self, first: float, second: float, expected: float) -> None:
        helped = {"a": ({"other_share": 0.25}, first), "b": ({"other_share": 0.5}, second)}
        assert joint(IMF_SETTINGS, helped)["other_share"] == expected

    def test_shares_stay_a_whole(self) -> None:
        given = IMF_SETTINGS | {"target_share": 0.1}
        found = joint(given, {"a": ({"target_share": 0.8}, 0.1), "b": ({"other_share": 0.5}, 0.2)})
        assert (found["target_share"], found["other_share"]) == (0.1, 0.5)


class TestGained:
    def test_pairs_by_target_and_seed_in_any_order(self) -> None:
        random = np.random.default_rng(0)
        rows = [(target, seed) for target in (5, 2, 9, 4, 7) for seed in (0, 1)]
        table = pl.DataFrame(rows, schema=["target", "seed"], orient="row")
        mine = table.with_columns(jaccard=pl.Series(random.uniform(size=10)))
        theirs = table.with_columns(jaccard=pl.Series(random.uniform(size=10)))
        found = gained(mine, theirs.sample(fraction=1, shuffle=True, seed=1))
        assert found.mean == pytest.approx(float((mine["jaccard"] - theirs["jaccard"]).mean()))  # type: ignore[arg-type]
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.mean < found.high

    def test_against_itself_it_is_exactly_nothing(self) -> None:
        mine = pl.DataFrame(
            {"target": [1, 1, 2, 3, 4, 5], "seed": [0, 1, 0, 0, 0, 0], "jaccard": [0.1, None, 0.3, 0.5, 0.2, 0.9]}
        )
        found = gained(mine, mine)
        assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_an_attack_without_choices_is_refused(tmp_path: Path) -> None:
    case = case_of({**TINY, "attack": {"kind": "watermark"}}).model_dump(mode="json")
    with pytest.raises(InputError, match=r"the attack watermark has no choices to try; set attack.kind to one of imf"):
        ablate(case, tmp_path, Serial)


@pytest.mark.slow
def test_a_whole_ablation_chooses_on_one_split_and_reports_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encircle.strength.ablation.WORTH", -1.0)  # everything helps
    case = case_of({**TINY, "victims": 1}).model_dump(mode="json")
    factors = {
        "distance: cosine": {"distance": "cosine"},
        "matching": {"kind": "matching"},
        "momentum": {"momentum": 0.9},
    }
    found = ablate(case, tmp_path, Serial, factors=factors)
    phases: dict[str, list[str]] = {}
    for row in found.rows:
        phases.setdefault(row.phase, []).append(row.name)
    assert phases["choice"] == [GIVEN, "matching", "momentum"]  # cosine is what the case has
    assert phases["together"] == [JOINT]
    assert phases["report"][:2] == [GIVEN, "IMF to the letter"]
    assert set(phases["report"][2:]) == ({found.chosen} - {GIVEN})
    both = next(row for row in found.rows if row.phase == "together")
    assert (both.attack["kind"], both.attack["momentum"]) == ("matching", 0.9)
    texts = {phase: (tmp_path / phase / "study.yaml").read_text() for phase in ("choice", "together", "report")}
    assert f"seed: {case['seed'] + CHOICE}" in texts["choice"]
    assert f"seed: {case['seed'] + CHOICE}" in texts["together"]
    assert f"seed: {case['seed']}\n" in texts["report"]
    kept = json.loads((tmp_path / "ablation.json").read_text())
    assert [row["name"] for row in kept["rows"]] == [row.name for row in found.rows]
    executors: list[Serial] = []

    def executor() -> Serial:
        executors.append(Serial())
        return executors[-1]

    again = ablate(case, tmp_path, executor, factors=factors)
    assert [row.gain for row in again.rows] == [row.gain for row in found.rows]
    assert all(one.done == [] for one in executors)
