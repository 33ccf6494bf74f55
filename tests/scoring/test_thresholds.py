"""The numbers that decide verdicts: each explained, each used, and said nowhere else."""

import ast
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from encircle.audit import Judging
from encircle.report import pictures
from encircle.report.glossary import glossary, study_glossary
from encircle.report.pictures import wanted
from encircle.scoring import thresholds

SOURCE = Path(thresholds.__file__).resolve().parent.parent
STATEMENTS = ast.parse(Path(thresholds.__file__).read_text("utf-8")).body
NAMES = [
    node.targets[0].id for node in STATEMENTS if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
]


def test_every_threshold_is_explained() -> None:
    for node, following in pairwise(STATEMENTS):
        if isinstance(node, ast.Assign):
            assert isinstance(following, ast.Expr), ast.unparse(node)
            assert isinstance(following.value, ast.Constant), ast.unparse(node)
            assert len(str(following.value.value).split()) >= 8, f"{ast.unparse(node)}: what does it decide, and why?"


@pytest.mark.parametrize("name", NAMES)
def test_every_threshold_is_used_and_assigned_once(name: str) -> None:
    texts = {path: path.read_text("utf-8") for path in SOURCE.rglob("*.py")}
    users = [path for path, text in texts.items() if re.search(rf"\b{name}\b", text)]
    assert len(users) >= 2, f"nothing uses {name}"
    assert [path.name for path in users if re.search(rf"^{name}\b.* = ", texts[path], re.M)] == ["thresholds.py"]


def test_they_are_read_without_torch() -> None:
    code = "import sys; import encircle.scoring.thresholds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_case_leaves_out_is_as_they_say() -> None:
    assert Judging() == Judging(thresholds.BENT_EFFECT, thresholds.LABEL_KEPT, thresholds.MINIMUM_TARGETS)


def test_the_words_of_a_report_name_the_same_numbers() -> None:
    """A report is prose for people: its numbers are written out, and held to these."""
    words = " ".join(text for _, terms in (*glossary({}, {}), *study_glossary()) for _, text in terms)
    words = words.replace("\u00a0", " ")
    assert f"a {100 * thresholds.LEVEL:g} % bootstrap interval" in words
    assert f"with {100 * thresholds.POWER:g} % probability" in words
    assert f"at most {thresholds.FALSE_CLAIMS:g} " in words


def test_a_report_marks_from_where_a_score_counts() -> None:
    goal = np.linspace(0, 1, 201, dtype=np.float32)
    marked = wanted(goal, np.ones_like(goal))
    assert goal[marked].min() == thresholds.HIGHLIGHTED
    assert goal[~marked].max() < thresholds.HIGHLIGHTED
    assert pictures._HIGHLIGHTED == thresholds.HIGHLIGHTED
