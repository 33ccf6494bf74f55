"""A finished run that lacks something, or holds something damaged or of another shape, is made whole by running it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from encircle.audit import Audit, run_audit
from encircle.audit.finish import RESULTS
from encircle.core import InputError
from encircle.report import render
from encircle.run_folder import SHAPE_VERSION, DamagedError, load_run
from encircle.storage import read_arrays

from .tiny_cases import TINY, case_of, scores_of

QUICK = {**TINY, "targets": 1, "victims": 1, "attack": {"kind": "imf", "models": 1, "epochs": 1}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(Audit.from_case(case_of(QUICK)), tmp_path_factory.mktemp("runs")).folder


def _gone(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _of_an_earlier_version(path: Path) -> None:
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        content.pop("held_out" if "held_out" in content else "versions")
        path.write_text(json.dumps(content))
    elif path.suffix == ".parquet":
        pl.read_parquet(path).drop("target").write_parquet(path)
    else:
        _empty(path)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("harm", [_gone, _cut, _empty, _of_an_earlier_version])
def test_it_is_made_whole(name: str, harm: Callable[[Path], None], finished: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    folder = shutil.copytree(finished, runs / finished.name)
    harm(folder / name)
    with pytest.raises(InputError, match="run `encircle audit` on its case again"):
        render([folder], tmp_path / "report.html")
    judgement = run_audit(Audit.from_case(case_of(QUICK)), runs)
    assert judgement.folder == folder
    load_run(folder)
    render([folder], tmp_path / "report.html")
    assert scores_of(folder).equals(scores_of(finished), null_equal=True)
    maps, others = (read_arrays(where / "maps.safetensors")[0] for where in (folder, finished))
    assert {key: value.tobytes() for key, value in maps.items()} == {
        key: value.tobytes() for key, value in others.items()
    }
    assert not (folder / "parts").exists()


def test_a_whole_run_is_left_alone(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / finished.name)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    run_audit(Audit.from_case(case_of(QUICK)), tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before


def test_poison_that_was_changed_says_what_to_delete_and_that_helps(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / finished.name)
    (folder / "verdict.json").unlink()
    (poison,) = folder.glob("poison/*/noise")
    _cut(poison / "poison.parquet")
    with pytest.raises(Exception, match=r"delete .* and run again") as caught:
        run_audit(Audit.from_case(case_of(QUICK)), tmp_path)
    assert str(poison) in str(caught.value)
    shutil.rmtree(poison)
    run_audit(Audit.from_case(case_of(QUICK)), tmp_path)
    assert scores_of(folder).equals(scores_of(finished), null_equal=True)


def test_a_case_file_that_was_cut_is_written_anew_and_one_that_is_no_case_says_what_to_do(
    finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished, tmp_path / finished.name)
    path = folder / "case.yaml"
    path.write_text("\n".join(path.read_text().splitlines()[:5]) + "\n")
    run_audit(Audit.from_case(case_of(QUICK)), tmp_path)
    assert path.read_bytes() == (finished / "case.yaml").read_bytes()
    _empty(path)
    with pytest.raises(InputError, match="delete it"):
        run_audit(Audit.from_case(case_of(QUICK)), tmp_path)
    shutil.rmtree(folder)
    run_audit(Audit.from_case(case_of(QUICK)), tmp_path)
    assert scores_of(folder).equals(scores_of(finished), null_equal=True)


def test_a_damaged_file_is_named_with_its_trouble(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / finished.name)
    _gone(folder / "maps.safetensors")
    with pytest.raises(DamagedError) as caught:
        load_run(folder)
    assert caught.value.path == folder / "maps.safetensors"
    assert caught.value.trouble == "is missing"


def test_a_run_of_a_newer_version_is_refused_and_nothing_of_it_deleted(finished: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(finished, runs / finished.name)
    path = runs / finished.name / "environment.json"
    path.write_text(json.dumps({"shape_version": SHAPE_VERSION + 1}))
    before = {file: file.read_bytes() for file in runs.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="is of a newer version of encircle"):
        run_audit(Audit.from_case(case_of(QUICK)), runs)
    assert {file: file.read_bytes() for file in runs.rglob("*") if file.is_file()} == before
