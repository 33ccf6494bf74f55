"""The paper's experiments as studies: every preset is one that can be audited, and what is missing is said."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.testing import CliRunner

from encircle.audit import Case, read_case
from encircle.cli import app
from encircle.core import InputError
from encircle.goals import Features, Units
from encircle.reproduce.kdd21 import CELLS, PARTS, PRESETS, READINGS, TEN, Part, PresetName, make_smoke_data, studies
from encircle.reproduce.paper import PUBLISHED
from encircle.reproduce.results import read_cells
from encircle.study.grid import expand
from encircle.study.study_file import gather_files
from tests.test_documents import tool


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_smoke_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("preset", get_args(PresetName))
def test_every_preset_expands_to_cases(preset: PresetName, weights: Path) -> None:
    wanted = studies(preset, [], weights)
    assert set(wanted) == (
        {"table1", "table2", "figure5", "full", "limits", "readings", "choices"}
        if preset == "standard"
        else {"table1", "table2", "figure5"}
    )
    for name in ("table1", "table2"):
        study = expand(wanted[name], name)
        assert [run.case.targets for run in study.runs] == [PRESETS[preset].targets] * 2
        assert [run.case.victims for run in study.runs] == [PRESETS[preset].victims] * 2
        for run in study.runs:
            assert run.case.budget.fraction == 0.1
            assert run.case.budget.epsilon == 0.1
            assert run.case.attack.kind == "imf"
            assert run.case.attack.alpha == 0.001


def test_the_cells_are_the_papers() -> None:
    assert set(CELLS) == set(PUBLISHED)
    for name, case in CELLS.items():
        assert case["explainer"]["kind"] == name.partition("-")[2]


def test_the_paper_preset_is_the_papers_size(weights: Path) -> None:
    case = expand(studies("paper", ["table1"], weights)["table1"], "paper").runs[0].case
    assert isinstance(case, Case)
    assert (case.data.side, case.data.split, case.data.breeds) == (224, "random", None)  # type: ignore[union-attr]
    assert (case.recipe.frozen_stages, case.targets, case.victims) == (0, 10, 5)
    assert case.recipe.lr == 0.0001  # of full fine-tuning, as `tools/recipes.py` measures it


def test_fracture_goals_are_drawn(weights: Path) -> None:
    grad, cam = (run.case for run in expand(studies("standard", ["table2"], weights)["table2"], "table2").runs)
    assert isinstance(grad.goal, Features)
    assert isinstance(cam.goal, Units)
    assert grad.recipe.start == "scratch"
    assert cam.recipe.start == "checkpoint"
    assert cam.pretraining is not None


def test_every_reading_changes_one_thing(weights: Path) -> None:
    runs = expand(studies("standard", ["readings"], weights)["readings"], "readings").runs
    assert len(runs) == 2 * len(READINGS) - 1
    cases = {run.case.model_dump_json(exclude={"title"}) for run in runs}
    assert len(cases) == len(runs)


def test_ceilings_are_of_the_tables_own_targets_and_limits_change_one_thing(weights: Path) -> None:
    runs = expand(studies("standard", ["limits"], weights)["limits"], "limits").runs
    ceilings = [run.case for run in runs if run.case.ceiling is not None]
    assert {(case.data.kind, case.explainer.kind) for case in ceilings} == {
        (data, explainer) for data in ("stanford-dogs", "table") for explainer in ("grad", "cam")
    }
    size = PRESETS["standard"]
    assert {(case.targets, case.victims, case.budget.count) for case in ceilings} == {(size.targets, size.victims, 0)}
    changed = [run.case for run in runs if run.case.ceiling is None]
    assert len(changed) == 2 * 4 + 2 * 3 + 1
    assert {case.data.side for case in changed if case.data.kind == "stanford-dogs"} == {64, 112}
    assert {case.data.breeds for case in changed if case.data.kind == "stanford-dogs"} == {TEN[:5]}


def test_figure_4_needs_table_1_alone(weights: Path) -> None:
    assert set(studies("quick", ["figure4"], weights)) == {"table1"}


def test_the_weights_are_copied_into_the_study(weights: Path, tmp_path: Path) -> None:
    gathered = gather_files(studies("smoke", ["table1"], weights)["table1"], tmp_path)
    assert str(weights.parent) not in gathered.as_text()
    assert len(list((tmp_path / "files").iterdir())) == 1


def test_what_is_missing_is_said_with_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"starts from ImageNet weights; give ImageNet weights of ResNet-18 .* --weights"
    ):
        studies("quick", ["table1"], None)
    with pytest.raises(InputError, match="do not exist; give ImageNet weights"):
        studies("quick", ["figure5"], tmp_path / "none.pt")
    assert set(studies("quick", ["table2"], None)) == {"table2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "table3"], "unknown part of the experiments 'table3'; did you mean 'table"),
        (["--data", "nowhere"], "the data folder nowhere does not exist; docs/data.md"),
        (
            ["--only", "table2"],
            r"there is no nhanes-osteoporosis-women.csv in the data folder .*; make it of the public files of NHANES \(wwwn",
        ),
        ([], "starts from ImageNet weights"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENCIRCLE_DATA", str(tmp_path))
    done = CliRunner().invoke(app, ["reproduce", "kdd21", *arguments])
    assert isinstance(done.exception, InputError)
    assert re.search(message, str(done.exception))
    assert "\n" not in str(done.exception)


def test_made_up_data_are_the_same_every_time(weights: Path, tmp_path: Path) -> None:
    again = make_smoke_data(tmp_path)
    assert again.read_bytes() == weights.read_bytes()
    assert (tmp_path / "records.csv").read_bytes() == (weights.parent / "records.csv").read_bytes()
    assert make_smoke_data(tmp_path) == again
    assert set(PARTS) == {"table1", "table2", "figure4", "figure5", "full", "limits", "readings", "choices"}


def test_cells_can_be_had_as_case_files(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dogs = {f"{cell}{end}" for cell in CELLS if cell.startswith("dogs") for end in ("-112", "-others")}
    for more, expected in (([], {"fractures-grad", "fractures-cam"}), (["--weights", str(weights)], {*CELLS, *dogs})):
        folder = tmp_path / str(len(more))
        monkeypatch.setattr(sys, "argv", ["cells.py", str(folder), *more])
        tool("cells").main()
        assert {path.stem for path in folder.iterdir()} == expected
        titles = set[str]()
        for path in folder.iterdir():
            found = read_case(path.read_text("utf-8"), [], path.name, folder=folder, outside=True)
            assert (found.targets, found.victims) == (10, 3)
            titles.add(found.title)
        assert len(titles) == len(expected)
        assert "Fracture table, CAM over hidden units" in titles
    monkeypatch.setattr(sys, "argv", ["cells.py", str(tmp_path / "none"), "--weights", str(tmp_path / "missing")])
    with pytest.raises(SystemExit, match=r"the weights .* do not exist"):
        tool("cells").main()


@pytest.mark.parametrize("part", ["table1", "table2", "full", "limits", "choices"])
def test_committed_cells_have_the_settings_of_the_preset(part: Part, weights: Path) -> None:
    file = studies("standard", [part], weights)[part]
    study = expand(file, part)
    planned = {
        " · ".join(axis.labels[place] for axis, place in zip(study.axes, run.at, strict=True)): run.case
        for run in study.runs
    }
    committed = read_cells(Path(__file__).resolve().parents[2] / "results" / "kdd21" / part)
    assert set(committed) == set(planned)
    for name, cell in committed.items():
        found, wanted = yaml.safe_load(cell.run.case), planned[name].model_dump(mode="json")
        for key in (
            "model",
            "recipe",
            "explainer",
            "goal",
            "attack",
            "budget",
            "ceiling",
            "targets",
            "victims",
            "seed",
        ):
            mine, theirs = found[key], wanted[key]
            if isinstance(mine, dict) and key != "goal":  # settings that came later have their defaults
                theirs = {one: value for one, value in theirs.items() if one in mine}
            assert mine == theirs, (name, key)
