"""Scores, intervals, verdicts and poison of two small audits and a study are, to the last bit, those of an earlier version."""

from __future__ import annotations

import polars as pl
import pytest

from tests import unchanged


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    saved = (unchanged.HERE / "machine.txt").read_text(encoding="utf-8").strip()
    if saved != unchanged.machine():
        pytest.skip(f"the tables were saved with {saved}; this is {unchanged.machine()}, whose last bits may differ")
    return unchanged.make(tmp_path_factory.mktemp("unchanged"))


@pytest.mark.slow
@pytest.mark.parametrize("name", unchanged.TABLES)
def test_results_are_those_of_the_version_that_saved_them(made: dict[str, pl.DataFrame], name: str) -> None:
    saved = unchanged.load()[name]

    assert made[name].columns == saved.columns
    assert len(saved)
    assert made[name].equals(saved)
