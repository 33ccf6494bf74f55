"""Gradient matching: the poison's training gradient is turned towards the direction that bends the explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED
from ..training.derivatives import loss_of, mixed_product
from ..training.frozen import trainable, trainable_forward
from .parameter_vectors import inner, plus, times, unit_scale
from .surrogate import Iteration, SurrogateAttack


def towards(
    poison_gradient: Sequence[Tensor], attack_gradient: Sequence[Tensor], members: int
) -> tuple[list[Tensor], Float[Tensor, "members"]]:
    """The cosine of p = ∇_θ L_train and a = ∇_θ L_adv, and its gradient in p: (a/‖a‖ − cos · p/‖p‖) / ‖p‖.

    Args:
        poison_gradient: p, for each trainable parameter.
        attack_gradient: a, likewise.
        members: number of models, whose parameters lie one after another along the first dimension. Each has a cosine of its own.

    Returns:
        The gradient for each parameter, and the cosines.
    """
    (poison, scale), (attack, _) = unit_scale(poison_gradient, members), unit_scale(attack_gradient, members)
    # Scaled vectors have a norm of at least 1, unless they are zero.
    poison_norm, attack_norm = (inner(vector, vector, members).sqrt().clamp(min=1) for vector in (poison, attack))
    cosine = inner(poison, attack, members) / (poison_norm * attack_norm)
    along, across = 1 / (poison_norm * attack_norm * scale), cosine / (poison_norm**2 * scale)
    return plus(times(along, attack), times(-across, poison)), cosine


@final
@dataclass(frozen=True, config=CONFIGURED)
class GradientMatching(SurrogateAttack):
    """Poison whose training gradient points where the explanation is bent, with IMF's surrogates.

    IMF ascends the inner product of the two gradients. A few samples with large gradients dominate it, and so does a model with large gradients. This
    attack ascends their cosine, for each model by itself (Geiping et al., *Witches' Brew*, ICLR 2021).
    """

    kind: Literal["matching"] = Field(default="matching", kw_only=True)
    title = "gradient matching"
    about = "Poison whose pull on the model is turned into the direction that bends the explanation, crafted like the paper's."

    def _shares(
        self, iteration: Iteration, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *features"], list[dict[str, float]]]:
        recipe = iteration.ensemble.recipe
        rows, classes = iteration.repeated(members)
        frozen, weights = recipe.shared_stages, recipe.weights_of(classes)
        loss = loss_of(trainable_forward(model, rows, frozen), classes, weights)
        poison_gradient = torch.autograd.grad(loss, trainable(model), materialize_grads=True)
        direction, cosines = towards(poison_gradient, attack_gradient, members)
        delta = mixed_product(model, rows, classes, direction, frozen, iteration.ensemble.path.product)
        return iteration.class_weighted(delta, members), [{"alignment": cosine} for cosine in cosines.tolist()]
