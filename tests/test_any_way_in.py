"""What a network cannot do is said in the same sentence in Python, by `encircle audit` and by `encircle study`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor, nn

from encircle.audit import Audit, run_audit
from encircle.cli import main
from encircle.core import InputError
from encircle.models import TwoLayerModel

from .audit.tiny_cases import TINY, case_of

SENTENCE = (
    "the network gives probabilities (each row is positive and adds up to 1); leave out its softmax, to give logits."
)


class Probabilities(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(30, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).softmax(dim=1)


@pytest.fixture(autouse=True)
def _such_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoLayerModel, "build", lambda self, shape, classes: Probabilities())


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    monkeypatch.setattr(sys, "argv", ["encircle", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_in_python(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_audit(Audit.from_case(case_of(TINY)), tmp_path)
    assert str(caught.value) == SENTENCE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_by_audit(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("case.yaml").write_text(yaml.safe_dump(TINY))
    assert SENTENCE in said(monkeypatch, capsys, "audit", "case.yaml", *more)
    assert not Path("runs").exists()


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_by_study(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump({"title": "Mine", "case": TINY}))
    assert SENTENCE in said(monkeypatch, capsys, "study", "run", "mine.yaml", *more)
    assert not list(Path().rglob("*.safetensors"))
