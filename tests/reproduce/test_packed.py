"""What was packed is what the runs' folders held, and what is damaged is named."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from encircle.core import InputError
from encircle.reproduce.packed import FACTS, RunRecord, pack, read_run, unpack, write_run
from encircle.storage import write_json, write_parquet, write_text

FILES = ("case.yaml", "environment.json", "verdict.json")
TABLES = ("scores.parquet", "poisons.parquet", "history.parquet")


def run_folder(folder: Path, number: float, *, extra: bool = False) -> Path:
    """A run's folder with texts and numbers that are easily lost."""
    write_text(folder / "case.yaml", f"title: Füchse · ε\nattack:\n  alpha: {number}\n  note: 'two\n\n    lines'\n")
    write_json(folder / "environment.json", {"title": "Füchse", "seconds": number / 3, "empty": {}, "none": None})
    write_json(folder / "verdict.json", {"verdict": "FAIL", "arms": [{"mean": 0.1 + 0.2, "low": 1e-300}]})
    scores = pl.DataFrame({"target": [3, 1], "arm": ["clean", "imf"], "l1": [math.nan, number], "psnr": [None, None]})
    scores = scores.with_columns(pl.col("psnr").cast(pl.Float64), label_kept=pl.Series([True, None]))
    write_parquet(folder / "scores.parquet", scores.with_columns(drift=pl.lit(0.5)) if extra else scores)
    write_parquet(folder / "poisons.parquet", pl.DataFrame({"target": [1], "linf": [number]}).clear(int(extra)))
    write_parquet(folder / "history.parquet", pl.DataFrame({"epoch": [0.0, 0.5], "upper": [number, -number]}))
    (folder / "maps.safetensors").write_bytes(b"pictures")
    return folder


def assert_same(left: Path, right: Path, tables: tuple[str, ...] = TABLES) -> None:
    assert {path.name for path in right.iterdir()} == {*FILES, *tables}
    for name in FILES:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name
    for name in tables:
        assert_frame_equal(pl.read_parquet(left / name), pl.read_parquet(right / name), check_exact=True)


def test_packing_and_unpacking_a_folder_loses_nothing(tmp_path: Path) -> None:
    folders = {name: run_folder(tmp_path / name, number) for name, number in (("a · ε 0.2", 0.1), ("b", 1 / 3))}
    pack({name: read_run(folder, history=True) for name, folder in folders.items()}, tmp_path / "packed")
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {FACTS, *TABLES}
    unpacked = unpack(tmp_path / "packed")
    assert list(unpacked) == list(folders)
    for name, run in unpacked.items():
        write_run(run, tmp_path / "again" / name)
        assert_same(folders[name], tmp_path / "again" / name)


def test_runs_with_other_columns_or_without_a_table_keep_theirs(tmp_path: Path) -> None:
    older, newer = run_folder(tmp_path / "older", 0.1), run_folder(tmp_path / "newer", 0.2, extra=True)
    pack({"older": read_run(older), "newer": read_run(newer, history=True)}, tmp_path / "packed")
    for name, run in unpack(tmp_path / "packed").items():
        write_run(run, tmp_path / "again" / name)
    assert_same(older, tmp_path / "again" / "older", TABLES[:2])
    assert_same(newer, tmp_path / "again" / "newer")


def test_what_was_packed_before_is_replaced_and_notes_stay(tmp_path: Path) -> None:
    run = read_run(run_folder(tmp_path / "run", 0.1), history=True)
    pack({"a": run, "b": run}, tmp_path / "packed")
    (tmp_path / "packed" / "note.md").write_text("Read this.")
    pack({"b": RunRecord(run.case, run.environment, run.verdict, {"scores": run.table("scores")})}, tmp_path / "packed")
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {FACTS, "scores.parquet", "note.md"}
    assert list(unpack(tmp_path / "packed")) == ["b"]
    with pytest.raises(InputError, match="was packed without its history"):
        unpack(tmp_path / "packed")["b"].table("history")
    pack({}, tmp_path / "packed")
    assert unpack(tmp_path / "packed") == {}


def test_where_nothing_was_packed_there_are_no_runs(tmp_path: Path) -> None:
    assert unpack(tmp_path) == unpack(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("name", [FACTS, "scores.parquet", "poisons.parquet"])
@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"columns": {}, "runs": {"a": {}}}'])
def test_what_is_damaged_is_named(name: str, content: bytes | None, tmp_path: Path) -> None:
    pack({"a": read_run(run_folder(tmp_path / "run", 0.1))}, tmp_path / "packed")
    if content is None:
        (tmp_path / "packed" / name).unlink()
    else:
        (tmp_path / "packed" / name).write_bytes(content)
    with pytest.raises(InputError, match=r"a file of .*packed is missing or damaged; restore it"):
        unpack(tmp_path / "packed")


def test_a_run_that_is_damaged_is_named(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", 0.1)
    for name in (*FILES[1:], "scores.parquet"):
        broken = tmp_path / name / "run"
        shutil.copytree(folder, broken)
        (broken / name).write_text("{")
        with pytest.raises(InputError, match=r"a file of .*run is missing or damaged; run the audit again"):
            read_run(broken)


@pytest.mark.parametrize("study", ["evidence", *(f"kdd21/{part}" for part in ("table1", "table2", "full", "figure5"))])
def test_committed_runs_are_of_the_cases_beside_them(study: str) -> None:
    runs = unpack(Path(__file__).resolve().parents[2] / "results" / study)
    assert runs
    for run in runs.values():
        case = yaml.safe_load(run.case)
        assert case["encircle_run"] == run.environment["run_id"]
        assert run.table("scores")["target"].n_unique() == run.verdict["targets"] == len(run.environment["targets"])
        assert json.dumps(run.verdict)
