"""The page about strength is made from what was kept alone, and says what is undefined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from encircle.attacks.imf import PAPER_SETTINGS
from encircle.core import InputError
from encircle.strength.ablation import AS_PUBLISHED, GIVEN, JOINT
from encircle.strength.gates import gates_of
from encircle.strength.reached import BEST_IMF, GUESSED, LITTLE, PUBLISHED, SELECTED, TRANSFERRED
from pages.strength import answer, page, results_of

NOTHING = {"mean": None, "low": None, "high": None}


def row(name: str, phase: str, **changes: Any) -> dict[str, Any]:
    both = {"mean": 0.25, "low": 0.1, "high": 0.4}
    return {
        "name": name,
        "phase": phase,
        "attack": {},
        "gain": both,
        "shift": both,
        "jaccard_clean": {"mean": 0.1, "low": None, "high": None},
        "jaccard_attack": {"mean": 0.35, "low": None, "high": None},
        "l1_clean": {"mean": 0.5, "low": None, "high": None},
        "l1_attack": {"mean": 0.4, "low": None, "high": None},
        "label_kept": 1.0,
        "accuracy_change": {"mean": -0.012, "low": None, "high": None},
        "targets": 6,
        "victims": 2,
        **changes,
    }


def keep(results: Path, kind: str, name: str, result: object) -> None:
    """Add a result to those of its kind."""
    path = results / f"{kind}.json"
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), name: result}))


def test_every_phase_has_its_table(tmp_path: Path) -> None:
    rows = [row("as given", "choice"), row("momentum", "choice"), row("as given", "report")]
    keep(tmp_path, "ablation", "digits", {"title": "Digits", "chosen": "momentum", "rows": rows})
    text = page(tmp_path)
    assert "### Digits" in text
    assert "## How far it reaches" not in text
    assert "6 targets x 2 victims an attack. Best where settings are chosen: **momentum**." in text
    assert "**One choice at a time**" in text
    assert "**What helped, together**" not in text
    expected = "| momentum | +0.25 [+0.10, +0.40] | +0.25 [+0.10, +0.40] | 0.10 → 0.35 | 0.50 → 0.40 | 100% | -1.2 |"
    assert expected in text
    assert page(tmp_path) == text


def test_gains_of_all_cases_stand_at_a_glance(tmp_path: Path) -> None:
    up, down = {"mean": 0.2, "low": 0.1, "high": 0.3}, {"mean": -0.2, "low": -0.3, "high": -0.1}
    around = {"mean": 0.0, "low": -0.1, "high": 0.1}
    digits = [row(GIVEN, "choice"), row("influence", "choice", gain=up), row("a choice of old", "choice", gain=NOTHING)]
    dogs = [row(GIVEN, "choice"), row("influence", "choice", gain=down), row("momentum 0.9", "choice", gain=around)]
    for title, rows in (("Digits", digits), ("Dogs", [*dogs, row("influence", "report", gain=up)])):
        keep(tmp_path, "ablation", title, {"title": title, "chosen": GIVEN, "rows": rows})
    table = page(tmp_path).split("| choice | ")[1].split("\n\n")[0].splitlines()
    assert table == [
        "Digits | Dogs |",
        "|---|---|---|",
        "| momentum 0.9 | – | +0.00 [-0.10, +0.10] |",
        "| influence | **+0.20 [+0.10, +0.30]** | *-0.20 [-0.30, -0.10]* |",
        "| a choice of old | undefined | – |",
    ]


def test_two_cases_of_one_title_have_a_column_each(tmp_path: Path) -> None:
    for name, gain in (("a", 0.1), ("b", 0.2)):
        rows = [row(GIVEN, "choice"), row("influence", "choice", gain=NOTHING | {"mean": gain})]
        keep(tmp_path, "ablation", name, {"title": "Digits", "chosen": GIVEN, "rows": rows})
    assert "| choice | Digits | Digits |\n|---|---|---|\n| influence | +0.10 | +0.20 |" in page(tmp_path)


def test_what_a_name_alone_does_not_tell_is_told(tmp_path: Path) -> None:
    given = {"kind": "imf", "models": 4, "momentum": 0.0}
    letter = PAPER_SETTINGS | {"models": 4}
    rows = [
        row(GIVEN, "choice", attack=given),
        row(JOINT, "together", attack=given | {"kind": "matching", "momentum": 0.9}),
        row(AS_PUBLISHED, "report", attack=letter | {"decay": True}),
    ]
    keep(tmp_path, "ablation", "a", {"title": "A", "chosen": GIVEN, "rows": rows})
    text = page(tmp_path)
    assert "As given: kind imf, models 4, momentum 0.0." in text
    assert "Together: kind matching, momentum 0.9." in text
    assert "IMF (paper's settings) has decay True, unlike the paper." in text
    rows[-1] = row(AS_PUBLISHED, "report", attack=letter)
    keep(tmp_path, "ablation", "a", {"title": "A", "chosen": GIVEN, "rows": rows})
    assert "unlike the paper" not in page(tmp_path)


@pytest.mark.parametrize("key", ["gain", "shift", "jaccard_attack", "l1_attack", "accuracy_change"])
def test_what_is_undefined_says_so(key: str, tmp_path: Path) -> None:
    rows = [row("as given", "choice", **{key: NOTHING})]
    keep(tmp_path, "ablation", "a", {"title": "A", "chosen": "as given", "rows": rows})
    assert "undefined" in page(tmp_path)


@pytest.mark.parametrize("result", [[], {"title": "A", "chosen": "b", "rows": [{}]}, {"title": "A", "rows": []}])
@pytest.mark.parametrize("kind", ["ablation", "reach"])
def test_a_damaged_result_is_named(kind: str, result: object, tmp_path: Path) -> None:
    keep(tmp_path, kind, "broken", result)
    with pytest.raises(InputError, match=rf"broken in .*{kind}\.json is damaged"):
        page(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "3"])
@pytest.mark.parametrize("kind", ["ablation", "reach", "budget"])
def test_a_damaged_file_is_named(kind: str, content: str, tmp_path: Path) -> None:
    (tmp_path / f"{kind}.json").write_text(content)
    with pytest.raises(InputError, match=rf"{kind}\.json is damaged"):
        page(tmp_path)


def reached(name: str, **changes: Any) -> dict[str, Any]:
    more = {
        "settings": {
            "attack": {"kind": "imf", "models": 4, "other_share": 0.0},
            "attacker": {"model": {"kind": "two-layer", "hidden": 64}},
        },
        "share_of_way": {"mean": 0.7, "low": 0.6, "high": 0.8},
        "watermark_l1": 0.52,
    }
    found = row(name, "", **{**more, **changes})
    return {key: value for key, value in found.items() if key not in {"phase", "attack"}}


def first_of_digits(text: str, begin: str = "| Digits |") -> str:
    """Its line in the table of what was asked; there are others further down."""
    return next(line for line in text.splitlines() if line.startswith(begin))


class TestReach:
    def text(self, results: Path, explainer: str = "cam", **selected: Any) -> str:
        lower = {"mean": -0.1, "low": -0.2, "high": 0.1}
        rows = [
            reached(PUBLISHED, gain={"mean": 0.0, "low": 0.0, "high": 0.0}),
            reached(BEST_IMF, gain=lower),
            reached(
                SELECTED,
                **{"settings": {"attack": {"kind": "influence", "models": 4, "other_share": 0.25}}, **selected},
            ),
            reached(LITTLE, gain={"mean": 0.0, "low": -0.2, "high": 0.2}),
            reached(TRANSFERRED, gain={"mean": 0.12, "low": -0.1, "high": 0.3}),
            reached(
                GUESSED,
                settings={"attack": {}, "attacker": {"recipe": {"epochs": 3, "lr": 0.01}}},
                gain={"mean": 0.3, "low": 0.1, "high": 0.4},
            ),
        ]
        found = {"title": "Digits", "explainer": explainer, "device": "a device", "rows": rows}
        keep(results, "reach", "digits", found)
        return page(results)

    def test_says_where_the_published_attack_is_not_to_the_letter(self, tmp_path: Path) -> None:
        assert "IMF as published has" not in self.text(tmp_path)
        found = results_of(tmp_path, "reach")["digits"]
        found["rows"][0]["settings"]["attack"]["decay"] = True
        keep(tmp_path, "reach", "digits", found)
        assert "finished on a device. " in page(tmp_path)
        assert " IMF as published has decay True, unlike the paper." in page(tmp_path)

    def test_says_what_was_asked_and_whether_it_holds(self, tmp_path: Path) -> None:
        line = first_of_digits(self.text(tmp_path))
        asked = [entry.strip() for entry in line.split("|")[2:-1]]
        assert asked == [
            "70.0 [60.0, 80.0] %: yes",
            "+0.25 [+0.10, +0.40]: yes",
            "-0.10 [-0.20, +0.10]: **no**",
            "-23%: yes",
            "+0.00 [-0.20, +0.20]: yes",
            "+0.25 [+0.10, +0.40]; –",
            "100%: yes",
            "-1.2",
        ]

    @pytest.mark.parametrize(
        ("interval", "told"),
        [
            ((-0.009, 0.01), "-0.5 [-0.9, +1.0]: yes"),
            ((-0.02, 0.01), "-0.5 [-2.0, +1.0]"),
            ((-0.02, -0.01), "-0.5 [-2.0, -1.0]"),
            ((-0.02, -0.011), "-0.5 [-2.0, -1.1]: **no**"),
        ],
    )
    def test_accuracy_is_judged_where_the_interval_lets_it(
        self, interval: tuple[float, float], told: str, tmp_path: Path
    ) -> None:
        change = dict(zip(("mean", "low", "high"), (-0.005, *interval), strict=True))
        some = {"accuracy_change": change, "accuracy_resolvable": True}
        line = first_of_digits(self.text(tmp_path, **some))
        assert line.split("|")[-2].strip() == told

    @pytest.mark.parametrize("known", [{}, {"accuracy_resolvable": False}])
    def test_few_rows_do_not_show_that_accuracy_is_kept(self, known: dict[str, bool], tmp_path: Path) -> None:
        change = {"mean": 0.0, "low": -0.001, "high": 0.001}
        line = first_of_digits(self.text(tmp_path, accuracy_change=change, **known))
        assert line.split("|")[-2].strip() == "+0.0 [-0.1, +0.1]"

    def test_less_is_asked_for_gradients(self, tmp_path: Path) -> None:
        some = {"share_of_way": {"mean": 0.5, "low": None, "high": None}}
        assert "50.0 %: **no**" in self.text(tmp_path, "cam", **some)
        assert "50.0 %: yes" in self.text(tmp_path, "grad", **some)

    def test_what_cannot_be_told_is_not_marked(self, tmp_path: Path) -> None:
        unknown = {"share_of_way": NOTHING, "gain": NOTHING, "l1_attack": NOTHING, "shift": NOTHING}
        line = first_of_digits(self.text(tmp_path, **unknown))
        assert line.count("undefined") == 4
        assert line.count("yes") + line.count("**no**") == 3

    def test_a_selection_that_is_not_the_first_has_its_number(self, tmp_path: Path) -> None:
        assert "(selection" not in self.text(tmp_path)
        (tmp_path / "commands.yaml").write_text("selection: {digits: 4, dogs: 2}\n")
        assert first_of_digits(page(tmp_path), "| Digits (selection 4) | 70.0 [60.0, 80.0] %: yes |")

    def test_each_attack_has_its_row(self, tmp_path: Path) -> None:
        text = self.text(tmp_path)
        row_of = f"| {SELECTED} | +0.25 [+0.10, +0.40] | +0.25 [+0.10, +0.40] | 70 [60, 80] % | 0.10 → 0.35 | 0.50 → 0.40 | -23% | 100% | -1.2 | – |"
        assert row_of in text
        assert (
            "6 targets x 2 victims an attack, finished on a device. Selected: kind influence, other_share 0.25." in text
        )

    def test_the_strongest_control_stands_beside_its_attack(self, tmp_path: Path) -> None:
        control = {"title": "unperturbed bases", "change": {"mean": 0.05, "low": -0.1, "high": 0.2}}
        text = self.text(tmp_path, control=control)
        assert "| 100% | -1.2 | unperturbed bases +0.05 [-0.10, +0.20] |" in text

    def test_what_noise_costs_stands_beside_what_the_attack_costs(self, tmp_path: Path) -> None:
        noise = {"mean": -0.004, "low": None, "high": None}
        assert "| 100% | -1.2 (-0.4) | – |" in self.text(tmp_path, noise_accuracy=noise)

    def test_a_label_that_nobody_knows_of_is_undefined(self, tmp_path: Path) -> None:
        text = self.text(tmp_path, label_kept=None)
        line = first_of_digits(text)
        assert line.split("|")[-3].strip() == "undefined"

    def test_what_is_left_without_knowing_network_or_recipe_has_its_table(self, tmp_path: Path) -> None:
        table = self.text(tmp_path).split("is asked for.\n\n")[1].split("\n\n")[0].splitlines()[2:]
        assert table == [
            "| Digits | kind two-layer, hidden 64 | +0.25 [+0.10, +0.40] | +0.12 [-0.10, +0.30] | 48%: **no** |",
            "| Digits | epochs 3, lr 0.01 | +0.25 [+0.10, +0.40] | +0.30 [+0.10, +0.40] | 120% |",
        ]

    @pytest.mark.parametrize("mean", [None, 0.0, -0.1])
    def test_of_a_gain_that_is_none_nothing_can_be_left(self, mean: float | None, tmp_path: Path) -> None:
        text = self.text(tmp_path, gain={"mean": mean, "low": None, "high": None})
        assert text.split("is asked for.\n\n")[1].split("\n\n")[0].count("| undefined |") == (4 if mean is None else 2)

    def test_who_knows_everything_has_no_such_table(self, tmp_path: Path) -> None:
        self.text(tmp_path)
        found = results_of(tmp_path, "reach")["digits"]
        keep(tmp_path, "reach", "digits", {**found, "rows": found["rows"][:4]})
        assert "Another attacker" not in page(tmp_path)

    @pytest.mark.parametrize("lost", ["explainer", "rows"])
    def test_a_file_that_lacks_something_is_named(self, lost: str, tmp_path: Path) -> None:
        self.text(tmp_path)
        found = dict(results_of(tmp_path, "reach")["digits"])
        rest = {key: value for key, value in found.items() if key != lost}
        keep(tmp_path, "reach", "digits", rest | ({"rows": found["rows"][:1]} if lost == "rows" else {}))
        with pytest.raises(InputError, match=r"digits in .*reach\.json is damaged"):
            page(tmp_path)


def test_how_little_is_enough_has_its_table(tmp_path: Path) -> None:
    doses = [{"share": share, **row("", "")} for share in (0.01, 0.05)]
    found = {
        "title": "Digits",
        "sentence": "Poison of 5 % is enough.",
        "share": 0.05,
        "doses": doses,
        "epsilon": 0.1,
        "threshold": 0.2,
    }
    found["attack"] = {"kind": "influence", "repeats": 2}
    keep(tmp_path, "budget", "digits", found)
    text = page(tmp_path)
    assert "6 targets x 2 victims, epsilon 0.1, threshold 0.2. Poison of 5 % is enough." in text
    assert "Attack: kind influence, repeats 2." in text
    assert "| 5.00% | +0.25 [+0.10, +0.40] | 0.10 → 0.35 | 0.50 → 0.40 | 100% | -1.2 |" in text


def test_the_command_stands_with_its_case_alone(tmp_path: Path) -> None:
    rows = [row("as given", "choice")]
    for name in ("a", "b"):
        keep(tmp_path, "ablation", name, {"title": name.upper(), "chosen": "as given", "rows": rows})
    (tmp_path / "commands.yaml").write_text("ablation:\n  b: digits-cam --set victims=2\nreach: {}\n")
    text = page(tmp_path)
    assert text.count("`encircle ablate") == 1
    assert "\n\n`encircle ablate digits-cam --set victims=2`\n\n" in text.split("### B")[1]
    for damage in ("[1]", "ablation: 3", "elsewhere: {a: b}", "ablation: {a: }}"):
        (tmp_path / "commands.yaml").write_text(damage)
        with pytest.raises(InputError, match=r"commands\.yaml is damaged"):
            page(tmp_path)
    for damage in ("selection: 3", "selection: {digits: second}"):
        (tmp_path / "commands.yaml").write_text(damage)
        with pytest.raises(InputError, match=r"commands\.yaml is damaged"):
            page(tmp_path)


def test_without_results_there_is_a_page_without_tables(tmp_path: Path) -> None:
    assert page(tmp_path).startswith("# ")
    assert "\n## " not in page(tmp_path)


class TestAnswer:
    def rows(self, **selected: Any) -> list[dict[str, Any]]:
        return [reached(PUBLISHED), reached(BEST_IMF), reached(SELECTED, **selected), reached(LITTLE)]

    def test_counts_the_cases_that_each_condition_holds_in(self, tmp_path: Path) -> None:
        far, near = ({"mean": mean, "low": None, "high": None} for mean in (0.7, 0.5))
        for name, explainer, share in (
            ("a", "cam", far),
            ("b", "grad", near),
            ("c", "cam", near),
            ("d", "cam", NOTHING),
        ):
            found = {"title": name.upper(), "explainer": explainer, "device": "a device"}
            keep(tmp_path, "reach", name, {**found, "rows": self.rows(share_of_way=share)})
        text = answer(tmp_path)
        assert "| 60% of the ceiling for CAM, 40% for GRAD (the mean) | 2 | 1 | 1 |" in text
        assert "| at least 90% of victims keep the label | 4 | 0 | 0 |" in text
        assert "| C | 6 | +0.25 [+0.10, +0.40] | 50.0 % | ceiling | accuracy |" in text
        assert "| D | 6 | +0.25 [+0.10, +0.40] | undefined | – | ceiling, accuracy |" in text
        assert "Another attacker" not in text

    def test_says_which_selection_it_is(self, tmp_path: Path) -> None:
        keep(tmp_path, "reach", "a", {"title": "A", "explainer": "cam", "device": "a device", "rows": self.rows()})
        (tmp_path / "commands.yaml").write_text("selection: {a: 3}\n")
        assert "| A (selection 3) | 6 |" in answer(tmp_path)

    def test_asks_no_fraction_of_the_ceiling_of_other_explainers(self) -> None:
        assert gates_of({"explainer": "lime", "rows": self.rows()})["ceiling"].holds is None

    def test_damage_is_named(self, tmp_path: Path) -> None:
        keep(tmp_path, "reach", "a", {"title": "A", "rows": []})
        with pytest.raises(InputError, match=r"a in .*reach\.json is damaged"):
            answer(tmp_path)
