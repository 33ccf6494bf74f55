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
from ..training.derivatives import gauss_newton, mixed_product
from .bases import OtherShare
from .curvature import ratio, solved
from .parameter_vectors import inner, times, unit_scale
from .surrogate import Iteration, SurrogateAttack

POISONED = 16
"""Poison samples, evenly spaced, that stand for all of it in an iteration's curvature: it is a small part of the training set."""


@final
@dataclass(frozen=True, config=CONFIGURED)
class Influence(SurrogateAttack):
    """IMF with the lower level solved by implicit differentiation instead of one step.

    `δ = ∇_X ⟨∇_θ L_train(X_p; θ), v⟩` with `v = (C + damping · I)⁻¹ · ∇_θ L_adv` (Koh & Liang, ICML 2017; Lorraine et al., AISTATS 2020). IMF looks
    one training step ahead and takes `∇_θ L_adv` itself for v. Training to the end goes far where the loss is flat and hardly moves where it is steep.
    v accounts for this by C, the curvature of the loss over the clean mini-batch and some of the poison (its Gauss-Newton matrix, weighted as in the
    whole training set). The larger the damping, the nearer to IMF. v is solved for by a few rounds of conjugate gradients an iteration, which begin
    where the last iteration's ended.

    Args:
        other_share: share of samples of other classes among the bases, in [0, 1]; each keeps its own label. The default is above 0, as that bends the
            explanation further (docs/choices.md). `"balanced"`: as many of each class as the clean set has.
        damping: added to the curvature of the mean training loss, above 0. It stands for weight decay, noise and an end to training.
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
        ihvp = solved(
            self._curvature(iteration, model, members),
            right,
            self._last_solution(iteration, model, members, right),
            self.damping,
            self.rounds,
            members,
        )
        self._remember(iteration, model, members, ihvp)
        rows, classes = iteration.repeated(members)
        delta = mixed_product(model, rows, classes, times(scale, ihvp), frozen, product)
        sizes = inner(ihvp, ihvp, members) * inner(right, right, members)
        cosines = ratio(inner(ihvp, right, members), sizes.sqrt())
        return iteration.class_weighted(delta, members), [{"ihvp_cosine": cosine} for cosine in cosines.tolist()]

    def _curvature(
        self, iteration: Iteration, model: nn.Module, members: int
    ) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """C of each member, of the mean loss over the clean mini-batch and some of the poison."""
        recipe, frozen_features = iteration.ensemble.recipe, iteration.frozen_features
        every = -(-len(frozen_features) // POISONED)
        spaced = torch.arange(0, len(frozen_features), every, device=frozen_features.device)
        sample, labels, counts = iteration.training_sample(frozen_features[spaced], iteration.labels[spaced])
        shares, class_weights = counts / len(counts), recipe.weights_of(labels)
        weights = shares if class_weights is None else shares * class_weights.to(shares)
        rows = sample.repeat(members, *[1] * (sample.dim() - 1))
        return gauss_newton(model, rows, weights.repeat(members), recipe.shared_stages)

    def _last_solution(
        self, iteration: Iteration, model: nn.Module, members: int, like: Sequence[Tensor]
    ) -> list[Tensor]:
        """Where the last iteration ended; zero for surrogates that have just begun."""
        zero = [torch.zeros_like(part.reshape(members, -1)[0]) for part in like]
        solutions = [iteration.memory.get(learner, zero) for learner in iteration.group(model, members)]
        by_parameter = zip(*solutions, strict=True)
        return [torch.stack(rows).reshape(part.shape) for part, rows in zip(like, by_parameter, strict=True)]

    def _remember(self, iteration: Iteration, model: nn.Module, members: int, solution: Sequence[Tensor]) -> None:
        for gone in [learner for learner in iteration.memory if learner not in iteration.ensemble.learners]:
            del iteration.memory[gone]
        for index, learner in enumerate(iteration.group(model, members)):
            iteration.memory[learner] = [part.reshape(members, -1)[index] for part in solution]
