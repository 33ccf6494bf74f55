"""Verdicts on made-up scores where the right answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from encircle.run_folder import SCORE_COLUMNS
from encircle.scoring import Interval
from encircle.scoring.verdicts import Evidence, decide, judge

TITLES = {"clean": "no poison", "imf": "IMF"}


def scores(
    shift: float,
    *,
    spread: float = 0.01,
    label_share: float = 1.0,
    targets: int = 12,
    victims: int = 3,
    between: float = 0.0,
) -> pl.DataFrame:
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for target in range(targets):
        own = shift + between * random.standard_normal()
        for arm, seeds in (("clean", 2 * victims), ("imf", victims)):
            for seed in range(seeds):
                moved = own if arm == "imf" else 0.0
                value = 0.3 + moved + spread * random.standard_normal()
                keeps = arm == "clean" or random.random() < label_share
                rows.append(
                    {"target": target, "arm": arm, "seed": seed, "jaccard": value, "l1": 1 - value}
                    | {"label_kept": bool(keeps), "accuracy": 0.9, "drift": 0.0}
                )
    return pl.DataFrame([{name: row.get(name) for name in SCORE_COLUMNS} for row in rows], schema=SCORE_COLUMNS)


def verdict(frame: pl.DataFrame, **settings: Any) -> dict[str, Any]:
    defaults = {"victims": 3, "accuracy_rows": 600, "threshold": 0.1, "label_threshold": 0.9, "minimum_targets": 5}
    return judge(frame, attack="imf", titles=TITLES, **{**defaults, **settings})


@pytest.mark.parametrize(
    ("frame", "expected", "word"),
    [
        (scores(0.3), "FAIL", "can be bent"),
        (scores(0.3, label_share=0.5), "WARN", "not a silent one"),
        (scores(0.05), "WARN", "small shift"),
        (scores(0.0), "PASS", "would have been seen"),
        (scores(-0.3), "WARN", "away from the attacker's map"),
        (scores(0.0, spread=0.0), "WARN", "every score was the same"),
        (scores(0.0, spread=0.5), "WARN", "Inconclusive"),
        (scores(-0.25, between=0.6), "WARN", "Inconclusive"),
        (scores(0.3, targets=3), "WARN", "demonstration"),
    ],
)
def test_the_verdict_follows_the_rules(frame: pl.DataFrame, expected: str, word: str) -> None:
    summary = verdict(frame)
    assert summary["verdict"] == expected
    assert word in summary["sentence"]
    assert summary["advice"]


def test_the_change_is_effect_minus_null() -> None:
    frame = scores(0.3, spread=0.05)
    summary = verdict(frame)
    arm = frame.filter(pl.col("arm") == "imf")["jaccard"].mean()
    null = frame.filter((pl.col("arm") == "clean") & (pl.col("seed") >= 3))["jaccard"].mean()
    assert summary["arms"][1]["jaccard_change"]["mean"] == pytest.approx(arm - null)
    assert summary["arms"][0]["arm"] == "clean"


def test_undefined_maps_are_not_a_pass() -> None:
    frame = scores(0.0).with_columns(jaccard=pl.lit(None, dtype=pl.Float64), l1=pl.lit(None, dtype=pl.Float64))
    summary = verdict(frame)
    assert summary["verdict"] == "WARN"
    assert "constant" in summary["sentence"]
    assert summary["arms"][1]["jaccard"]["mean"] is None


def test_targets_without_a_defined_score_are_told_and_never_a_pass() -> None:
    frame = scores(0.0)
    for undefined, word in ((1, "for 1 of 12 targets"), (9, "too few for a claim")):
        lacking = pl.col("target") < undefined
        cut = frame.with_columns(jaccard=pl.when(lacking).then(None).otherwise(pl.col("jaccard")))
        summary = verdict(cut)
        assert summary["verdict"] == "WARN"
        assert word in summary["sentence"]
        assert summary["undefined"] == undefined


@pytest.mark.parametrize("arm", ["imf", "clean", "null"])
def test_a_target_without_a_score_in_one_arm_alone_is_told(arm: str) -> None:
    frame = scores(0.0)
    rows_of_arm = {"imf": pl.col("arm") == "imf"}.get(
        arm, (pl.col("arm") == "clean") & ((pl.col("seed") >= 3) if arm == "null" else (pl.col("seed") < 3))
    )
    for undefined, word in ((5, "for 5 of 12 targets"), (9, "for 9 of 12 targets, which leaves too few for a claim")):
        gone = rows_of_arm & (pl.col("target") < undefined)
        summary = verdict(frame.with_columns(jaccard=pl.when(gone).then(None).otherwise(pl.col("jaccard"))))
        assert (summary["verdict"], summary["undefined"]) == ("WARN", undefined)
        assert word in summary["sentence"]


def test_an_interval_that_holds_the_threshold_is_not_a_pass() -> None:
    settings = {
        "detectable": 0.09,
        "label_fraction": 1.0,
        "threshold": 0.1,
        "label_threshold": 0.9,
        "attack": "IMF",
        "targets": 12,
    }
    settings |= {"undefined": 0, "minimum_targets": 5, "victims": 3}
    assert decide(Evidence(effect=Interval(0.02, -0.05, 0.09), **settings)).verdict == "PASS"  # type: ignore[arg-type]
    decision = decide(Evidence(effect=Interval(0.05, -0.01, 0.12), **settings))  # type: ignore[arg-type]
    assert (decision.verdict, decision.reason) == ("WARN", "open")
    assert "does not rule out one of 0.10" in decision.sentence


def test_one_victim_makes_no_claim_however_many_targets_there_are() -> None:
    summary = verdict(scores(0.3, victims=1, targets=30), victims=1)
    assert (summary["verdict"], summary["demonstration"], summary["p_value"]) == ("WARN", True, None)
    assert summary["sentence"].startswith("A demonstration with one victim")
    assert all(arm["jaccard"]["low"] is None for arm in summary["arms"])
    assert verdict(scores(0.3, victims=2), victims=2)["verdict"] == "FAIL"


def test_as_many_victims_as_are_asked_for_are_enough() -> None:
    frame = scores(0.5, targets=18, victims=5)
    lost = (pl.col("arm") == "imf") & (pl.col("target") < 9) & (pl.col("seed") == 0)
    rows = frame.with_columns(label_kept=pl.col("label_kept") & ~lost)
    summary = verdict(rows, victims=5)
    assert (summary["verdict"], summary["label_kept"]) == (
        "FAIL",
        0.9,
    )  # the mean of the targets' means is a little less


def test_the_smallest_detectable_shift_decides_between_pass_and_warn() -> None:
    assert verdict(scores(0.0, spread=0.02))["smallest_detectable_shift"] < 0.1
    wide = verdict(scores(0.0, spread=0.5))
    assert wide["smallest_detectable_shift"] > 0.1


def test_few_held_out_rows_cannot_resolve_accuracy() -> None:
    assert verdict(scores(0.0))["accuracy_resolvable"]
    assert not verdict(scores(0.0), accuracy_rows=57)["accuracy_resolvable"]


def test_clean_arm_shows_the_drift_between_seeds() -> None:
    frame = scores(0.3, spread=0.05)
    clean = frame.filter(pl.col("arm") == "clean")
    drift = clean.filter(pl.col("seed") >= 3)["jaccard"].mean() - clean.filter(pl.col("seed") < 3)["jaccard"].mean()  # type: ignore[operator]
    assert verdict(frame)["arms"][0]["jaccard_change"]["mean"] == pytest.approx(drift)
