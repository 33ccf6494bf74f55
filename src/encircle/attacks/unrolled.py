"""Unrolled crafting: differentiate through the next steps that a model would take on the poison."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED
from ..models import called_with
from ..training.differentiable import differentiable_steps
from ..training.learner import Learner
from .surrogate import Iteration, SurrogateAttack


@final
@dataclass(frozen=True, config=CONFIGURED)
class Unrolled(SurrogateAttack):
    """Poison that lowers L_adv of the model as it will be after a few steps (Huang et al., *MetaPoison*, NeurIPS 2020), with IMF's surrogates.

    `δ = −∇_X L_adv(θ_S(X))`, where θ_S is what S steps of the recipe's own optimiser make of a surrogate: from where its momentum is, at the recipe's full
    rate, on the clean mini-batch and the poison, each part weighted by its share of the training set. One step of plain gradient descent moves the poison as
    IMF's exact form does; larger and further steps see how the poison's effect bends on its way.

    Args:
        steps: S, how many steps are looked ahead.
    """

    steps: int = Field(default=2, ge=1, le=10)
    kind: Literal["unrolled"] = Field(default="unrolled", kw_only=True)
    title = "unrolled steps"
    about = (
        "Poison that is moved by what it does to the explanation a few training steps later, crafted like the paper's."
    )

    def _shares(
        self, iteration: Iteration, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *features"], list[dict[str, float]]]:
        learners = iteration.group(model, members)
        return torch.stack([self._pulled(iteration, one) for one in learners]), [{} for _ in learners]

    def _pulled(self, iteration: Iteration, learner: Learner) -> Float[Tensor, "p *features"]:
        leaf = iteration.frozen_features.detach().requires_grad_()
        frozen_features, labels, counts = iteration.training_sample(leaf, iteration.labels)
        ahead = copy.copy(learner)
        # At the end of a schedule no step would lead anywhere; and the poison is mirrored and shifted already.
        ahead.recipe = replace(learner.recipe, schedule="constant", augmentation=None)
        with _statistics_kept(learner.model):
            functional, parameters = differentiable_steps(ahead, [(frozen_features, labels, counts)] * self.steps)
            found = called_with(functional, parameters, (lambda here: iteration.objective(here)[0].sum(),))
            return -torch.autograd.grad(found, leaf)[0]


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Steps that are only looked at leave running statistics as they were."""
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                if not torch.equal(buffer, value):  # those of frozen stages are part of a graph, and have not moved
                    buffer.copy_(value)
