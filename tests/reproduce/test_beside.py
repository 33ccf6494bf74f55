"""What stands beside a table's scores equals what its files say, read row by row."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import mean

import pytest

from encircle.reproduce.beside import NOTE, PER_CLASS, accuracy_by_class, measures, settings_of_cells
from encircle.reproduce.page import page
from encircle.reproduce.results import CellResult, read_cells

RESULTS = Path(__file__).resolve().parents[2] / "results" / "kdd21"


def entries(table: str, first: str) -> list[str]:
    [row] = [line for line in table.splitlines() if line.startswith(f"| {first} |")]
    return [entry.strip() for entry in row.strip("|").split("|")][1:]


def rows(cell: CellResult, arm: str) -> list[dict[str, float]]:
    return [
        row for row in cell.table("scores").to_dicts() if row["arm"] == arm and row["seed"] < cell.verdict["victims"]
    ]


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_measures_are_means_over_targets_and_victims(name: str) -> None:
    cells = read_cells(RESULTS / name)
    table = measures(cells)
    for column, cell in enumerate(cells.values()):
        cosines = [mean(row["cosine"] for row in rows(cell, arm)) for arm in ("clean", "imf")]
        assert entries(table, "cosine, clean → IMF")[column] == f"{cosines[0]:.2f} → {cosines[1]:.2f}"
        poison = [row for row in cell.table("poisons").to_dicts() if row["arm"] == "imf"]
        shares = sorted({f"{100 * row['share_of_class']:.0f}" for row in poison}, key=float)
        assert entries(table, PER_CLASS)[column] == " to ".join(dict.fromkeys((shares[0], shares[-1])))
        quietest, loudest = (f"{one(row['psnr'] for row in poison):.1f}" for one in (min, max))
        assert entries(table, "PSNR")[column] == f"{quietest} to {loudest} dB"


def test_accuracy_by_class_is_a_difference_of_means() -> None:
    cells = read_cells(RESULTS / "table2")
    table = accuracy_by_class(cells)
    assert table is not None
    for name, cell in cells.items():
        for label, title in enumerate(("no fracture", "fracture")):
            chosen = {target["row"] for target in cell.environment["targets"] if target["label"] == label}
            accuracy = {
                arm: mean(row["accuracy"] for row in rows(cell, arm) if row["target"] in chosen)
                for arm in ("clean", "base", "noise", "imf")
            }
            wanted = [f"{100 * (accuracy[arm] - accuracy['clean']):+.1f}" for arm in ("base", "noise", "imf")]
            assert f"| {name[10:].upper()} | {title} | {len(chosen)} |" in table
            assert entries(table, f"{name[10:].upper()} | {title}")[-3:] == wanted
    assert accuracy_by_class(read_cells(RESULTS / "table1")) is None  # ten breeds


def test_settings_are_told_once_where_they_are_the_same() -> None:
    assert settings_of_cells(read_cells(RESULTS / "table1")).count("surrogates") == 1
    told = settings_of_cells(read_cells(RESULTS / "table2"))
    assert "CAM: victims from shared weights" in told
    assert "GRAD: victims from scratch" in told


def test_a_note_stands_under_its_table(tmp_path: Path) -> None:
    shutil.copytree(RESULTS / "table2", tmp_path / "table2")
    (tmp_path / "table2" / NOTE).write_text("Read this.\n")
    text = page(tmp_path)
    assert text.index("## Table 2") < text.index("\n\nRead this.\n\n") < text.index("| **IMF**, paper")
