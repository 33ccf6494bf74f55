"""WM, the paper's baseline (§5.2.4): the target blended with samples whose explanation is near the desired one."""

from __future__ import annotations

from typing import ClassVar, Literal, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from ..core import CONFIGURED
from ..threat import Budget
from .base import Attack, Bases, Problem, Watch
from .bases import base_inputs
from .objective import distance


@torch.no_grad()
def _blends(problem: Problem, count: int, weight: float, nearest: int) -> tuple[Tensor, Bases]:
    """Blends of the target with the `nearest` training samples of any class: those whose maps for class c are nearest to G."""
    device = problem.target.device
    totals = []
    for rows in torch.arange(len(problem.clean)).split(256):
        inputs = problem.clean.batch(rows).to(device)
        labels = torch.full((len(rows),), problem.label, device=device)
        maps = torch.stack([problem.explainer.attribute(model, inputs, labels) for model in problem.references]).mean(
            dim=0
        )
        desired = problem.desired.values.to(maps)
        mask = None if problem.desired.mask is None else problem.desired.mask.to(device)
        totals.append(distance(maps, desired, mask, "minmax").cpu())
    chosen = torch.cat(totals).argsort(stable=True)[:nearest]
    rows = chosen[torch.arange(count) % len(chosen)]
    from_target = torch.full((count,), -1)
    target = base_inputs(problem.clean, problem.target, problem.legal, from_target)
    samples = weight * target + (1 - weight) * problem.clean.batch(rows)
    return samples, Bases(from_target, target, torch.full((count,), problem.label))


@final
@dataclass(frozen=True, config=CONFIGURED)
class Watermark(Attack):
    """WM as the paper has it: not bounded by epsilon.

    Args:
        weight: of the target in the blend (the paper gives none).
        nearest: how many samples are blended with; reused in turn when there is more poison (paper: 10).
    """

    weight: float = Field(default=0.5, ge=0, le=1)
    nearest: int = Field(default=10, ge=1)
    kind: Literal["watermark"] = Field(default="watermark", kw_only=True)
    title = "WM (unbounded)"
    about = (
        "The paper's baseline (WM): the target blended into samples that already have the desired explanation. Visible to the eye and not "
        "bounded by the budget."
    )
    bounded: ClassVar[bool] = False

    def _craft(
        self, problem: Problem, budget: Budget, count: int, random: torch.Generator, watch: Watch
    ) -> tuple[Tensor, Bases]:
        return _blends(problem, count, self.weight, self.nearest)


@final
@dataclass(frozen=True, config=CONFIGURED)
class ProjectedWatermark(Attack):
    """WM brought inside the epsilon-ball around the target, as every other attack must be.

    Args:
        weight: of the target in the blend.
        nearest: how many samples are blended with.
    """

    weight: float = Field(default=0.5, ge=0, le=1)
    nearest: int = Field(default=10, ge=1)
    kind: Literal["watermark-projected"] = Field(default="watermark-projected", kw_only=True)
    title = "WM (projected)"
    about = "The same blend, pulled back until every value is within the budget around the target."

    def _craft(
        self, problem: Problem, budget: Budget, count: int, random: torch.Generator, watch: Watch
    ) -> tuple[Tensor, Bases]:
        return _blends(problem, count, self.weight, self.nearest)
