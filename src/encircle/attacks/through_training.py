"""What L_adv at the end of whole trainings changes by with the poison that is learnt from, or with how much each sample of it counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.base import PoisonedSamples
from ..models import called_with, stacked
from ..seeds import generator
from ..training import Ensemble
from ..training.batches import batches, steps_per_epoch
from ..training.differentiable import differentiable_steps
from ..training.learner import Learner, in_training, layer_noise
from .objective import Objective

LAST_STEPS = 30
"""A training's steps that are differentiated through unless said otherwise; what came before them counts as given."""

AT_ONCE = 5
"""Trainings that are computed as one where that is faster; each holds the graph of its last steps."""


def slopes_at_the_end(
    ensemble: Ensemble,
    objective: Objective,
    poison: Float[Tensor, "p *features"],
    mixed: PoisonedSamples,
    role: str,
    seeds: Sequence[int],
    *,
    of: Literal["poison", "weights"],
    last_steps: int = LAST_STEPS,
) -> tuple[Float[Tensor, "members p *rest"], list[dict[str, float]]]:
    """Slopes of L_adv of models trained on everything, by the recipe's own optimiser and through its last steps (Muñoz-González et al., AISec 2017).

    Args:
        ensemble: says where models start, by what recipe they learn and whether several are computed as one; its own members stay as they are.
        objective: L_adv.
        poison: as the frozen stages see it.
        mixed: the clean set with this poison in it, likewise.
        role: what the models are trained as: seeds of their own.
        seeds: of each model's start and batches.
        of: slopes in the poison's entries, or in what each sample's loss counts in those steps, which is 1.
        last_steps: how many steps are differentiated through; memory grows with it.

    Returns:
        Each model's slopes, and what there is to note of its training: `upper` is L_adv.
    """
    size = 1 if ensemble.way == "loop" else AT_ONCE
    slopes, notes = list[Tensor](), list[dict[str, float]]()
    for places in torch.arange(len(seeds)).split(size):
        mine = [seeds[place] for place in places.tolist()]
        each = poison.detach().repeat(len(mine), *[1] * poison.dim())
        weights = torch.ones(each.shape[:2], dtype=each.dtype, device=each.device)
        asked = (each if of == "poison" else weights).requires_grad_()
        ends, noted = _ends(ensemble, objective, each, weights, mixed, role, mine, last_steps)
        slopes.append(torch.autograd.grad(ends.sum(), asked)[0])
        notes += noted
    return torch.cat(slopes), notes


def _ends(
    ensemble: Ensemble,
    objective: Objective,
    poison: Float[Tensor, "members p *features"],
    weights: Float[Tensor, "members p"],
    mixed: PoisonedSamples,
    role: str,
    seeds: Sequence[int],
    last_steps: int,
) -> tuple[Float[Tensor, "members"], list[dict[str, float]]]:
    """L_adv of models that are computed as one, with its graph."""
    recipe, count = ensemble.recipe.for_labels(mixed.labels), len(seeds)
    models = [ensemble.source.model(recipe, role, seed) for seed in seeds]
    model = models[0] if count == 1 else stacked(models, recipe.shared_stages, ensemble.way)
    steps = recipe.epochs * steps_per_epoch(len(mixed), recipe.batch_size)
    learner = Learner(model, recipe, steps, members=count)
    shuffles = [generator(role, "order", seed) for seed in seeds]
    order = [
        rows
        for _ in range(recipe.epochs)
        for rows in zip(*(batches(len(mixed), recipe.batch_size, one) for one in shuffles), strict=True)
    ]
    early, last = order[:-last_steps], order[-last_steps:]
    lower = dict[str, float]()
    with layer_noise(role, seeds[0]):
        with in_training(learner.model, recipe):
            for rows in early:
                every = torch.cat(rows)
                lower = {"lower": learner.advance(mixed.batch(every).to(poison), mixed.labels[every].to(poison.device))}
        functional, parameters = differentiable_steps(
            learner, [_with_graph(mixed, rows, poison, weights) for rows in last]
        )
    found = called_with(functional, parameters, (lambda model: torch.stack(objective(model, count)),))
    seen = found.detach().T.tolist()
    return found[0], [dict(zip(("upper", "distance", "label"), one, strict=True)) | lower for one in seen]


def _with_graph(
    mixed: PoisonedSamples, rows: Sequence[Tensor], poison: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A mini-batch of each model, in which the poison is that model's own, not a copy, and counts what it counts."""
    every = torch.cat(list(rows))
    source = mixed.source[every]
    owner = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(one) for one in rows]))
    mine, places = (owner[source >= 0], source[source >= 0]), (torch.nonzero(source >= 0)[:, 0],)
    frozen_features = mixed.batch(every).to(poison).index_put(places, poison[mine])
    labels = mixed.labels[every].to(poison.device)
    return frozen_features, labels, torch.ones(len(every)).to(poison).index_put(places, weights[mine])
