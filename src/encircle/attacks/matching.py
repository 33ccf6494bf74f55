"""Gradient matching: the poison's training gradient is turned into the direction that bends the explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED
from ..training.code_path import loss_of, mixed_product, trainable
from ..training.frozen import trainable_forward
from .parameter_vectors import inner, plus, times, unit_scale
from .surrogate import Iteration, SurrogateAttack


def towards(
    poison_gradient: Sequence[Tensor], attack_gradient: Sequence[Tensor], members: int
) -> tuple[list[Tensor], Float[Tensor, "members"]]:
    """The gradient of the cosine of p = ∇_θ L_train and a = ∇_θ L_adv with respect to p, and the cosine: (a/‖a‖ − cos · p/‖p‖) / ‖p‖.

    Args:
        poison_gradient: p, for each trainable parameter.
        attack_gradient: a.
        members: of how many models the parameters are, one after another along their first dimension; each has a cosine of its own.
    """
    (poison, scale), (attack, _) = (unit_scale(one, members) for one in (poison_gradient, attack_gradient))
    long, wide = (
        inner(one, one, members).sqrt().clamp(min=1) for one in (poison, attack)
    )  # at least 1, unless there is none
    cosine = inner(poison, attack, members) / (long * wide)
    along, across = 1 / (long * wide * scale), cosine / (long**2 * scale)
    return plus(times(along, attack), times(-across, poison)), cosine


@final
@dataclass(frozen=True, config=CONFIGURED)
class GradientMatching(SurrogateAttack):
    """Poison whose training gradient points where the explanation is bent (Geiping et al., *Witches' Brew*, ICLR 2021), with IMF's surrogates.

    IMF ascends the inner product of the two gradients, which a few samples with large gradients dominate, and a model with large gradients among
    several. This ascends their cosine, for each model by itself: poison that pulls elsewhere as well is turned round.
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
        pulled = torch.autograd.grad(loss, trainable(model), materialize_grads=True)
        direction, cosines = towards(pulled, attack_gradient, members)
        found = mixed_product(model, rows, classes, direction, frozen, iteration.ensemble.path.product)
        return iteration.class_weighted(found, members), [{"alignment": one} for one in cosines.tolist()]
