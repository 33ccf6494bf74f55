"""Bases chosen by retraining: those that bend the explanation at the end of trainings replace those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..training.frozen import frozen_features_of
from .base import Problem
from .objective import Objective
from .parameter_vectors import unit_scaled
from .through_training import slopes_at_the_end

ROLE = "metagradient"
"""Role of its models, which gives them seeds of their own. An attack and its controls share them, as both must choose the same bases."""

ROUNDS, TRAININGS, PART = 6, 10, 0.25
"""How often bases are exchanged, by how many trainings each time, and what part of them. Fixed, as the controls know no attack's settings."""

LABEL_WEIGHT, HINGE = 0.1, 0.1
"""L_adv has the label term that attacks have by default: bases must not cost the target's label."""


@final
@dataclass(frozen=True)
class _Measured:
    """Bases by index, mean L_adv of models that were trained on them, and its slopes in each base's weight."""

    upper: float
    indices: Int[Tensor, "p"]
    slopes: Float[Tensor, "p"]


def exchanged(
    problem: Problem, inputs: Float[Tensor, "p *shape"], labels: Int[Tensor, "p"], pools: Sequence[Int[Tensor, "_"]]
) -> Int[Tensor, "p"]:
    """Bases that bend the explanation, in place of those that do not.

    In each round models are trained from fresh seeds on the clean set and the unperturbed bases. L_adv is differentiated through their last steps by the
    weight of each base's loss (metagradients: Engstrom et al., 2025; bilevel choice of samples: Borsos et al., NeurIPS 2020). Copies of the part whose
    further weight would lower L_adv most replace the part whose weight would lower it least. A round that raised L_adv is undone, and the next one
    exchanges half as many.

    Args:
        problem: what is attacked.
        inputs: the bases to begin with.
        labels: of these bases.
        pools: indices that may be exchanged among each other; an index in none of them stays.

    Returns:
        For each base, the index of the base that replaces it.
    """
    ensemble = problem.ensemble(1, True)
    trunk, frozen = ensemble.learners[0].model, ensemble.recipe.shared_stages
    clean = problem.clean_features(trunk, frozen)
    objective = Objective(
        problem.explainer, problem.target, problem.label, problem.desired, "cosine", LABEL_WEIGHT, HINGE
    )
    base_features = frozen_features_of(trunk, inputs, frozen)

    def measured(indices: Tensor, first: int) -> _Measured:
        frozen_features = base_features[indices]
        mixed = clean.with_poison(frozen_features, labels[indices], torch.full_like(indices, -1))
        seeds = range(first, first + TRAININGS)
        slopes, notes = slopes_at_the_end(ensemble, objective, frozen_features, mixed, ROLE, seeds, of="weights")
        upper = sum(note["upper"] for note in notes) / TRAININGS
        return _Measured(upper, indices, unit_scaled(slopes).sum(dim=0).cpu())

    best, part = measured(torch.arange(len(inputs)), 0), PART
    for round_ in range(1, ROUNDS + 1):
        indices = best.indices.clone()
        for pool in pools:
            order = pool[best.slopes[pool].argsort(stable=True)]
            count = min(int(part * len(order)), len(order) // 2)
            indices[order[len(order) - count :]] = best.indices[order[:count]]
        candidate = measured(indices, round_ * TRAININGS)
        if candidate.upper < best.upper:
            best = candidate
        else:
            part /= 2
    return best.indices
