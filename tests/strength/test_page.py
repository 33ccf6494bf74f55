"""The page about strength is made from what was kept alone, and says what is undefined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from encircle.core import InputError
from encircle.strength.page import page

NOTHING = {"mean": None, "low": None, "high": None}


def row(name: str, phase: str, **changes: Any) -> dict[str, Any]:
    both = {"mean": 0.25, "low": 0.1, "high": 0.4}
    return {
        "name": name,
        "phase": phase,
        "attack": {},
        "gain": both,
        "shift": both,
        "jaccard_clean": {"mean": 0.1, "low": None, "high": None},
        "jaccard_attack": {"mean": 0.35, "low": None, "high": None},
        "l1_clean": {"mean": 0.5, "low": None, "high": None},
        "l1_attack": {"mean": 0.4, "low": None, "high": None},
        "label_kept": 1.0,
        "accuracy_change": {"mean": -0.012, "low": None, "high": None},
        "targets": 6,
        "victims": 2,
        **changes,
    }


def test_every_phase_has_its_table(tmp_path: Path) -> None:
    rows = [row("as given", "choice"), row("momentum", "choice"), row("as given", "report")]
    (tmp_path / "digits.json").write_text(json.dumps({"title": "Digits", "chosen": "momentum", "rows": rows}))
    text = page(tmp_path)
    assert "## Digits" in text
    assert "6 targets x 2 victims an attack. Best where settings are chosen: **momentum**." in text
    assert "**One choice at a time**" in text
    assert "**What helped, together**" not in text
    expected = "| momentum | +0.25 [+0.10, +0.40] | +0.25 [+0.10, +0.40] | 0.10 → 0.35 | 0.50 → 0.40 | 100% | -1.2 |"
    assert expected in text
    assert page(tmp_path) == text


@pytest.mark.parametrize("key", ["gain", "shift", "jaccard_attack", "l1_attack", "accuracy_change"])
def test_what_is_undefined_says_so(key: str, tmp_path: Path) -> None:
    rows = [row("as given", "choice", **{key: NOTHING})]
    (tmp_path / "a.json").write_text(json.dumps({"title": "A", "chosen": "as given", "rows": rows}))
    assert "undefined" in page(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"title": "A", "chosen": "b", "rows": [{}]}', '{"title": "A", "chosen": "b", "rows": []}']
)
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text(content)
    with pytest.raises(InputError, match=r"broken\.json is damaged"):
        page(tmp_path)
