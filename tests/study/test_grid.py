"""The grid: what it expands to, and one clear sentence for everything that is wrong with it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from encircle.core import InputError
from encircle.study.grid import MOST_RUNS, Study, expand, refuse_equal_runs
from encircle.study.study_file import StudyFile, gather_files, parse_study_file, read_study_file

from ..audit.tiny_cases import TINY


def study_of(**content: Any) -> Study:
    text = yaml.safe_dump({"title": "Tiny", "case": TINY, **content}, sort_keys=False)
    return expand(read_study_file(text, "study.yaml"), "study.yaml")


def test_lists_expand_to_every_combination_in_their_order() -> None:
    study = study_of(grid={"budget.fraction": [0.02, 0.1], "explainer.kind": ["grad"], "victims": [2, 3]})
    assert [run.at for run in study.runs] == list(itertools.product(range(2), range(1), range(2)))
    assert [(run.case.budget.fraction, run.case.victims) for run in study.runs] == [
        (0.02, 2),
        (0.02, 3),
        (0.1, 2),
        (0.1, 3),
    ]
    assert [cell.title for cell in study.cells][:2] == ["2% · GRAD · 2", "2% · GRAD · 3"]
    assert study.dose is not None
    assert study.dose.name == "budget.fraction"
    assert study.runs[0].case.title == "Tiny · 2% · GRAD · 2"


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_as_many_runs_as_the_product_of_the_lists(sizes: list[int]) -> None:
    keys = ["victims", "references", "targets"]
    grid = {key: list(range(1, size + 1)) for key, size in zip(keys, sizes, strict=False)}
    study = study_of(grid=grid)
    places = {run.at for run in study.runs}
    assert len(study.runs) == len(study.cells) == len(places)
    assert places == set(itertools.product(*(range(size) for size in sizes)))


def test_no_grid_is_one_run() -> None:
    study = study_of()
    assert [cell.title for cell in study.cells] == ["Tiny"]
    assert study.dose is None


def test_what_is_set_holds_for_every_run_and_the_grid_wins() -> None:
    study = study_of(set={"victims": 5, "budget.fraction": 0.5}, grid={"budget.fraction": [0.02, 0.1]})
    assert [(run.case.victims, run.case.budget.fraction) for run in study.runs] == [(5, 0.02), (5, 0.1)]


def test_another_kind_drops_the_settings_of_the_former() -> None:
    study = study_of(grid={"attack.kind": ["imf", "watermark-projected"]})
    assert [run.case.attack.kind for run in study.runs] == ["imf", "watermark-projected"]
    assert [cell.title for cell in study.cells] == ["IMF", "WM (projected)"]


def test_values_by_name_and_several_keys_by_name() -> None:
    study = study_of(
        grid={
            "attack": {"quick": {"kind": "imf", "epochs": 1}, "slow": {"kind": "imf", "epochs": 3}},
            "evidence": {"little": {"targets": 1, "victims": 1}, "more": {"targets": 3, "victims": 2}},
        }
    )
    assert [cell.title for cell in study.cells] == ["quick · little", "quick · more", "slow · little", "slow · more"]
    assert [(run.case.attack.epochs, run.case.targets, run.case.victims) for run in study.runs] == [
        (1, 1, 1),
        (1, 3, 2),
        (3, 1, 1),
        (3, 3, 2),
    ]
    assert study.dose is None


def test_seeds_repeat_a_cell_instead_of_making_one() -> None:
    study = study_of(grid={"seed": [0, 1, 2], "victims": [1, 2]})
    assert len(study.runs) == 6
    assert [cell.title for cell in study.cells] == ["1", "2"]
    assert [axis.name for axis in study.axes] == ["victims"]
    for number, cell in enumerate(study.cells):
        assert {study.runs[run].case.seed for run in cell.runs} == {0, 1, 2}
        assert {study.runs[run].case.victims for run in cell.runs} == {number + 1}


def test_whole_cases_are_an_axis() -> None:
    study = study_of(grid={"case": ["digits-cam", "breast-cancer-grad"]}, set={"targets": 1})
    assert [run.case.data.kind for run in study.runs] == ["digits", "breast-cancer"]
    assert [cell.title for cell in study.cells] == ["digits-cam", "breast-cancer-grad"]


@pytest.mark.parametrize(
    ("excludes", "left"),
    [
        ([{"victims": 2, "targets": 1}], {(1, 1), (1, 2), (2, 2)}),
        ([{"victims": [1, 2], "targets": 1}], {(1, 2), (2, 2)}),
        ([{"victims": "1"}, {"targets": "2"}], {(2, 1)}),
    ],
)
def test_excludes_leave_out_what_matches_in_all_their_keys(
    excludes: list[dict[str, Any]], left: set[tuple[int, int]]
) -> None:
    study = study_of(grid={"victims": [1, 2], "targets": [1, 2]}, exclude=excludes)
    assert {(run.case.victims, run.case.targets) for run in study.runs} == left


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"grid": {"bugdet.fraction": [0.1]}}, "did you mean 'budget.fraction'"),
        ({"grid": {"budget.fractoin": [0.1]}}, "did you mean 'budget.fraction'"),
        ({"grid": {"evidence": {"little": {"targetz": 1}}}}, "did you mean 'targets'"),
        ({"gird": {}}, "did you mean 'grid'"),
        ({"grid": {"victims": []}}, "is empty"),
        ({"grid": {"victims": [1, 1]}}, "'1' twice"),
        ({"grid": {"seed": {"a": 0, "b": 0}}}, "holds a seed twice"),
        ({"grid": {"case": ["digits-cam", "digits-cam"]}}, "'digits-cam' twice"),
        ({"set": {"case": "digits-cam"}}, "a case cannot be set for all runs"),
        ({"grid": {"victims": [0]}}, "run 0: victims"),
        ({"grid": {"explainer.kind": ["gradd"]}}, "did you mean 'grad'"),
        ({"grid": {"victims": [1, 2]}, "exclude": [{"victims": 3}]}, "which the grid has not"),
        ({"grid": {"victims": [1, 2]}, "exclude": [{"victim": 1}]}, "did you mean 'victims'"),
        ({"grid": {"victims": [1]}, "exclude": [{"victims": 1}]}, "everything is excluded"),
        (
            {
                "grid": {"victims": [1, 2], "targets": [1]},
                "exclude": [{"victims": 1}, {"targets": 1, "victims": 1}, {}],
            },
            "everything is excluded",
        ),
        ({"grid": {"victims": list(range(1, MOST_RUNS + 2))}}, "more than 10000"),
        ({"grid": {"case": [{"data": {"kind": "digits"}}]}}, "give each a name"),
        ({"grid": {"case": ["digits-kam"]}}, "there is no case file"),
        ({"case": "nowhere.yaml"}, "there is no case file"),
        ({"grid": 3}, "grid"),
        ({"limit": -1}, "limit"),
        ({"limit": True}, "limit needs a number, not true"),
        ({"grid": {"victims": [2, True]}}, "run true: victims needs a number, not true"),
        ({"set": {"title.x": 1}}, "title"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(content: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        study_of(**content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "grid",
    [
        {"budget.fraction": {"a tenth": 0.1, "ten percent": 0.1}},
        {"attack": [{"kind": "imf"}, {"kind": "imf", "attempts": 1}]},
        {"model.hidden": {"eight": 8, "8": 8.0}},
        {"many": {"a": {"victims": 3}, "b": {"victims": 3, "budget.epsilon": 0.1}}},
        {"case": {"a": TINY, "b": {**TINY, "title": "Other"}}},
        {"victims": [2, 3], "evidence": {"a": {"victims": 4}, "b": {"victims": 4, "targets": 2}}},
    ],
)
def test_one_audit_under_two_names_is_refused(grid: dict[str, Any]) -> None:
    study = study_of(grid=grid, set={"targets": 2})
    with pytest.raises(
        InputError, match=r"^mine\.yaml: 'Tiny · .*' and 'Tiny · .*' are the same audit under two names; drop"
    ):
        refuse_equal_runs(study, "mine.yaml")


def test_audits_that_differ_in_anything_are_not_refused() -> None:
    refuse_equal_runs(
        study_of(grid={"budget.epsilon": [0.1, 0.2], "seed": [0, 1], "attack.kind": ["imf", "matching"]}), "x"
    )


def test_labels_tell_numbers_apart() -> None:
    study = study_of(
        grid={
            "budget.fraction": [0.07, 0.1234567, 0.1234568],
            "recipe.lr": [1e-3, 0.1000001],
            "seed": [1234567, 1234568],
        }
    )
    assert [axis.labels for axis in study.axes] == [("7%", "12.34567%", "12.34568%"), ("0.001", "0.1000001")]
    assert len({run.case.title for run in study.runs}) == 12


def test_the_written_study_is_the_same_study(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**TINY, "victims": 4}))
    text = yaml.safe_dump({"case": "mine.yaml", "grid": {"case": ["digits-cam", "mine.yaml"], "seed": [0, 1]}})
    file = read_study_file(text, "study.yaml", folder=tmp_path, overrides=["targets=1"])
    study = expand(file, "study.yaml")
    (tmp_path / "mine.yaml").unlink()
    again = expand(parse_study_file(study.text, "again"), "again")
    assert again == study
    assert [run.case.victims for run in study.runs] == [3, 3, 4, 4]
    assert {run.case.targets for run in study.runs} == {1}


PLACES = {
    "the case": {"case": {**TINY, "goal": {"kind": "from-file", "path": "map.npy"}}},
    "what is set": {"set": {"goal": {"kind": "from-file", "path": "map.npy"}}},
    "a dotted key": {"set": {"goal.kind": "from-file", "goal.path": "map.npy"}},
    "a list": {"grid": {"goal": [{"kind": "from-file", "path": "map.npy"}]}},
    "values by name": {"grid": {"goal": {"mine": {"kind": "from-file", "path": "map.npy"}}}},
    "several keys": {"grid": {"both": {"mine": {"goal": {"kind": "from-file", "path": "map.npy"}, "victims": 1}}}},
    "several dotted keys": {"grid": {"both": {"mine": {"goal.kind": "from-file", "goal.path": "map.npy"}}}},
    "whole cases": {"grid": {"case": {"mine": {**TINY, "goal": {"kind": "from-file", "path": "map.npy"}}}}},
}


@pytest.mark.parametrize("place", PLACES)
def test_files_are_found_beside_the_study_and_gathered_in_its_folder(place: str, tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    (home / "map.npy").write_bytes(b"a map")
    file = read_study_file(yaml.safe_dump({"case": TINY, **PLACES[place]}), "study.yaml", folder=home)
    assert [run.case.goal.path for run in expand(file, "x").runs] == [home / "map.npy"]
    settled = gather_files(file, root)
    [kept] = [run.case.goal.path for run in expand(settled, "x").runs]
    assert kept.parts[0] == "files"
    assert (root / kept).read_bytes() == b"a map"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["../secret.npy", "/etc/hostname", "link.npy"])
def test_files_elsewhere_are_refused_unless_allowed(place: str, name: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret.npy").write_bytes(b"secret")
    (home / "link.npy").symlink_to(tmp_path / "secret.npy")
    text = yaml.safe_dump({"case": TINY, **PLACES[place]}).replace("map.npy", name)
    with pytest.raises(InputError, match="--allow-outside"):
        read_study_file(text, "study.yaml", folder=home)
    assert isinstance(read_study_file(text, "study.yaml", folder=home, outside=True), StudyFile)


def test_a_case_elsewhere_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(TINY))
    text = yaml.safe_dump({"case": "../case.yaml"})
    with pytest.raises(InputError, match="--allow-outside"):
        read_study_file(text, "study.yaml", folder=home)
    assert read_study_file(text, "study.yaml", folder=home, outside=True).case == TINY


def test_a_key_that_stands_twice_is_refused_wherever_it_stands() -> None:
    for text in (
        "grid: {victims: [1]}\ngrid: {targets: [1]}",
        "grid: {victims: [1], victims: [2]}",
        "grid: {attack: [{kind: imf, models: 1, models: 2}]}",
        "case: {seed: 1, seed: 2}",
    ):
        with pytest.raises(InputError, match=r"study\.yaml has the key '\w+' twice, in line"):
            read_study_file(text, "study.yaml")


def test_nothing_in_a_study_file_can_execute(tmp_path: Path) -> None:
    for text in ("!!python/object/apply:os.system ['true']", "grid: !!python/name:os.system"):
        with pytest.raises(InputError, match="is not YAML"):
            read_study_file(text, "study.yaml", folder=tmp_path)


def test_a_bomb_of_aliases_ends_in_a_short_sentence() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    for key in ("title", "limit", "exclude"):
        with pytest.raises(InputError, match="entries once its aliases are written out") as caught:
            read_study_file(f"{bomb}{key}: *a11\n", "study.yaml")
        assert len(str(caught.value)) < 1000


ODD = [
    None,
    3,
    "x",
    [],
    {},
    [1],
    {"a": 1},
    [[1]],
    [None],
    True,
    -1,
    1e400,
    {"a": {"b": {}}},
    [{"kind": "grad"}],
    {None: 1},
    [{}],
]
KEYS = [
    "victims",
    "targets",
    "budget",
    "budget.fraction",
    "explainer",
    "explainer.kind",
    "attack",
    "goal",
    "seed",
    "case",
]
KEYS += [
    "judging",
    "judging.threshold",
    "threads",
    "free",
    "recipe",
    "checkpoint",
    "pretraining",
    "data",
    "model.widths",
]


@pytest.mark.parametrize("key", ["title", "case", "set", "grid", "exclude", "limit"])
def test_odd_values_anywhere_end_in_a_short_sentence_or_a_study(key: str) -> None:
    forms: list[dict[str, Any]] = [{key: odd} for odd in ODD]
    if key == "grid":
        for name, odd in itertools.product(KEYS, ODD):
            forms += [
                {"grid": {name: odd}},
                {"set": {name: odd}},
                {"grid": {name: [odd]}},
                {"grid": {name: {"n": odd}}},
            ]
    refused = 0
    for form in forms:
        try:
            expand(read_study_file(yaml.safe_dump(form), "study.yaml"), "study.yaml")
        except InputError as error:
            refused += 1
            assert len(str(error)) < 500
            assert "\n" not in str(error)
    assert refused > len(forms) / 3
