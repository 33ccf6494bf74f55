"""Runs taken apart into tasks: nothing is done twice, and what comes out is what `run_audit` gives, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from encircle.audit import Audit, run_audit
from encircle.core import InputError
from encircle.study.grid import Study, expand
from encircle.study.plan import Plan, plan
from encircle.study.study_file import gather_files, read_study_file
from encircle.study.task_kinds import TASK_KINDS
from encircle.training import save_weights

from ..audit.tiny_cases import TINY, TINY_IMAGES
from .serial import do

FILES = ("case.yaml", "scores.parquet", "poisons.parquet", "history.parquet", "maps.safetensors", "verdict.json")
CHECKPOINTED = {
    **{key: value for key, value in TINY_IMAGES.items() if key != "pretraining"},
    "checkpoint": "weights.safetensors",
    "goal": {"kind": "from-file", "path": "map.npy"},
}


def study_of(case: dict[str, Any], folder: Path | None = None, **content: Any) -> Study:
    text = yaml.safe_dump({"title": "Tiny", "case": case, **content}, sort_keys=False)
    file = read_study_file(text, "study.yaml", folder=folder)
    return expand(file if folder is None else gather_files(file, folder / "root"), "study.yaml")


def assert_same_as_audits(study: Study, todo: Plan, root: Path, files: tuple[str, ...] = FILES) -> None:
    for planned, run in zip(todo.runs, study.runs, strict=True):
        whole = run_audit(Audit.from_case(run.case), root / "direct").folder
        mine = root / "runs" / planned.folder
        for name in files:
            assert (mine / name).read_bytes() == (whole / name).read_bytes(), name
        poison = sorted(path.relative_to(whole) for path in whole.glob("poison/*/*/*"))
        assert poison == sorted(path.relative_to(mine) for path in mine.glob("poison/*/*/*"))
        assert all((mine / path).read_bytes() == (whole / path).read_bytes() for path in poison)
        assert (mine / "report.html").is_file()


@pytest.mark.slow
def test_a_table_study_equals_its_audits_and_shares_their_pieces(tmp_path: Path) -> None:
    grid = {
        "budget.fraction": [0.02, 0.04],
        "explainer.kind": ["grad"],
        "goal": [{"kind": "features", "count": 4}, {"kind": "features", "count": 6}],
        "attack.kind": ["imf", "watermark-projected"],
    }
    study = study_of(TINY, grid=grid, set={"attack.epochs": 1, "attack.models": 2, "targets": 1})
    todo = plan(study, tmp_path)
    counts = do(todo, tmp_path)
    # 2 x 2 victims and 1 reference; 1 target x 2 goals; 2 arms x 2 budgets know no goal; of the others nothing is shared
    # between goals or budgets, but the projected watermark is one arm of every run, whatever it attacks with.
    assert counts == {
        **{"data": 1, "path": 1, "model": 5, "ensemble": 1, "targets": 1, "clean": 2},
        **{"unexplained": 4, "control": 16, "attack": 4, "run": 8},
    }
    assert all(todo.wanted[kind] >= counts[kind] for kind in counts)
    assert_same_as_audits(study, todo, tmp_path)


@pytest.mark.slow
def test_an_image_study_from_learnt_weights_equals_its_audits(tmp_path: Path) -> None:
    study = study_of({**TINY_IMAGES, "ceiling": {"epochs": 1}}, grid={"explainer.kind": ["cam", "grad"]})
    todo = plan(study, tmp_path)
    counts = do(todo, tmp_path)
    assert counts["ceiling"] == 2
    assert counts["weights"] == counts["data"] == counts["ensemble"] == counts["targets"] == 1
    assert counts["model"] == 3
    assert_same_as_audits(study, todo, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "attacker", "models"),
    [
        # 2 x 1 victims, and the attacker's own of another network, of another recipe
        (TINY_IMAGES, {"model": {"kind": "small-resnet", "widths": [4, 6, 6]}}, 3),
        (TINY_IMAGES, {"recipe": {"starts": 2}}, 3),
        (TINY, {"recipe": {"epochs": 3, "lr": 0.05}}, 5),
    ],
    ids=["transfer", "starts of its own", "another recipe"],
)
def test_an_attacker_who_is_wrong_about_the_victims_is_so_in_a_study_too(
    case: dict[str, Any], attacker: dict[str, Any], models: int, tmp_path: Path
) -> None:
    study = study_of({**case, "targets": 1, "attacker": attacker})
    todo = plan(study, tmp_path)
    counts = do(todo, tmp_path)
    assert counts["model"] == models
    assert counts["ensemble"] == counts["targets"] == 1
    assert counts["weights"] == (2 if case is TINY_IMAGES else 0)  # the victims' and the attacker's
    assert_same_as_audits(study, todo, tmp_path)


def test_what_the_attacker_supposes_changes_the_attacker_s_models_and_no_victim(tmp_path: Path) -> None:
    before = {task.id: task for task in plan(study_of(TINY), tmp_path).tasks}
    after = {task.id: task for task in plan(study_of(TINY, set={"attacker.recipe.epochs": 3}), tmp_path).tasks}
    new = [task for name, task in after.items() if name not in before]
    assert {task.kind for task in new} == {"model", "ensemble", "clean", "unexplained", "control", "attack", "run"}
    assert ["attacker" in task.label for task in new if task.kind == "model"] == [True]
    assert {task.kind for name, task in after.items() if name in before} == {"data", "path", "model", "targets"}


@pytest.mark.slow
def test_files_travel_with_the_study(tmp_path: Path) -> None:
    learnt = Audit.from_case(study_of(TINY_IMAGES).runs[0].case)
    save_weights(tmp_path / "weights.safetensors", learnt.fresh())
    np.save(tmp_path / "map.npy", np.eye(4))
    study = study_of(CHECKPOINTED, folder=tmp_path, set={"targets": 1, "recipe.epochs": 12, "recipe.frozen_stages": 0})
    root = tmp_path / "root"
    todo = plan(study, root)
    assert do(todo, root)["files"] == 1
    text = (root / "runs" / todo.runs[0].folder / "case.yaml").read_text()
    assert "checkpoint: files/" in text
    assert str(tmp_path) not in text


def test_tasks_come_after_what_they_need_and_ids_do_not_depend_on_place_or_title(tmp_path: Path) -> None:
    study = study_of(TINY, grid={"budget.fraction": [0.02, 0.1], "seed": [0, 1]})
    first, again = plan(study, tmp_path), plan(study, tmp_path / "elsewhere")
    assert [task.id for task in first.tasks] == [task.id for task in again.tasks]
    seen: set[str] = set()
    for task in first.tasks:
        assert set(task.needs) <= seen, task.label
        assert task.id not in seen
        assert task.kind in TASK_KINDS
        assert task.folder.split("/")[0] == (
            "shared" if TASK_KINDS[task.kind].is_shared else "runs" if task.kind == "run" else "pieces"
        )
        seen.add(task.id)
    renamed = study_of(
        {**TINY, "title": "Other"}, title="Another", grid={"budget.fraction": [0.02, 0.1], "seed": [0, 1]}
    )
    pieces = {task.id for task in first.tasks if task.kind != "run"}
    assert {task.id for task in plan(renamed, tmp_path).tasks if task.kind != "run"} == pieces


@pytest.mark.parametrize(
    ("change", "other"),
    [
        (
            {"seed": 8},
            {"data", "path", "model", "ensemble", "targets", "clean", "unexplained", "control", "attack", "run"},
        ),
        ({"recipe.epochs": 3}, {"model", "ensemble", "targets", "clean", "unexplained", "control", "attack", "run"}),
        ({"goal.count": 5}, {"clean", "control", "attack", "run"}),
        ({"attack.epochs": 3}, {"attack", "run"}),
        ({"attack.models": 3}, {"ensemble", "attack", "run"}),
        ({"budget.epsilon": 0.2}, {"unexplained", "control", "attack", "run"}),
        ({"judging.threshold": 0.2}, {"run"}),
        ({"threads": 2}, {"path", "model", "ensemble", "targets", "clean", "unexplained", "control", "attack", "run"}),
    ],
)
def test_a_change_makes_other_tasks_of_what_depends_on_it_and_of_nothing_else(
    change: dict[str, Any], other: set[str], tmp_path: Path
) -> None:
    before = plan(study_of(TINY), tmp_path).tasks
    after = plan(study_of(TINY, set=change), tmp_path).tasks
    same = {task.id for task in before} & {task.id for task in after}
    changed = {task.kind for task in after if task.id not in same}
    assert changed == other
    assert not {task.kind for task in after if task.id in same} & changed


def test_a_run_that_cannot_be_audited_is_named(tmp_path: Path) -> None:
    study = study_of(TINY, grid={"goal": [{"kind": "features", "count": 3}, {"kind": "region", "name": "mid-left"}]})
    with pytest.raises(InputError, match=r"^Tiny · region"):
        plan(study, tmp_path)


def test_planning_for_an_accelerator_needs_none(tmp_path: Path) -> None:
    here, there = plan(study_of(TINY), tmp_path), plan(study_of(TINY), tmp_path, device="cuda", gpus=0.5)
    assert not {task.id for task in here.tasks} & {
        task.id for task in there.tasks if task.kind not in {"data", "files"}
    }
    for task in there.tasks:
        assert task.gpus == (0.0 if task.here else 0.5)
        assert task.here == (task.kind in {"data", "files", "run"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without an accelerator")
def test_training_where_there_is_no_accelerator_says_so(tmp_path: Path) -> None:
    todo = plan(study_of(TINY), tmp_path, device="cuda")
    with pytest.raises(InputError, match="finds no device"):
        do(todo, tmp_path)
