"""Bases by retraining: what bends the explanation through whole trainings is taken more often, in place of what does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..training.frozen import frozen_features_of, frozen_samples
from .base import Problem
from .objective import Objective
from .parameter_vectors import unit_scaled
from .through_training import slopes_at_the_end

ROLE = "metagradient"
"""What its models are trained as: seeds of their own, the same for an attack and its controls, which must find the same bases."""

ROUNDS, TRAININGS, PART = 6, 10, 0.25
"""How often bases are exchanged, by how many trainings each time, and what part of them; fixed, as the controls know no attack's settings."""

LABEL_WEIGHT, HINGE = 0.1, 0.1
"""Bases that cost the target's label are no good: L_adv has the label term that attacks have by default."""


@final
@dataclass(frozen=True)
class _Found:
    """Bases, how far models that were trained on them are from the desired map, and what each base adds to that."""

    upper: float
    places: Int[Tensor, "p"]
    slopes: Float[Tensor, "p"]


def exchanged(
    problem: Problem, inputs: Float[Tensor, "p *shape"], labels: Int[Tensor, "p"], pools: Sequence[Int[Tensor, "_"]]
) -> Int[Tensor, "p"]:
    """Which of some bases stands in each one's place, after those that bend the explanation have taken the places of those that do not.

    In each round models are trained from fresh seeds on the clean set and the bases as they are, unperturbed, and L_adv is differentiated through their last
    steps in what each base's loss counts (metagradients: Engstrom et al., 2025; bilevel choice of samples: Borsos et al., NeurIPS 2020). The part whose
    further weight would lower L_adv least gives way to copies of the part that would lower it most. A round that made it worse is taken back, and the next
    one is half as bold.

    Args:
        problem: what is attacked.
        inputs: the bases to begin with.
        labels: theirs.
        pools: places that may be exchanged among each other; a place in none of them stays.
    """
    ensemble = problem.ensemble(1, True)
    trunk, frozen = ensemble.learners[0].model, ensemble.recipe.shared_stages
    clean = problem.frozen_features or frozen_samples(trunk, problem.clean, frozen)
    given = (problem.explainer, problem.target, problem.label, problem.desired)
    objective = Objective(*given, "cosine", LABEL_WEIGHT, HINGE)
    seen = frozen_features_of(trunk, inputs, frozen)

    def measured(places: Tensor, first: int) -> _Found:
        frozen_features = seen[places]
        mixed = clean.with_poison(frozen_features, labels[places], torch.full_like(places, -1))
        seeds = range(first, first + TRAININGS)
        slopes, notes = slopes_at_the_end(ensemble, objective, frozen_features, mixed, ROLE, seeds, of="weights")
        upper = sum(note["upper"] for note in notes) / TRAININGS
        return _Found(upper, places, unit_scaled(slopes).sum(dim=0).cpu())

    best, part = measured(torch.arange(len(inputs)), 0), PART
    for round_ in range(1, ROUNDS + 1):
        places = best.places.clone()
        for pool in pools:
            order = pool[best.slopes[pool].argsort(stable=True)]
            many = min(int(part * len(order)), len(order) // 2)
            places[order[len(order) - many :]] = best.places[order[:many]]
        found = measured(places, round_ * TRAININGS)
        if found.upper < best.upper:
            best = found
        else:
            part /= 2
    return best.places
