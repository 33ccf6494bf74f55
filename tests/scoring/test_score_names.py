"""Every list of scores is the one list of scores."""

from typing import get_type_hints

import numpy as np
import pytest
from benchmarks.audits import SCORES as BENCHMARKED

from encircle.report.targets import ALL_SCORES
from encircle.reproduce.beside import _SCORES as BESIDE
from encircle.run_folder import SCORE_COLUMNS, ArmSummary, Estimate
from encircle.score_names import JUDGED_SCORES, MAP_SCORES, VICTIM_SCORES, Score
from encircle.scoring import score
from encircle.scoring.metrics import SCORED_AGAINST_GOAL

KEYS = [row.key for row in MAP_SCORES]
EVERY = [*KEYS, *(row.key for row in VICTIM_SCORES)]
WHICH = ["target", "arm", "seed", "victim_class"]


def test_rows_are_distinct() -> None:
    assert len(set(EVERY)) == len(EVERY)
    assert len({row.title for row in (*MAP_SCORES, *VICTIM_SCORES)}) == len(EVERY)


def test_every_row_has_a_function() -> None:
    """The box alone is no desired map: its score takes another argument."""
    assert [*SCORED_AGAINST_GOAL, "mass_box"] == KEYS
    assert list(score(np.arange(4.0), np.arange(4.0))) == KEYS


@pytest.mark.parametrize("row", [row for row in MAP_SCORES if row.key in SCORED_AGAINST_GOAL], ids=lambda row: row.key)
def test_directions_are_those_of_the_functions(row: Score) -> None:
    """The desired map itself scores at least as near as its opposite."""
    goal = np.random.default_rng(0).normal(size=(8, 8))
    function = SCORED_AGAINST_GOAL[row.key]
    same, opposite = function(goal, goal, None), function(-goal, goal, None)
    assert same < opposite if row.direction == "lower" else same > opposite


def test_run_folders_hold_every_score() -> None:
    assert list(SCORE_COLUMNS) == [*WHICH, *EVERY]
    changes = [f"{key}_change" for key in JUDGED_SCORES]
    estimates = [name for name, kind in get_type_hints(ArmSummary).items() if kind is Estimate]
    assert estimates == [*JUDGED_SCORES, *changes, "label_kept", "accuracy", "accuracy_change", "drift"]


def test_pages_name_only_scores_that_exist() -> None:
    assert [row.key for row in ALL_SCORES] == [key for key in EVERY if key != "accuracy"]
    assert set(BESIDE) <= set(KEYS)
    assert set(BENCHMARKED) <= set(EVERY)
