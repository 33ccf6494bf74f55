"""The page's tables of limits: fractions of the ceiling where they mean something, and a word about cells that fall short."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from encircle.reproduce.gates import room_of, unbent_models
from encircle.reproduce.packed import RunRecord, pack
from encircle.reproduce.page import page
from encircle.reproduce.results import CellResult, read_cells
from encircle.reproduce.tables import changes_of

HERE = Path(__file__).resolve().parents[2]


def cell(name: str, folder: Path, **changes: Any) -> CellResult:
    """A committed cell of Table 2 with some of its numbers changed, packed where the page looks for it: as a ceiling, if that is among the changes."""
    committed = read_cells(HERE / "results" / "kdd21" / "table2")[name]
    verdict, environment = copy.deepcopy(dict(committed.verdict)), copy.deepcopy(dict(committed.environment))
    for arm in verdict["arms"]:
        arm.update(changes.get(arm["arm"], {}))
    environment["targets"] = environment["targets"][: changes.get("targets")]
    run = replace(committed.run, verdict=verdict, environment=environment)
    if "ceiling" in changes:
        verdict["arms"].append({**copy.deepcopy(verdict["arms"][0]), "arm": "ceiling", **changes["ceiling"]})
        pack({f"{name} · ceiling": replace(run, tables={})}, folder / "limits")
    else:
        pack({name: run}, folder / "table2")
    return CellResult(name, run)


def interval(mean: float | None) -> dict[str, float | None]:
    return {"mean": mean, "low": None if mean is None else mean - 0.05, "high": None if mean is None else mean + 0.05}


@pytest.mark.parametrize(
    ("attack", "ceiling", "targets", "shown"),
    [
        (0.2, 0.5, None, "40%"),
        (0.2, 0.09, None, "undefined"),
        (0.2, None, None, "undefined"),
        (None, 0.5, None, "undefined"),
        (0.2, 0.5, 9, "other targets"),
    ],
)
def test_a_share_of_the_way_is_of_the_same_targets_and_of_a_way_that_is_long_enough(
    attack: float | None, ceiling: float | None, targets: int | None, shown: str, tmp_path: Path
) -> None:
    cell("fractures-grad", tmp_path, imf={"jaccard_change": interval(attack)})
    change = {"jaccard_change": interval(ceiling)}
    cell("fractures-grad", tmp_path, ceiling=change, targets=targets)
    [row] = [line for line in page(tmp_path).splitlines() if "→" in line and line.startswith("| Fractures, GRAD |")]
    assert row.endswith(f"| {shown} |")


@pytest.mark.parametrize(
    ("attack", "ceiling", "words"),
    [
        (
            0.02,
            0.6,
            "falls short in Jaccard: bent directly, models change by +0.60 [+0.55, +0.65], with IMF's poison by +0.02",
        ),
        (0.02, 0.6, "leaves room that so much poison does not use"),
        (0.02, 0.03, "Bent directly it hardly goes further"),
    ],
)
def test_a_cell_that_falls_short_is_told_from_one_that_cannot_go_further(
    attack: float, ceiling: float, words: str, tmp_path: Path
) -> None:
    cell("fractures-grad", tmp_path, imf={"jaccard_change": interval(attack)})
    cell("fractures-grad", tmp_path, ceiling={"jaccard_change": interval(ceiling)})
    assert words in page(tmp_path)


def test_of_a_cell_that_moved_as_it_should_nothing_is_said(tmp_path: Path) -> None:
    moved = {"jaccard_change": interval(0.3), "jaccard": interval(0.4)}
    cell("fractures-grad", tmp_path, imf=moved)
    cell("fractures-grad", tmp_path, ceiling={"jaccard_change": interval(0.6)})
    assert "falls short in Jaccard" not in page(tmp_path)


def test_models_that_no_attempt_bent_are_counted() -> None:
    clean = [(1, 0, "clean", 0.5, 0.1), (1, 1, "clean", 0.5, 0.2), (2, 0, "clean", 0.4, 0.3)]
    bent = [(1, 0, "ceiling", 0.5, 0.1), (1, 1, "ceiling", 0.2, 0.2), (2, 0, "ceiling", 0.1, 0.9)]
    columns = ["target", "seed", "arm", "l1", "jaccard"]
    run = RunRecord("", {}, {})
    assert unbent_models(CellResult("dogs-cam", run)) is None
    scores = pl.DataFrame(clean + bent, schema=columns, orient="row")
    assert unbent_models(CellResult("dogs-cam", replace(run, tables={"scores": scores}))) == (1, 3)


def test_a_ceiling_that_most_models_did_not_reach_says_little() -> None:
    assert room_of(0.1, 0.1, (6, 10)) == "says little"
    assert room_of(0.1, 0.1, (5, 10)) == "no further"
    assert room_of(0.5, 0.1, (5, 10)) == "leaves room"
    assert room_of(0.15, 0.1, None) == "no further"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"jaccard_change": {"mean": 0.3, "low": None, "high": None}}, "cannot be told.** No interval is claimed (+0.30)"),
        ({"jaccard_change": interval(0.01)}, "not reproduced.** The explanation did not move beyond the seed null"),
        ({"jaccard_change": interval(0.3), "jaccard": interval(0.5), "accuracy_change": interval(0.1), "l1": interval(0.1)}, "reproduced.** All 5"),
        ({"jaccard_change": interval(0.3), "jaccard": interval(0.02)}, "in part.** The explanation moved (+0.30"),
        (
            {"jaccard_change": interval(0.3), "jaccard": interval(0.5), "l1": interval(0.1), "accuracy_change": {"mean": 0.0, "low": None, "high": None}},
            "It cannot be told: accuracy falls by at most 1 point",
        ),
    ],
)  # fmt: skip
def test_the_answer_tells_what_failed_from_what_cannot_be_told(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    cell("fractures-grad", tmp_path, imf=changes)
    assert said in page(tmp_path)


def test_what_is_undefined_is_said_and_stops_nothing(tmp_path: Path) -> None:
    nothing = {
        key: interval(None) for key in ("jaccard", "l1", "jaccard_change", "l1_change", "drift", "accuracy_change")
    }
    cell("fractures-grad", tmp_path, imf=nothing, clean=nothing)
    cell("fractures-grad", tmp_path, ceiling=nothing)
    assert page(tmp_path).count("undefined") >= 10


def test_what_has_other_targets_than_the_first_row_is_marked(tmp_path: Path) -> None:
    found = cell("fractures-grad", tmp_path)
    environment = {**found.environment, "targets": found.environment["targets"][:3]}
    other = replace(found, run=replace(found.run, environment=environment))
    table = changes_of({"a · x": found, "a · y": other, "a · z": found}, "heading", ("x", "y", "z"))
    assert [line.endswith("° |") for line in table.splitlines()[2:]] == [False, True, False]
