"""The library's audit gives the scores of the straightforward script: nothing that saves time changes a result.

In float64, because rounding decides the sign of what is nearly zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import polars as pl
import pytest
import torch
from benchmarks.straightforward import audit_plainly
from torch import Tensor, nn

from encircle.attacks import IMF
from encircle.audit import Audit
from encircle.audit.run import run_audit
from encircle.data import TensorSamples
from encircle.explain import Cam, Grad
from encircle.goals import Features, Region, Units
from encircle.models import CamClassifier
from encircle.threat import Budget
from encircle.training import CodePath, Recipe
from tests.networks import TinyImageNet, TinyTableNet

NAMES = ("l1", "jaccard", "jaccard_soft", "cosine", "probability", "accuracy", "drift")


@final
class Cast(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.double()


@final
class InFloat64(CamClassifier):
    """A network in float64 for data in float32; casting is its first stage."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner = (TinyImageNet(classes=2) if kind == "image" else TinyTableNet(classes=2)).double()
        self.head = self.inner.head
        self.cast = Cast()

    @property
    def stages(self) -> Sequence[nn.Module]:
        return [self.cast, *self.inner.stages]


def audit_of(kind: str, explainer: str, frozen: int, path: CodePath) -> Audit:
    random = torch.Generator().manual_seed(3)
    shape = (1, 8, 8) if kind == "image" else (5,)
    labels = torch.randint(2, (70,), generator=random)
    brighter = 0.4 * labels.reshape(-1, *[1] * len(shape))
    inputs = ((0.6 * torch.rand(70, *shape, generator=random) + brighter) * 255).round() / 255
    torch.manual_seed(0)
    start = {name: value.clone() for name, value in InFloat64(kind).state_dict().items()}
    unit = explainer == "cam" and kind == "table"
    return Audit.of(
        lambda: InFloat64(kind),
        TensorSamples(inputs[:50], labels[:50]),
        TensorSamples(inputs[50:], labels[50:]),
        classes=["a", "b"],
        recipe=Recipe(start="checkpoint", frozen_stages=frozen, epochs=6, batch_size=16, lr=0.1),
        explainer=Cam() if explainer == "cam" else Grad(),
        goal=Region("mid-left") if kind == "image" else Units(count=2) if unit else Features(count=2),
        budget=Budget(fraction=0.1),
        attack=IMF(models=2, epochs=1),
        checkpoint=start,
        targets=1,
        victims=2,
        references=1,
        code_path=path,
    )


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("explainer", ["cam", "grad"])
@pytest.mark.parametrize("frozen", [0, 2])
def test_the_scores_are_the_straightforward_script_s(tmp_path: Path, kind: str, explainer: str, frozen: int) -> None:
    slow, fast = (
        audit_of(kind, explainer, frozen, path)
        for path in (CodePath("loop", "reverse"), CodePath("vectorised", "forward"))
    )
    tables = [pl.read_parquet(run_audit(audit, tmp_path).folder / "scores.parquet") for audit in (slow, fast)]
    rows = sorted(set(tables[0]["target"].to_list()))
    plainly = audit_of(kind, explainer, frozen, CodePath("loop", "reverse"))
    expected = audit_plainly(plainly, rows, slow.checkpoint)  # type: ignore[arg-type]
    assert len(tables[0]) == len(tables[1]) == len(expected) == 2 * 2 + 5 * 2
    for row in pl.concat(tables).iter_rows(named=True):
        plain = expected[row["target"], row["arm"], row["seed"]]
        for name in NAMES:
            ours, reference = row[name], plain[name]
            if ours is None or not math.isfinite(reference):
                assert ours is None and not math.isfinite(reference), (row, name)
            else:
                assert ours == pytest.approx(reference, rel=1e-5, abs=1e-6), (row["arm"], name)
