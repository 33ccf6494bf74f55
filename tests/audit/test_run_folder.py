"""Names of run folders: for people, and short enough for a file system and for what is written beside them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from encircle.audit import Audit
from encircle.audit.identity import run_folder, run_identity

from .tiny_cases import TINY, case_of


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("breast-cancer", "breast-cancer-grad-imf-"),
        ("My table, 2nd edition", "my-table-2nd-edition-grad-imf-"),
        ("***", "unnamed-grad-imf-"),
        ("x" * 190, "x" * 190 + "-grad-imf-"),
        ("x" * 1000, "x" * 207 + "-"),
        ("漢" * 300, "漢" * 69 + "-"),
    ],
    ids=["short", "words", "none", "just", "long", "wide"],
)
def test_names_are_cut_only_where_they_are_too_long(
    name: str, beginning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit.from_case(case_of(TINY))
    monkeypatch.setattr(audit, "data", dataclasses.replace(audit.data, name=name))
    folder = run_folder(audit, tmp_path, "fingerprint")
    assert folder == tmp_path / f"{beginning}{run_identity(audit, 'fingerprint')[:12]}"
    assert len(folder.name.encode()) <= 220
    folder.mkdir()
    (tmp_path / f".partial-{2**22}-old-{folder.name}").mkdir()
