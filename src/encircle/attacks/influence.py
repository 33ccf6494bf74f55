"""Influence: the poison goes where the end of training, not its next step, bends the explanation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED
from ..training.code_path import gauss_newton, mixed_product
from .bases import OtherShare
from .curvature import ratio, solved
from .parameter_vectors import inner, times, unit_scale
from .surrogate import Iteration, SurrogateAttack

POISONED = 16
"""Poison samples that stand for all of it in an iteration's curvature, evenly spaced: it is a small part of the training set."""


@final
@dataclass(frozen=True, config=CONFIGURED)
class Influence(SurrogateAttack):
    """IMF with the lower level solved by implicit differentiation instead of one step (Koh & Liang, ICML 2017; Lorraine et al., AISTATS 2020).

    `δ = ∇_X ⟨∇_θ L_train(X_p; θ), v⟩` with `v = (C + damping · I)⁻¹ · ∇_θ L_adv`. IMF asks where one step of training on the poison would lead, and takes
    `∇_θ L_adv` itself for v. A model that is trained to the end has gone far where its loss is flat and next to nowhere where it is steep, and v says so: C
    is the curvature of the loss over the clean mini-batch and some of the poison (its Gauss-Newton matrix, weighted as in the whole training set).
    The larger the damping, the nearer to IMF. v is solved for by a few rounds of conjugate gradients an iteration, which begin where the last one ended.

    Args:
        other_share: share of samples of other classes among the bases, each keeping its own label; more than nothing, as that bends the explanation further
            (docs/choices.md). `"balanced"`: as many of each class as the clean set has.
        damping: beside the curvature of the mean training loss; what weight decay, noise and an end to training amount to.
        rounds: of conjugate gradients, an iteration.
    """

    other_share: OtherShare = 0.25
    damping: float = Field(default=0.01, gt=0)
    rounds: int = Field(default=3, ge=1)
    kind: Literal["influence"] = Field(default="influence", kw_only=True)
    title = "influence"
    about = "Poison that is moved by what it will have done to the explanation at the end of training, crafted like the paper's."

    def _shares(
        self, iteration: Iteration, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *features"], list[dict[str, float]]]:
        frozen, product = iteration.ensemble.recipe.shared_stages, iteration.ensemble.path.product
        right, scale = unit_scale(attack_gradient, members)
        found = solved(
            self._curvature(iteration, model, members),
            right,
            self._last(iteration, model, members, right),
            self.damping,
            self.rounds,
            members,
        )
        self._remember(iteration, model, members, found)
        rows, classes = iteration.repeated(members)
        moved = mixed_product(model, rows, classes, times(scale, found), frozen, product)
        sizes = inner(found, found, members) * inner(right, right, members)
        ihvp_cosine = ratio(inner(found, right, members), sizes.sqrt())
        return iteration.class_weighted(moved, members), [{"ihvp_cosine": one} for one in ihvp_cosine.tolist()]

    def _curvature(
        self, iteration: Iteration, model: nn.Module, members: int
    ) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """C of each member, of the mean loss over the training set as far as it is at hand."""
        recipe, frozen_features = iteration.ensemble.recipe, iteration.frozen_features
        some = torch.arange(
            0, len(frozen_features), -(-len(frozen_features) // POISONED), device=frozen_features.device
        )
        seen, labels, counts = iteration.training_sample(frozen_features[some], iteration.labels[some])
        shares, given = counts / len(counts), recipe.weights_of(labels)
        weights = shares if given is None else shares * given.to(shares)
        rows = seen.repeat(members, *[1] * (seen.dim() - 1))
        return gauss_newton(model, rows, weights.repeat(members), recipe.shared_stages)

    def _last(self, iteration: Iteration, model: nn.Module, members: int, like: Sequence[Tensor]) -> list[Tensor]:
        """Where the last iteration ended, and nothing for surrogates that have just begun."""
        kept = [iteration.memory.get(learner) for learner in iteration.group(model, members)]
        parts = [
            [torch.zeros_like(part.reshape(members, -1)[0]) for part in like] if one is None else one for one in kept
        ]
        return [
            torch.stack(rows).reshape(part.shape) for part, rows in zip(like, zip(*parts, strict=True), strict=True)
        ]

    def _remember(self, iteration: Iteration, model: nn.Module, members: int, found: Sequence[Tensor]) -> None:
        kept = iteration.group(model, members)
        for learner in [one for one in iteration.memory if one not in iteration.ensemble.learners]:
            del iteration.memory[learner]
        for place, learner in enumerate(kept):
            iteration.memory[learner] = [part.reshape(members, -1)[place] for part in found]
