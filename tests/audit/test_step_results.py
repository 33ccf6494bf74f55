"""Results of a run's steps become its tables."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from encircle.audit.step_results import StepResults
from encircle.run_folder import FORMER_COLUMNS


@pytest.mark.parametrize(("former", "name"), FORMER_COLUMNS.items())
def test_results_of_an_earlier_version_are_read_by_todays_names(tmp_path: Path, former: str, name: str) -> None:
    results = StepResults(tmp_path)
    results.write("0-history", {}, [{"target": 0, "iteration": 0, "member": 0, former: 0.5}], "history")
    results.write("1-history", {}, [{"target": 1, "iteration": 0, "member": 0, name: 0.25}], "history")

    results.assemble()

    assert pl.read_parquet(tmp_path / "history.parquet")[name].to_list() == [0.5, 0.25]
