"""`encircle reproduce kdd21 --preset smoke`: the whole way on made-up data, once, and what it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from encircle.cli import app
from encircle.core import InputError
from encircle.reproduce.figures import figure5
from encircle.reproduce.gates import gates_of
from encircle.reproduce.gather import gather
from encircle.reproduce.page import page, write_page
from encircle.reproduce.paper import PUBLISHED
from encircle.reproduce.results import Convergence, convergence, read_cells, read_figure4, runs_of
from encircle.reproduce.tables import TABLES, rows_of
from tests.test_documents import tool

pytestmark = pytest.mark.slow

PICTURES = ("kdd21-figure4.png", "kdd21-figure5.png")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kdd21")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCIRCLE_DATA", str(place))  # the command names its own, and the next test must not see it
        done = CliRunner().invoke(app, ["reproduce", "kdd21", "--preset", "smoke", "--folder", str(place), "--json"])
    assert done.exit_code == 0, done.output
    last = json.loads(done.output.strip().splitlines()[-1])
    assert last["event"] == "reproduced"
    assert last["not finished"] == {}
    assert len(last["table1"]) == len(last["table2"]) == 8
    return place


def test_every_cell_is_collected_with_its_controls(smoke: Path) -> None:
    for name, cells in TABLES.items():
        found = read_cells(smoke / "results" / name)
        assert set(found) == set(cells)
        for cell in found.values():
            arms = [arm["arm"] for arm in cell.verdict["arms"]]
            assert arms == ["clean", "base", "noise", "watermark", "watermark-projected", "imf"]


def test_the_weights_without_a_place_are_reported(smoke: Path) -> None:
    (cell, *_) = read_cells(smoke / "results" / "table1").values()
    assert cell.environment["surplus_weights"] == {"layer4": 30}


def test_tables_show_the_papers_numbers_beside_those_of_the_runs(smoke: Path) -> None:
    rows = {row.entries[0]: row for row in rows_of(smoke / "results", "table1")}
    assert rows["**WM**, paper"].entries[1:] == ("0.79", "0.71", "0.05", "0.07")
    assert rows["**IMF**, paper"].entries[1:] == ("0.57", "0.42", "0.22", "0.31")
    grad, cam = (read_cells(smoke / "results" / "table1")[name].attack for name in TABLES["table1"])
    expected = [each[metric]["mean"] for metric in ("l1", "jaccard") for each in (grad, cam)]
    assert rows["**IMF**, ours"].entries[1:] == tuple(f"{value:.2f}" for value in expected)


def test_means_are_those_of_the_scores(smoke: Path) -> None:
    for name in TABLES:
        for cell in read_cells(smoke / "results" / name).values():
            scores = cell.table("scores").filter(pl.col("arm") == "imf")
            means = scores.group_by("target").agg(pl.col("l1").mean()).get_column("l1")
            assert cell.attack["l1"]["mean"] == pytest.approx(means.mean())


def test_the_page_is_made_from_the_results_alone(smoke: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke / "results", tmp_path / "results")
    assert page(tmp_path / "results") == (smoke / "kdd21.md").read_text(encoding="utf-8")
    write_page(tmp_path / "results", tmp_path)
    assert page(tmp_path / "results") == (tmp_path / "kdd21.md").read_text(encoding="utf-8")
    for name in PICTURES:
        assert (tmp_path / "pictures" / name).read_bytes().startswith(b"\x89PNG")
    figure5_alike = [(folder / "pictures" / PICTURES[1]).read_bytes() for folder in (smoke, tmp_path)]
    assert figure5_alike[0] == figure5_alike[1]


def test_what_is_kept_holds_no_photograph(smoke: Path) -> None:
    kept = {path.name for path in (smoke / "results").rglob("*") if path.is_file()}
    assert kept == {
        "facts.json", "figure4.safetensors", "history.parquet", "poisons.parquet", "preset.json", "scores.parquet",
    }  # fmt: skip
    assert not (smoke / "results" / "table1" / "history.parquet").exists()
    maps = read_figure4(smoke / "results")
    assert maps is not None
    assert {name.split("/")[1] for name in maps} == {"goal", "normal", "manipulated"}
    assert all(values.ndim == 2 for values in maps.values())


def test_nothing_kept_names_this_machine(smoke: Path) -> None:
    for path in (smoke / "results").rglob("*"):
        if path.suffix == ".json":
            assert str(smoke) not in path.read_text(encoding="utf-8"), path


def test_running_it_again_does_nothing_anew(smoke: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in smoke.rglob("scores.parquet") if "runs" in path.parts}
    assert before
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCIRCLE_DATA", str(smoke))
        arguments = ["reproduce", "kdd21", "--preset", "smoke", "--folder", str(smoke), "--only", "table2"]
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "Table 2" in done.output
    assert "IMF, paper" in done.output
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_an_unfinished_cell_is_said_to_be(smoke: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke / "table2", tmp_path / "table2")
    folder = runs_of(tmp_path / "table2")["fractures-cam"]
    assert folder is not None
    (folder / "verdict.json").unlink()
    left = gather(tmp_path, ["table2"], "smoke")
    assert left == {"table2, fractures-cam": "it is not done yet."}
    assert "not finished" in (tmp_path / "kdd21.md").read_text(encoding="utf-8")


def test_damaged_results_are_named(smoke: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke / "results", tmp_path / "results")
    (tmp_path / "results" / "table1" / "facts.json").write_text("{")
    with pytest.raises(InputError, match=r"a file of .*table1 is missing or damaged"):
        page(tmp_path / "results")


def test_gates_are_judged_by_their_numbers(smoke: Path) -> None:
    cell = read_cells(smoke / "results" / "table1")["dogs-cam"]
    attack, rival = cell.attack, cell.arm("watermark")
    few = gates_of(cell)
    assert few[0].holds is None  # two targets have no interval
    assert few[4].holds is None
    cell.verdict["held_out"] = 600  # type: ignore[index]
    estimate = {"mean": 0.5, "low": 0.3, "high": 0.6}
    attack |= {"jaccard": estimate, "jaccard_change": estimate, "l1": {"mean": 0.4, "low": None, "high": None}}  # type: ignore[operator]
    attack["accuracy_change"] = {"mean": 0.0, "low": -0.009, "high": 0.01}  # type: ignore[index]
    attack["label_kept"] = {"mean": 0.9, "low": None, "high": None}  # type: ignore[index]
    rival["l1"] = {"mean": 0.5, "low": None, "high": None}  # type: ignore[index]
    assert [gate.holds for gate in gates_of(cell)] == [True] * 5
    attack["accuracy_change"]["low"] = -0.011
    attack["label_kept"]["mean"] = 0.89
    attack["jaccard"] = {"mean": PUBLISHED["dogs-cam"].jaccard[1] - 0.01, "low": None, "high": None}  # type: ignore[index]
    attack["l1"]["mean"] = 0.41
    attack["jaccard_change"] = {"mean": 0.1, "low": -0.01, "high": 0.2}  # type: ignore[index]
    assert [gate.holds for gate in gates_of(cell)] == [False] * 5


def test_stability_is_the_first_epoch_after_the_last_one_outside() -> None:
    settled = [10.0, 3.0, 6.0, *[1.0, 1.1, 0.9, 1.0, 1.2]]
    restless = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    found = Convergence(list(range(1, 9)), settled, [2.0] * 8)
    assert found.stable_from("upper") == 4
    assert found.stable_from("lower") == 1
    assert Convergence(list(range(1, 9)), restless, restless).stable_from("lower") == 9


def test_histories_are_averaged_over_iterations_and_models(tmp_path: Path) -> None:
    history = pl.DataFrame(
        {
            "epoch": [0.0, 0.0, 0.5, 0.5, 1.0, 1.0],
            "upper": [1.0, 2.0, 3.0, 4.0, 5.0, 7.0],
            "lower": [0.0, 0.0, 1.0, 1.0, 2.0, 2.0],
        }
    )
    found = convergence(history)
    assert (found.epochs, found.upper, found.lower) == ([1, 2], [2.5, 6.0], [0.5, 2.0])
    figure5(found, tmp_path / "a.png")
    figure5(found, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_is_collected_into_the_repository_keeps_the_notes_there(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(smoke, tmp_path / "work")
    note = tmp_path / "results" / "table2" / "note.md"
    note.parent.mkdir(parents=True)
    note.write_text("Read this.")
    kdd21 = tool("kdd21")
    monkeypatch.setattr(kdd21, "RESULTS", tmp_path / "results")
    kdd21.collect(tmp_path / "work")
    assert note.read_text() == "Read this."
    for name in ("table1", "table2", "figure5"):
        collected, original = (read_cells(folder / "results" / name) for folder in (tmp_path, smoke))
        assert list(collected) == list(original)
        for cell in collected:
            assert collected[cell].verdict == original[cell].verdict
            assert collected[cell].table("scores").equals(original[cell].table("scores"))
    assert (tmp_path / "results" / "figure4.safetensors").is_file()
