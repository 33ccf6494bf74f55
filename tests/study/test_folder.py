"""A study in its folder: begun, refused, resumed, concluded; whoever holds the folder holds the whole study."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from encircle.core import InputError
from encircle.jobs.local import LocalExecutor
from encircle.storage import exclusive_lock
from encircle.study.folder import Conclusion, begin, note_plan, noted_device, noted_runs, reopen
from encircle.study.plan import plan
from encircle.study.run import WORK, conclude_now, go_on, standing
from encircle.study.study_file import read_study_file

from ..audit.tiny_cases import TINY

GRID = {"budget.fraction": [0.02, 0.05], "attack.kind": ["imf", "watermark-projected"]}


def begun(root: Path, folder: Path | None = None, **content: Any) -> Path:
    case = {**TINY, "attack": {"kind": "imf", "models": 1, "epochs": 1}, "targets": 1, "victims": 1}
    text = yaml.safe_dump({"title": "Tiny", "case": case, "grid": GRID, **content}, sort_keys=False)
    begin(read_study_file(text, "study.yaml", folder=folder), root)
    return root


def done(root: Path, **settings: Any) -> Conclusion:
    return go_on(root, LocalExecutor(WORK, cpus=2), **settings)


@pytest.mark.slow
def test_a_study_from_beginning_to_end_and_nothing_twice(tmp_path: Path) -> None:
    root = begun(tmp_path / "study")
    heard: list[str] = []
    conclusion = done(root, listener=lambda name, facts: heard.append(name))
    assert conclusion.verdict == "WARN"  # one target is a demonstration
    assert (
        heard.count("start")
        == heard.count("done")
        == sum(states["done"] for states in conclusion.summary["counts"]["tasks"].values())
    )
    summary = json.loads((root / "study.json").read_text())
    assert summary["counts"]["runs"] == summary["counts"]["finished"] == 4
    assert [cell["title"] for cell in summary["cells"]] == [
        "2% · IMF",
        "2% · WM (projected)",
        "5% · IMF",
        "5% · WM (projected)",
    ]
    scores = pl.read_parquet(root / "scores.parquet")
    assert scores["cell"].unique().sort().to_list() == sorted(cell["title"] for cell in summary["cells"])
    assert len(pl.read_parquet(root / "cells.parquet")) == 4
    for cell in summary["cells"]:
        [run] = cell["runs"]
        assert (root / "runs" / run["folder"] / "report.html").is_file()
    assert "junit" in {path.stem for path in root.glob("*.xml")}
    assert (root / "report.html").is_file()
    assert list((root / "shared").iterdir()) == list((root / "pieces").iterdir()) == []

    heard.clear()
    before = {path: path.read_bytes() for path in root.glob("*.parquet")} | {root: (root / "study.json").read_bytes()}
    again = done(root, listener=lambda name, facts: heard.append(name))
    assert heard == ["begin", "end"]
    assert again.summary == conclusion.summary
    assert before[root] == (root / "study.json").read_bytes()

    # The folder is all there is: moved elsewhere, it is the same study.
    shutil.move(root, tmp_path / "moved")
    heard.clear()
    assert done(tmp_path / "moved", listener=lambda name, facts: heard.append(name)).summary == conclusion.summary
    assert heard == ["begin", "end"]
    # A report drawn again is no damage.
    [report] = list((tmp_path / "moved" / "runs").glob("*imf*/report.html"))[:1]
    report.write_text("drawn again")
    heard.clear()
    done(tmp_path / "moved", listener=lambda name, facts: heard.append(name))
    assert heard == ["begin", "end"]
    # Damage within a run is told of its cell alone, and mended as told.
    root = tmp_path / "moved"
    (report.parent / "scores.parquet").write_bytes(b"PAR1")
    [cell] = [cell for cell in conclude_now(root).summary["cells"] if cell["verdict"] == "ERROR"]
    assert f"runs/{report.parent.name}/scores.parquet is damaged; delete runs/{report.parent.name} " in cell["sentence"]
    shutil.rmtree(report.parent)
    mended = {
        key: value for key, value in done(root).summary.items() if key not in {"counts", "seconds", "environment"}
    }
    assert mended == {key: conclusion.summary[key] for key in mended}


@pytest.mark.slow
def test_a_slice_leaves_the_rest_unknown_and_a_run_that_fails_is_an_error(tmp_path: Path) -> None:
    root = begun(tmp_path / "study", grid={"targets": [1, 29]})
    conclusion = done(root, minutes=0.0)
    assert conclusion.verdict == "ERROR"
    assert all("not done yet" in cell["sentence"] for cell in conclusion.summary["cells"])
    conclusion = done(root)
    assert [cell["verdict"] for cell in conclusion.summary["cells"]] == ["WARN", "ERROR"]
    [missing] = conclusion.summary["cells"][1]["missing"]
    assert "test samples right, fewer than 29 targets" in missing["why"]
    tally, running = standing(root)
    assert running == []
    assert tally.failures
    assert conclude_now(root).summary == conclusion.summary


def test_results_are_not_shown_as_those_of_an_edited_study(tmp_path: Path) -> None:
    root = begun(tmp_path / "study", grid={"budget.fraction": [0.02]})
    note_plan(root, plan(reopen(root), root))
    assert len(noted_runs(root, reopen(root))) == 1
    file = root / "study.yaml"
    file.write_text(file.read_text().replace("0.02", "0.2"))
    with pytest.raises(InputError, match=r"is of other cases than `study\.yaml` now gives; run `encircle study resume"):
        noted_runs(root, reopen(root))
    for damaged in ("[]", '{"runs": 3}', '{"runs": [{}]}'):
        (root / "plan.json").write_text(damaged)
        for read in (lambda: noted_runs(root, reopen(root)), lambda: noted_device(root)):
            with pytest.raises(InputError, match="is damaged; run `encircle study resume"):
                read()
    (root / "plan.json").unlink()
    assert noted_device(root) == "cpu"


def test_a_second_driver_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    root = begun(tmp_path / "study")
    with exclusive_lock(root), pytest.raises(InputError, match="another process is at work"):
        done(root)
    assert {path.name for path in root.iterdir()} == {"study.yaml", ".lock"}


def test_a_folder_of_another_study_or_of_something_else_is_refused(tmp_path: Path) -> None:
    root = begun(tmp_path / "study", title="Refused, then mended")
    root = begun(tmp_path / "study")  # nothing was planned there yet
    assert begun(root) == root
    (root / "plan.json").write_text("{}")
    with pytest.raises(InputError, match="holds another study"):
        begun(root, title="Other")
    rewritten = (root / "study.yaml").read_text().replace("title: Tiny", 'title: "Tiny"', 1)
    (root / "study.yaml").write_text(rewritten)  # by a version that puts other texts in quotes
    assert begun(root) == root
    assert (root / "study.yaml").read_text() == rewritten
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    np.save(tmp_path / "map.npy", np.zeros(30))
    with pytest.raises(InputError, match="is not empty and holds no study"):
        begun(tmp_path / "mine", tmp_path, set={"goal": {"kind": "from-file", "path": "map.npy"}})
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ".partial-7-study.yaml").write_text("tit")
    begun(tmp_path / "half")
    for folder in (tmp_path / "nowhere", tmp_path / "mine"):
        with pytest.raises(InputError, match="holds no study"):
            reopen(folder)


def test_a_study_folder_from_a_stranger_reads_nothing_outside_of_it(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.zeros(30))
    root = begun(tmp_path / "study", tmp_path, set={"goal": {"kind": "from-file", "path": "map.npy"}})
    text = (root / "study.yaml").read_text()
    assert "path: files/" in text
    reopen(root)
    for other in ("/etc/hostname", "../map.npy", "study.yaml"):
        (root / "study.yaml").write_text(text.replace(text.split("path: ")[1].split("\n")[0], other))
        with pytest.raises(InputError, match="not a file of the study"):
            reopen(root)
    (root / "study.yaml").write_text("case: ../../secret.yaml\n")
    with pytest.raises(InputError, match="not written out"):
        reopen(root)
