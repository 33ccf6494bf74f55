"""Reach: what is compared differs in what it should, and a whole one is told by its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from encircle.attacks import Influence
from encircle.audit import Case
from encircle.audit.identity import settings_of
from encircle.core import InputError
from encircle.strength import reach, reach_study
from encircle.strength.reached import BEST_IMF, FIFTH, GUESSED, LITTLE, PUBLISHED, SELECTED, TRANSFERRED, variants_of
from tests.audit.tiny_cases import TINY, case_of
from tests.study.serial import Serial

ATTACKER = {"model": {"kind": "two-layer", "hidden": 24}}


def test_variants_differ_in_what_their_names_say() -> None:
    extended = {
        "kind": "matching",
        "momentum": 0.9,
        "other_share": 0.5,
        "dirty_label": True,
        "bases": "aligned",
        "models": 2,
    }
    case = case_of({**TINY, "attack": extended, "attacker": ATTACKER}).model_dump(mode="json")
    found = variants_of(case)
    attacks = {name: settings["attack"] for name, settings in found.items()}
    assert attacks[PUBLISHED]["step"] == "raw"
    assert attacks[PUBLISHED]["models"] == 2
    assert (attacks[BEST_IMF]["other_share"], attacks[BEST_IMF]["bases"]) == (0, "nearest")
    assert (attacks[BEST_IMF]["kind"], attacks[BEST_IMF]["momentum"]) == ("imf", 0.9)
    assert attacks[SELECTED] == case["attack"]
    assert attacks[SELECTED] == attacks[LITTLE] == attacks[TRANSFERRED]
    assert found[LITTLE]["budget"]["fraction"] == pytest.approx(case["budget"]["fraction"] / FIFTH)
    assert [settings["attacker"] is None for settings in found.values()] == [True] * 4 + [False]
    for settings in found.values():
        Case.model_validate({**case, **settings})
    assert TRANSFERRED not in variants_of({**case, "attacker": None})


def test_in_the_place_of_imf_something_stronger_is_selected() -> None:
    attack = {"kind": "imf", "momentum": 0.9, "models": 2, "bases": "aligned", "other_share": 0.5, "dirty_label": True}
    case = case_of({**TINY, "attack": attack}).model_dump(mode="json")
    found = variants_of(case)[SELECTED]["attack"]
    assert found == settings_of(Influence(models=2, momentum=0.9, other_share=0.25))


def test_what_is_selected_can_be_named() -> None:
    case = case_of(TINY).model_dump(mode="json")
    attack = variants_of(case, {"kind": "matching", "bases": "aligned", "repeats": 4})[SELECTED]["attack"]
    assert [attack[name] for name in ("kind", "bases", "repeats", "other_share")] == ["matching", "aligned", 4, 0.25]


def test_what_a_case_says_of_influence_stands() -> None:
    case = case_of(
        {**TINY, "attack": {"kind": "influence", "damping": 1.0, "rounds": 7, "other_share": 0.5}}
    ).model_dump(mode="json")
    attack = variants_of(case, {"rounds": 2})[SELECTED]["attack"]
    assert (attack["damping"], attack["rounds"], attack["other_share"]) == (1.0, 2, 0.5)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"dampng": 1.0}, r"the selected attack: .*dampng"),
        ({"kind": "watermark"}, "the attack watermark has no settings to select"),
        ({"kind": "imf", "damping": 1.0}, "the selected attack: .*damping"),
        ({"damping": -1}, "the selected attack: .*damping"),
        ({"other_share": "half"}, "the selected attack: .*other_share"),
        ({"dirty_label": True, "other_share": 0.0}, "the selected attack: .*dirty_label"),
    ],
)
def test_a_selection_of_nothing_that_there_is_is_refused(selection: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        reach(case_of(TINY).model_dump(mode="json"), tmp_path, Serial, selection=selection)


@pytest.mark.parametrize(
    ("attack", "selection", "expected"),
    [
        ({"kind": "back-gradient"}, {"kind": "unrolled"}, {"kind": "unrolled", "steps": 2}),
        ({"kind": "unrolled", "steps": 5}, {"kind": "back-gradient"}, {"kind": "back-gradient", "last_steps": 30}),
        ({"kind": "influence", "other_share": 1.0, "target_share": 0.0}, {}, {"other_share": 1.0, "target_share": 0.0}),
        ({"kind": "influence", "restart": False}, {"staggered": False}, {"staggered": False, "restart": False}),
    ],
)
def test_what_fits_together_is_taken(attack: Any, selection: Any, expected: Any) -> None:
    study = reach_study(case_of({**TINY, "attack": attack}).model_dump(mode="json"), selection)
    variants: Any = study.grid["variant"]
    assert list(variants) == [PUBLISHED, BEST_IMF, SELECTED, LITTLE]
    selected = variants[SELECTED]["attack"]
    assert selected == selected | expected
    assert "steps" not in selected or selected["kind"] == "unrolled"
    assert variants[LITTLE]["attack"] == selected


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    dirty = {"kind": "imf", "other_share": 0.5, "dirty_label": True}
    case = case_of({**TINY, "attack": {**dirty, "kind": "influence"}}).model_dump(mode="json")
    with pytest.raises(InputError, match=r"the selected attack: .*nothing is balanced"):
        reach(case, tmp_path, Serial, selection={"other_share": "balanced"})


def test_a_budget_that_is_counted_is_counted_in_fifths() -> None:
    case = case_of({**TINY, "budget": {"count": 25, "epsilon": 0.1}}).model_dump(mode="json")
    assert variants_of(case)[LITTLE]["budget"]["count"] == 5


@pytest.mark.parametrize("attacker", [{}, {"recipe": {"epochs": 3}}, {"model": TINY["model"]}])
def test_an_attacker_with_the_victims_network_transfers_nothing(attacker: Any, tmp_path: Path) -> None:
    case = case_of({**TINY, "attacker": attacker}).model_dump(mode="json")
    with pytest.raises(InputError, match=r"nothing would be transferred; set attacker\.model"):
        reach(case, tmp_path, Serial)


def test_who_guesses_the_recipe_crafts_for_another_on_the_victims_network() -> None:
    case = case_of({**TINY, "attacker": ATTACKER}).model_dump(mode="json")
    found = variants_of(case, None, {"epochs": 9})
    assert list(found) == [PUBLISHED, BEST_IMF, SELECTED, LITTLE, TRANSFERRED, GUESSED]
    assert found[GUESSED] == {"attack": found[SELECTED]["attack"], "attacker": {"recipe": {"epochs": 9}}}
    supposed = Case.model_validate({**case, **found[GUESSED]}).supposed
    assert supposed is not None
    assert (supposed.recipe.epochs, supposed.model) == (9, case_of(TINY).model)


@pytest.mark.parametrize(
    ("supposed", "message"),
    [
        ({"epoch": 3}, r"what is supposed: .*'epoch' is no key of a recipe"),
        ({"epochs": -1}, "what is supposed: .*epochs"),
        ({"epochs": case_of(TINY).recipe.epochs}, "what is supposed of the recipe is what it is"),
    ],
)
def test_a_guess_that_is_none_is_refused(supposed: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        reach(case_of(TINY).model_dump(mode="json"), tmp_path, Serial, supposed=supposed)


def test_a_fifth_that_is_no_poison_is_refused(tmp_path: Path) -> None:
    case = case_of({**TINY, "budget": {"count": 2, "epsilon": 0.1}}).model_dump(mode="json")
    with pytest.raises(InputError, match="a fifth of the budget is no poison at all"):
        reach(case, tmp_path, Serial)


def test_an_attack_without_settings_is_refused(tmp_path: Path) -> None:
    case = case_of({**TINY, "attack": {"kind": "watermark"}}).model_dump(mode="json")
    with pytest.raises(InputError, match=r"the attack watermark has no settings to select"):
        reach(case, tmp_path, Serial)


@pytest.mark.slow
def test_a_whole_reach_says_what_its_runs_say_and_does_nothing_twice(tmp_path: Path) -> None:
    ceiling = {"epochs": 1, "weights": [1.0]}
    case = case_of({**TINY, "victims": 1, "ceiling": ceiling, "attacker": ATTACKER}).model_dump(mode="json")
    rows = reach(case, tmp_path, Serial, supposed={"lr": 0.01})
    assert [row.name for row in rows] == [PUBLISHED, BEST_IMF, SELECTED, LITTLE, TRANSFERRED, GUESSED]
    assert (rows[0].effect_over_published.mean, rows[0].effect_over_published.low) == (
        0,
        None,
    )  # two targets are too few for an interval
    facts = json.loads((tmp_path / "reach.json").read_text())
    assert facts["explainer"] == "grad"
    for row, told in zip(rows, facts["rows"], strict=True):
        folder = tmp_path / "runs" / row.cell["runs"][0]["folder"]
        verdict = json.loads((folder / "verdict.json").read_text())
        assert told["share_of_way"] == verdict["share_of_way"] == row.share
        assert row.watermark_l1 == next(arm["l1"]["mean"] for arm in verdict["arms"] if arm["arm"] == "watermark")
        assert row.noise_accuracy == next(arm["accuracy_change"] for arm in verdict["arms"] if arm["arm"] == "noise")
        assert told["gain"]["mean"] == row.effect_over_published.mean
    executors: list[Serial] = []

    def executor() -> Serial:
        executors.append(Serial())
        return executors[-1]

    assert [row.effect_over_published for row in reach(case, tmp_path, executor, supposed={"lr": 0.01})] == [
        row.effect_over_published for row in rows
    ]
    assert all(one.done == [] for one in executors)
