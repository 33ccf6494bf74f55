"""Where a run's numbers come from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from encircle.audit import environment
from encircle.audit.environment import provenance


def test_says_what_bit_for_bit_equality_depends_on() -> None:
    facts = provenance(torch.device("cpu"))
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["device"] == "cpu"
    assert facts["results_version"] >= 1
    assert "," in facts["platform"]


@pytest.mark.parametrize("changed", [False, True])
def test_the_commit_tells_of_changes(changed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
        done = subprocess.run(
            ["git", *who, "-C", str(tmp_path), *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    code = tmp_path / "encircle" / "audit" / "environment.py"
    code.parent.mkdir(parents=True)
    code.write_text("one")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    if changed:
        code.write_text("two")
    monkeypatch.setattr(environment, "__file__", str(code))
    expected = git("rev-parse", "HEAD") + (" with changes" if changed else "")
    assert provenance(torch.device("cpu"))["commit"] == expected


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert provenance(torch.device("cpu"))["commit"] is None
