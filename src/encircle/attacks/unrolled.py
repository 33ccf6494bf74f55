"""Unrolled crafting: differentiate through the next steps that a model would take on the poison."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar, Literal, final

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
    """Poison that lowers L_adv of the model as it will be after a few steps, with IMF's surrogates.

    `δ = −∇_X L_adv(θ_S(X))` (Huang et al., *MetaPoison*, NeurIPS 2020). θ_S is a surrogate after S steps of the recipe's own optimiser, from its present
    momentum and at the recipe's full rate. Each step is on the clean mini-batch and the poison, weighted by their shares of the training set. One step of
    plain gradient descent moves the poison as IMF's exact form does. More and larger steps account for what the earlier steps change.

    Args:
        steps: S, how many steps are looked ahead.
    """

    steps: int = Field(default=2, ge=1, le=10)
    kind: Literal["unrolled"] = Field(default="unrolled", kw_only=True)
    title = "unrolled steps"
    uses_attack_gradient: ClassVar[bool] = False
    about = (
        "Poison that is moved by what it does to the explanation a few training steps later, crafted like the paper's."
    )

    def _shares(
        self, iteration: Iteration, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *features"], list[dict[str, float]]]:
        learners = iteration.group(model, members)
        return torch.stack([self._delta(iteration, learner) for learner in learners]), [{} for _ in learners]

    def _delta(self, iteration: Iteration, learner: Learner) -> Float[Tensor, "p *features"]:
        leaf = iteration.frozen_features.detach().requires_grad_()
        frozen_features, labels, counts = iteration.training_sample(leaf, iteration.labels)
        ahead = copy.copy(learner)
        # At the end of a schedule steps have no length. The poison is mirrored and shifted already.
        ahead.recipe = replace(learner.recipe, schedule="constant", augmentation=None)
        with _restored_statistics(learner.model):
            functional, parameters = differentiable_steps(ahead, [(frozen_features, labels, counts)] * self.steps)
            upper = called_with(functional, parameters, (lambda model: iteration.objective(model)[0].sum(),))
            return -torch.autograd.grad(upper, leaf)[0]


@contextmanager
def _restored_statistics(model: nn.Module) -> Iterator[None]:
    """Restore running statistics afterwards: steps ahead are not taken."""
    saved = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                if not torch.equal(buffer, value):  # those of frozen stages are part of a graph, and have not moved
                    buffer.copy_(value)
