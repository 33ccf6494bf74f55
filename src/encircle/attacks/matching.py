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
from ..training import Ensemble
from ..training.code_path import loss_of, mixed_product, trainable
from ..training.fit import after
from .base import Problem
from .surrogate import Moment, SurrogateAttack, weighed


def towards(
    poison_gradient: Sequence[Tensor], attack_gradient: Sequence[Tensor], members: int
) -> tuple[list[Tensor], Float[Tensor, "members"]]:
    """The gradient of the cosine of p = ∇_θ L_train and a = ∇_θ L_adv with respect to p, and the cosine: (a/‖a‖ − cos · p/‖p‖) / ‖p‖.

    Args:
        poison_gradient: p, for each trainable parameter.
        attack_gradient: a.
        members: of how many models the parameters are, one after another along their first dimension; each has a cosine of its own.
    """

    def inner(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
        products = ((a * b).reshape(members, -1).sum(dim=1) for a, b in zip(one, other, strict=True))
        return torch.stack(list(products)).sum(dim=0)

    # Gradients of a saturated model are as small as 1e-20, whose squares are nothing in float32: their size is taken out first.
    (poison, scale), (attack, _) = (_unit_scale(one, members) for one in (poison_gradient, attack_gradient))
    long, wide = (inner(one, one).sqrt().clamp(min=1) for one in (poison, attack))  # at least 1, unless there is none
    cosine = inner(poison, attack) / (long * wide)
    along, across = 1 / (long * wide * scale), cosine / (long**2 * scale)
    found = [_times(along, a, members) - _times(across, p, members) for p, a in zip(poison, attack, strict=True)]
    return found, cosine


def _unit_scale(gradient: Sequence[Tensor], members: int) -> tuple[list[Tensor], Tensor]:
    largest = torch.stack([one.reshape(members, -1).abs().amax(dim=1) for one in gradient]).amax(dim=0)
    largest = torch.where(largest > 0, largest, 1)
    return [_times(1 / largest, one, members) for one in gradient], largest


def _times(factor: Tensor, values: Tensor, members: int) -> Tensor:
    """Each member's values times its factor."""
    return (values.reshape(members, -1) * factor[:, None]).reshape(values.shape)


@final
@dataclass(frozen=True, config=CONFIGURED)
class GradientMatching(SurrogateAttack):
    """Poison whose training gradient points where the explanation is bent (Geiping et al., *Witches' Brew*, ICLR 2021), with IMF's surrogates.

    IMF ascends the inner product of the two gradients, which a few samples with large gradients dominate, and a model with large gradients among
    several. This ascends their cosine, for each model by itself: poison that pulls elsewhere as well is turned round.
    """

    kind: Literal["matching"] = Field(default="matching", kw_only=True)
    title = "gradient matching"

    def _surrogates(self, problem: Problem) -> Ensemble:
        return problem.ensemble(*self.ensemble)

    def _shares(
        self, moment: Moment, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *hidden"], list[dict[str, float]]]:
        hidden, recipe = moment.hidden, moment.ensemble.recipe
        rows, classes = hidden.repeat(members, *[1] * (hidden.dim() - 1)), moment.labels.repeat(members)
        frozen, weights = recipe.frozen_stages, recipe.weights_of(classes)
        loss = loss_of(after(model, rows, frozen), classes, weights)
        pulled = torch.autograd.grad(loss, trainable(model), materialize_grads=True)
        direction, cosines = towards(pulled, attack_gradient, members)
        found = mixed_product(model, rows, classes, direction, frozen, moment.ensemble.path.product)
        shares = weighed(found.reshape(members, -1, *hidden.shape[1:]), recipe, moment.labels)
        return shares, [{"alignment": one} for one in cosines.tolist()]
