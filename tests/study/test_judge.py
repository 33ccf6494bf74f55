"""Cells judged among all comparisons of a study, on made-up runs where the right answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
import yaml

from encircle.run_folder import SCORE_COLUMNS
from encircle.scoring import EffectError, effect_error, holm
from encircle.scoring.verdicts import judge
from encircle.storage import write_json, write_parquet
from encircle.study.folder import _write_tables
from encircle.study.grid import Study, expand
from encircle.study.judge import Missing, answer, judge_cells
from encircle.study.junit import write_junit
from encircle.study.plan import Planned
from encircle.study.study_file import read_study_file

from ..audit.tiny_cases import TINY

TITLES = {"clean": "no poison", "noise": "random noise", "imf": "IMF"}


def scores(shift: float, *, spread: float, seed: int, targets: int = 10, victims: int = 3) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for target in range(targets):
        for arm, seeds in (("clean", 2 * victims), ("noise", victims), ("imf", victims)):
            for number in range(seeds):
                value = 0.3 + shift * (arm == "imf") + spread * random.standard_normal()
                row = {"target": target, "arm": arm, "seed": number, "jaccard": value, "l1": 1 - value}
                rows.append({**row, "label_kept": True, "accuracy": 0.9, "drift": 0.0})
    return pl.DataFrame([{name: row.get(name) for name in SCORE_COLUMNS} for row in rows], schema=SCORE_COLUMNS)


def keep_verdict(root: Path, number: int, frame: pl.DataFrame) -> None:
    settings = {"victims": 3, "accuracy_rows": 600, "threshold": 0.1, "label_threshold": 0.9, "minimum_targets": 5}
    summary = judge(frame, attack="imf", titles=TITLES, **settings)  # type: ignore[arg-type]
    write_json(root / "runs" / f"run-{number}" / "verdict.json", summary)


def made_up(root: Path, shifts: list[float], *, spread: float = 0.01, seeds: int = 1, **more: Any) -> Study:
    """A study of one budget a shift, with run folders that hold such scores."""
    grid = {"budget.fraction": [0.01 * (number + 1) for number in range(len(shifts))], "seed": list(range(seeds))}
    text = yaml.safe_dump({"title": "Made up", "case": TINY, "grid": grid}, sort_keys=False)
    study = expand(read_study_file(text, "study.yaml"), "study.yaml")
    for number, run in enumerate(study.runs):
        frame = scores(shifts[run.at[0]], spread=spread, seed=number, **more)
        keep_verdict(root, number, frame)
        write_parquet(root / "runs" / f"run-{number}" / "scores.parquet", frame)
    return study


def judged(study: Study, root: Path, gone: dict[int, str] | None = None) -> list[dict[str, Any]]:
    runs = [Planned(run, f"task-{number}", f"run-{number}") for number, run in enumerate(study.runs)]
    missing = {
        f"task-{number}": Missing(study.runs[number].case.title, why, None) for number, why in (gone or {}).items()
    }
    return judge_cells(study, runs, root, missing)


def test_verdicts_of_plain_cases(tmp_path: Path) -> None:
    study = made_up(tmp_path, [0.0, 0.05, 0.3, -0.3])
    cells = judged(study, tmp_path)
    assert [cell["verdict"] for cell in cells] == ["PASS", "WARN", "FAIL", "WARN"]
    assert "among the study's 4 comparisons" in cells[0]["sentence"]
    assert cells[2]["control"]["title"] == "random noise"
    assert not any(cell["label_lost"] for cell in cells)
    assert [cell["runs"] for cell in cells] == [
        [{"folder": f"run-{number}", "seed": 0, "verdict": verdict}]
        for number, verdict in enumerate(["PASS", "WARN", "FAIL", "WARN"])
    ]


def test_p_values_are_corrected_by_holm_and_the_detectable_shift_is_that_of_the_corrected_level(tmp_path: Path) -> None:
    study = made_up(tmp_path, [0.0, 0.02, 0.3, 0.3], spread=0.05)
    cells = judged(study, tmp_path)
    p_values = [cell["p"] for cell in cells]
    assert [cell["p_adjusted"] for cell in cells] == holm(p_values)
    rejected = sum(cell["p_adjusted"] <= 0.05 for cell in cells)
    assert rejected == 2
    for number, cell in enumerate(cells):
        frame = pl.read_parquet(tmp_path / "runs" / f"run-{number}" / "scores.parquet")
        by_target = {
            (arm, null): [
                frame.filter((pl.col("arm") == arm) & (pl.col("target") == target) & ((pl.col("seed") >= 3) == null))[
                    "jaccard"
                ].to_list()
                for target in range(10)
            ]
            for arm, null in (("imf", False), ("clean", False), ("clean", True))
        }
        error = effect_error(*by_target.values(), shared_seeds=True)
        assert error is not None
        assert cell["smallest_detectable_shift"] == pytest.approx(error.detectable(level=1 - 0.05 / 2))
        assert cell["smallest_detectable_shift"] > error.detectable()


def test_a_claim_that_chance_explains_among_many_is_none(tmp_path: Path) -> None:
    """One weak effect among many nulls: by itself its interval excludes zero, among all it is not claimed."""
    study = made_up(tmp_path, [0.16, *[0.0] * 19], spread=0.16)
    cells = judged(study, tmp_path)
    assert cells[0]["shift"]["low"] > 0
    assert cells[0]["p"] < 0.05 < cells[0]["p_adjusted"]
    assert cells[0]["verdict"] == "WARN"
    assert "may be chance" in cells[0]["sentence"]


def test_false_claims_stay_rare_among_many_nulls(tmp_path: Path) -> None:
    """200 families of 10 cells with no effect, of normal scores: at most one in ten may claim anything (0.05 nominal)."""
    random, claims = np.random.default_rng(0), 0
    for _ in range(200):
        values = []
        for _ in range(10):
            shifts = random.standard_normal(8)
            error = EffectError(float(shifts.std(ddof=1) / np.sqrt(8)), 8)
            values.append(error.p_value(float(shifts.mean())))
        claims += min(value for value in holm(values) if value is not None) <= 0.05
    assert claims <= 20


def test_a_cell_of_several_seeds_is_judged_on_all_their_targets(tmp_path: Path) -> None:
    study = made_up(tmp_path, [0.0, 0.3], seeds=3, targets=4)
    cells = judged(study, tmp_path)
    assert [cell["targets"] for cell in cells] == [12, 12]
    assert not any(cell["demonstration"] for cell in cells)
    assert [cell["verdict"] for cell in cells] == ["PASS", "FAIL"]
    assert [len(cell["runs"]) for cell in cells] == [3, 3]
    pooled = pl.concat([pl.read_parquet(tmp_path / "runs" / f"run-{run}" / "scores.parquet") for run in (3, 4, 5)])
    mine = pooled.filter(pl.col("arm") == "imf")["jaccard"].mean()
    assert cells[1]["jaccard_attack"]["mean"] == pytest.approx(mine)
    assert judged(study, tmp_path) == cells  # from what was kept


def test_what_did_not_finish_is_an_error_and_stays_a_comparison(tmp_path: Path) -> None:
    study = made_up(tmp_path, [0.0, 0.3, 0.3])
    cells = judged(study, tmp_path, gone={1: "the disk is full."})
    assert [cell["verdict"] for cell in cells] == ["PASS", "ERROR", "FAIL"]
    assert "the disk is full" in cells[1]["sentence"]
    assert cells[1]["missing"] == [{"title": "Made up · 2% · 0", "why": "the disk is full.", "log": None}]
    assert "3 comparisons" in cells[0]["sentence"]
    verdict, sentence = answer(study, cells)
    assert verdict == "FAIL"
    assert "1 of 3 cells did not finish" in sentence


def test_an_axis_named_like_a_result_keeps_its_labels(tmp_path: Path) -> None:
    text = yaml.safe_dump({"title": "Made up", "case": TINY, "grid": {"victims": [3, 4], "explainer.kind": ["grad"]}})
    study = expand(read_study_file(text, "study.yaml"), "study.yaml")
    for number in range(2):
        frame = scores(0.3, spread=0.01, seed=number)
        keep_verdict(tmp_path, number, frame)
    _write_tables(tmp_path, study, judged(study, tmp_path), [], [])
    table = pl.read_parquet(tmp_path / "cells.parquet")
    assert table["axis victims"].to_list() == ["3", "4"]
    assert table["victims"].to_list() == [3, 3]
    assert table["explainer.kind"].to_list() == ["GRAD", "GRAD"]


def test_no_claim_depends_on_where_a_study_was_stopped(tmp_path: Path) -> None:
    study = made_up(tmp_path, [0.12, *[0.0] * 11])
    whole = judged(study, tmp_path)
    first = judged(study, tmp_path, gone=dict.fromkeys(range(1, 12), "it is not done yet."))
    assert whole[0]["p"] == first[0]["p"]
    assert whole[0]["p_adjusted"] == first[0]["p_adjusted"] == pytest.approx(12 * whole[0]["p"])


@pytest.mark.parametrize(
    ("shifts", "gone", "expected", "words"),
    [
        ([0.3, 0.3], {}, "FAIL", "bent in all 2 cells (the least that was enough: 1%"),
        ([0.0, 0.3], {}, "FAIL", "the least that was enough: 2%"),
        ([0.0, 0.0], {}, "PASS", "No shift was found in all 2 cells"),
        ([0.0, 0.05], {}, "WARN", "1 of 2 cells is inconclusive or small"),
        ([0.0, 0.0], {0: "it crashed."}, "ERROR", "1 of 2 cells did not finish"),
        ([0.3], {}, "FAIL", "the one cell of the study"),
    ],
)
def test_the_answer_to_the_whole_study(
    shifts: list[float], gone: dict[int, str], expected: str, words: str, tmp_path: Path
) -> None:
    study = made_up(tmp_path, shifts)
    verdict, sentence = answer(study, judged(study, tmp_path, gone))
    assert verdict == expected
    assert words in sentence


def test_demonstrations_claim_nothing_and_count_for_nothing(tmp_path: Path) -> None:
    study = made_up(tmp_path, [0.3, 0.3], targets=3)
    cells = judged(study, tmp_path)
    assert [cell["verdict"] for cell in cells] == ["WARN", "WARN"]
    assert [cell["p"] for cell in cells] == [None, None]
    assert "demonstration" in cells[0]["sentence"]


def test_junit_is_xml_whatever_the_names(tmp_path: Path) -> None:
    verdicts = ["PASS", "WARN", "FAIL", "ERROR"]
    cells = [{"title": f"<b>\x00&{verdict}\ud800", "verdict": verdict, "sentence": "a < b\x07"} for verdict in verdicts]
    write_junit(tmp_path / "junit.xml", 'A "study" <script>', cells)
    [suite] = ET.parse(tmp_path / "junit.xml").getroot()
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        **{"tests": "4", "failures": "1"},
        **{"errors": "1", "skipped": "1"},
    }
    assert suite.get("name") == 'A "study" <script>'
    assert [[child.tag for child in test] for test in suite] == [["system-out"], ["skipped"], ["failure"], ["error"]]
    assert [test.get("name") for test in suite] == [f"<b>\ufffd&{verdict}\ufffd" for verdict in verdicts]
