"""Unrolled crafting: differentiate through the next steps that a model would take on the poison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..core import CONFIGURED
from ..training.differentiable import Held
from ..training.fit import after
from .surrogate import Moment, SurrogateAttack


@final
@dataclass(frozen=True, config=CONFIGURED)
class Unrolled(SurrogateAttack):
    """Poison that lowers L_adv of the model as it will be after a few steps (Huang et al., *MetaPoison*, NeurIPS 2020), with IMF's surrogates.

    `δ = −∇_X L_adv(θ_S(X))` with `θ_{s+1} = θ_s − rate · ∇_θ L_train(clean mini-batch and poison; θ_s)`: plain gradient descent in eval mode. One step of a
    small rate moves the poison as IMF's exact form does; larger and further steps see how the poison's effect bends on its way.

    Args:
        steps: S, how many steps are looked ahead.
        rate: of those steps, whatever the recipe's own is.
    """

    steps: int = Field(default=2, ge=1, le=10)
    rate: float = Field(default=0.05, gt=0)
    kind: Literal["unrolled"] = Field(default="unrolled", kw_only=True)
    title = "unrolled steps"

    def _shares(
        self, moment: Moment, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *hidden"], list[dict[str, float]]]:
        models = [model] if members == 1 else [learner.model for learner in moment.ensemble.learners]
        return torch.stack([self._pulled(moment, one) for one in models]), [{} for _ in models]

    def _pulled(self, moment: Moment, model: nn.Module) -> Float[Tensor, "p *hidden"]:
        recipe, held, leaf = moment.ensemble.recipe, Held(model), moment.hidden.detach().requires_grad_()
        clean = moment.clean.reshape(-1, *leaf.shape[1:]).to(leaf)
        labels = torch.cat([moment.classes, moment.labels])
        weights = recipe.weights_of(labels)
        theta = held.trainable()

        def training_loss(here: nn.Module) -> Tensor:
            losses = F.cross_entropy(
                after(here, torch.cat([clean, leaf]), recipe.shared_stages), labels, reduction="none"
            )
            return (losses if weights is None else losses * weights.to(losses)).mean()

        for _ in range(self.steps):
            loss = functional_call(held, theta, (training_loss,))
            slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True, materialize_grads=True)
            theta = {
                name: value - self.rate * slope for (name, value), slope in zip(theta.items(), slopes, strict=True)
            }
        ahead = functional_call(held, theta, (lambda here: moment.objective(here)[0].sum(),))
        return -torch.autograd.grad(ahead, leaf)[0]
