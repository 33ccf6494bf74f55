"""Ablation: settings that are merged as they should be, and a whole one on a tiny case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, final

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from encircle import attacks
from encircle.attacks import IMF, Influence, OptimisedAttack
from encircle.attacks.imf import PAPER_SETTINGS
from encircle.audit import Audit, run_audit
from encircle.audit.identity import settings_of
from encircle.audit.kinds import KINDS
from encircle.core import CONFIGURED, InputError
from encircle.scoring import Interval
from encircle.strength import ablate
from encircle.strength.ablation import (
    CHOICE,
    FACTORS,
    GIVEN,
    JOINT,
    Phase,
    Row,
    as_published,
    joint,
    kinds_with_choices,
    varied,
)
from encircle.strength.side_by_side import KEPT
from tests.audit.tiny_cases import TINY, TINY_IMAGES, case_of
from tests.study.serial import Serial

NONE = dict.fromkeys(KEPT)

IMF_SETTINGS: dict[str, Any] = settings_of(IMF())


STRONG_SETTINGS: dict[str, Any] = settings_of(Influence(distance="mixed", bases="influential", target_share=0.25))


@pytest.mark.parametrize("name", FACTORS)
def test_every_factor_is_a_valid_attack_that_changes_the_papers_or_a_stronger_one(name: str) -> None:
    for given in (IMF_SETTINGS, STRONG_SETTINGS):
        settings = varied(given, FACTORS[name])
        attack = KINDS["attack"]()[settings["kind"]](**settings)
        assert all(getattr(attack, key) == value for key, value in FACTORS[name].items())
    assert (
        varied(IMF_SETTINGS, FACTORS[name]) != IMF_SETTINGS or varied(STRONG_SETTINGS, FACTORS[name]) != STRONG_SETTINGS
    )


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("kind", kinds_with_choices())
def test_every_factor_fits_every_attack(kind: str, name: str) -> None:
    settings = varied(settings_of(KINDS["attack"]()[kind]()), FACTORS[name])
    attack = KINDS["attack"]()[settings["kind"]](**settings)
    if "kind" in FACTORS[name] and settings["kind"] != kind:  # what the kinds do not share is as it is by default
        plain, given = settings_of(KINDS["attack"]()[settings["kind"]]()), settings_of(KINDS["attack"]()[kind]())
        assert {key: settings_of(attack)[key] for key in set(plain) - set(given)} == {
            key: plain[key] for key in set(plain) - set(given)
        }


def test_another_kind_keeps_what_the_two_share_and_drops_the_rest() -> None:
    settings = varied(settings_of(IMF(models=7, alpha=0.5)), {"kind": "matching"})
    assert settings["models"] == 7
    assert "alpha" not in settings


def test_the_letter_of_the_paper_keeps_nothing_of_the_case_but_its_size() -> None:
    plain = IMF(**PAPER_SETTINGS, models=2, epochs=3, target_share=0.2)
    ours = {"models": 2, "epochs": 3, "target_share": 0.2}
    extended = {
        "other_share": 0.25,
        "bases": "aligned",
        "softplus": 5.0,
        "attempts": 3,
        "momentum": 0.9,
        "label_weight": 0.7,
    }
    assert as_published(settings_of(IMF(**ours, **extended, dirty_label=True))) == settings_of(plain)
    assert as_published(varied(IMF_SETTINGS | ours, {"kind": "unrolled"})) == settings_of(plain)


@pytest.mark.parametrize(
    ("given", "changes"),
    [({"target_share": 0.6}, {"other_share": 0.5}), ({"other_share": 0.9}, {"target_share": 0.25})],
)
def test_shares_that_no_longer_fit_are_lowered(given: dict[str, float], changes: dict[str, float]) -> None:
    found = varied(IMF_SETTINGS | {"target_share": 0.0} | given, changes)
    assert found["target_share"] + found["other_share"] == pytest.approx(1)
    assert {name: found[name] for name in changes} == changes
    IMF(**found)


def test_balanced_shares_fit_any_share_of_the_target() -> None:
    found = varied(IMF_SETTINGS | {"target_share": 0.9}, {"other_share": "balanced"})
    assert (found["target_share"], found["other_share"]) == (0.9, "balanced")
    assert varied(found, {"target_share": 0.5})["other_share"] == "balanced"
    IMF(**found)


def test_attacks_that_craft_with_surrogates_are_those_that_can_be_varied() -> None:
    assert set(kinds_with_choices()) == {"imf", "influence", "matching", "unrolled", "back-gradient", "encirclement"}


def test_an_attack_of_their_kind_can_be_varied_without_being_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    @final
    @dataclass(frozen=True, config=CONFIGURED)
    class Another(OptimisedAttack):
        kind: Literal["another"] = Field(default="another", kw_only=True)

    monkeypatch.setattr(attacks, "ALL", (*attacks.ALL, Another))
    assert "another" in kinds_with_choices()


class TestJoint:
    def test_changes_of_different_keys_are_all_taken(self) -> None:
        found = joint(IMF_SETTINGS, {"a": ({"momentum": 0.9}, 0.1), "b": ({"kind": "matching"}, 0.2)})
        assert found == varied(IMF_SETTINGS, {"momentum": 0.9, "kind": "matching"})

    @pytest.mark.parametrize(("first", "second", "expected"), [(0.1, 0.2, 0.5), (0.2, 0.1, 0.25)])
    def test_of_one_key_the_one_that_gained_more(self, first: float, second: float, expected: float) -> None:
        helped = {"a": ({"other_share": 0.25}, first), "b": ({"other_share": 0.5}, second)}
        assert joint(IMF_SETTINGS, helped)["other_share"] == expected

    def test_a_change_of_two_keys_is_taken_whole_or_not_at_all(self) -> None:
        names = ("influential bases", "influential bases, each eight times", "bases by metagradients")
        gains = (0.2, 0.1, 0.3)
        helped = {name: (FACTORS[name], gain) for name, gain in zip(names, gains, strict=True)}
        found = joint(IMF_SETTINGS, helped)
        assert (found["bases"], found["repeats"]) == ("metagradient", 1)
        helped["influential bases, each eight times"] = (FACTORS["influential bases, each eight times"], 0.4)
        found = joint(IMF_SETTINGS, helped)
        assert (found["bases"], found["repeats"]) == ("influential", 8)

    def test_shares_stay_a_whole(self) -> None:
        given = IMF_SETTINGS | {"target_share": 0.1}
        found = joint(given, {"a": ({"target_share": 0.8}, 0.1), "b": ({"other_share": 0.5}, 0.2)})
        assert (found["target_share"], found["other_share"]) == (0.5, 0.5)


def test_an_attack_without_choices_is_refused(tmp_path: Path) -> None:
    case = case_of({**TINY, "attack": {"kind": "watermark"}}).model_dump(mode="json")
    with pytest.raises(InputError, match=r"the attack watermark has no choices to try; set attack.kind to one of imf"):
        ablate(case, tmp_path, Serial)


def _targets_of_a_run(folder: Path) -> list[dict[str, int]]:
    found = run_audit(Audit.from_case(case_of({**TINY, "victims": 1})), folder).folder
    return list(json.loads((found / "environment.json").read_text())["targets"])


def test_what_changes_nothing_about_an_attack_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(self: object, phase: str, attacks: dict[str, object]) -> list[object]:
        asked.append(list(attacks))
        raise InputError("enough.")

    monkeypatch.setattr("encircle.strength.ablation._Phases.run", run)
    dirty = {"kind": "imf", "other_share": 0.5, "dirty_label": True}
    for tiny, attack in ((TINY, {"kind": "encirclement"}), (TINY_IMAGES, {"kind": "imf"}), (TINY, dirty)):
        case = case_of({**tiny, "attack": attack}).model_dump(mode="json")
        with pytest.raises(InputError, match="enough"):
            ablate(case, tmp_path, Serial)
    for factor in ({"augmented": True}, {"kind": "imf"}):
        with pytest.raises(InputError, match="none of these factors changes anything"):
            ablate(case_of(TINY).model_dump(mode="json"), tmp_path, Serial, factors={"moved": factor})
    assert "augmented poison" not in asked[0]
    assert "as many of each class as there are" in asked[1]
    assert not {"none of other classes", "as many of each class as there are"} & set(asked[2])
    assert "augmented poison" in asked[1]
    assert "softplus surrogates" not in asked[0]
    assert "distance: mixed" not in asked[0]
    assert "momentum 0.9" in asked[0]
    assert "feature encirclement" not in asked[0]


class TestChoice:
    def chosen(self, root: Path, monkeypatch: pytest.MonkeyPatch, lost: set[str]) -> str:
        gains = {GIVEN: 0.0, "matching": 0.1, "momentum": 0.3, JOINT: 0.2}

        def run(self: object, phase: Phase, attacks: dict[str, Any]) -> list[Row]:
            return [
                Row(
                    name,
                    phase,
                    attack,
                    Interval(gains.get(name, 0.0), None, None),
                    {"label_lost": name in lost, **NONE},
                )
                for name, attack in attacks.items()
            ]

        monkeypatch.setattr("encircle.strength.ablation._Phases.run", run)
        factors = {"matching": {"kind": "matching"}, "momentum": {"momentum": 0.9}}
        return ablate(case_of(TINY).model_dump(mode="json"), root, Serial, factors=factors).chosen

    def test_the_best_is_the_one_that_gained_most(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.chosen(tmp_path, monkeypatch, set()) == "momentum"

    @pytest.mark.parametrize(
        ("low", "phases"), [(-0.01, ["choice", "report"]), (0.01, ["choice", "together", "report"])]
    )
    def test_what_may_be_chance_does_not_enter_the_joint_attack(
        self, low: float, phases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def run(self: object, phase: Phase, attacks: dict[str, Any]) -> list[Row]:
            asked.append(phase)
            gains = {GIVEN: Interval(0.0, 0.0, 0.0), "momentum": Interval(0.2, low, 0.5)}
            return [
                Row(name, phase, attack, gains.get(name, Interval(0.3, 0.1, 0.5)), {"label_lost": False, **NONE})
                for name, attack in attacks.items()
            ]

        monkeypatch.setattr("encircle.strength.ablation._Phases.run", run)
        factors = {"matching": {"kind": "matching"}, "momentum": {"momentum": 0.9}}
        ablate(case_of(TINY).model_dump(mode="json"), tmp_path, Serial, factors=factors)
        assert asked == phases

    def test_an_attack_that_loses_the_label_is_not_chosen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.chosen(tmp_path, monkeypatch, {"momentum"}) == "matching"
        assert self.chosen(tmp_path, monkeypatch, {"momentum", "matching", GIVEN}) == GIVEN


@pytest.mark.slow
def test_a_whole_ablation_chooses_on_one_split_and_reports_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encircle.strength.ablation.WORTHWHILE_EFFECT", -1.0)  # everything helps
    rows = [target["row"] for target in _targets_of_a_run(tmp_path / "first")]
    case = case_of({**TINY, "victims": 1, "targets": rows}).model_dump(mode="json")
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
    assert "targets: 2\n" in texts["choice"]  # as many, but not the rows that the case names
    assert "targets:\n  - " in texts["report"]
    kept = json.loads((tmp_path / "ablation.json").read_text())
    assert [row["name"] for row in kept["rows"]] == [row.name for row in found.rows]
    executors: list[Serial] = []

    def executor() -> Serial:
        executors.append(Serial())
        return executors[-1]

    again = ablate(case, tmp_path, executor, factors=factors)
    assert [row.effect_over_own for row in again.rows] == [row.effect_over_own for row in found.rows]
    assert all(one.done == [] for one in executors)
