"""Slopes of L_adv at the end of trainings, in the poison's entries or in the weights of its samples."""

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
"""Steps at the end of a training that are differentiated through by default. Earlier steps count as constants."""

AT_ONCE = 5
"""Trainings that are computed as one where that is faster. Each holds the graph of its last steps."""


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
    """Slopes of L_adv of models trained on the poisoned set, through the last steps of the recipe's own optimiser.

    See Muñoz-González et al., AISec 2017.

    Args:
        ensemble: gives the models' starts, the recipe, and whether several are computed as one. Its members are not changed.
        objective: L_adv.
        poison: what the frozen stages make of it.
        mixed: the clean set with this poison in it, likewise.
        role: of the models, which gives them seeds of their own.
        seeds: of each model's start and batches.
        of: slopes in the poison's entries, or in the weight of each sample's loss in those steps, which is 1.
        last_steps: how many steps are differentiated through. Memory grows with it.

    Returns:
        Each model's slopes, and notes on its training: `upper` is L_adv.
    """
    size = 1 if ensemble.way == "loop" else AT_ONCE
    slopes, notes = list[Tensor](), list[dict[str, float]]()
    for indices in torch.arange(len(seeds)).split(size):
        group = [seeds[index] for index in indices.tolist()]
        copies = poison.detach().repeat(len(group), *[1] * poison.dim())
        weights = torch.ones(copies.shape[:2], dtype=copies.dtype, device=copies.device)
        leaf = (copies if of == "poison" else weights).requires_grad_()
        ends, group_notes = _ends(ensemble, objective, copies, weights, mixed, role, group, last_steps)
        slopes.append(torch.autograd.grad(ends.sum(), leaf)[0])
        notes += group_notes
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
        for rows in zip(*(batches(len(mixed), recipe.batch_size, shuffle) for shuffle in shuffles), strict=True)
    ]
    early, last = order[:-last_steps], order[-last_steps:]
    lower = dict[str, float]()
    with layer_noise(role, seeds[0]):
        with in_training(learner.model, recipe):
            for rows in early:
                joined = torch.cat(rows)
                inputs, labels = mixed.batch(joined).to(poison), mixed.labels[joined].to(poison.device)
                lower = {"lower": learner.advance(inputs, labels)}
        functional, parameters = differentiable_steps(
            learner, [_with_graph(mixed, rows, poison, weights) for rows in last]
        )
    terms = called_with(functional, parameters, (lambda model: torch.stack(objective(model, count)),))
    by_model = terms.detach().T.tolist()
    return terms[0], [dict(zip(("upper", "distance", "label"), values, strict=True)) | lower for values in by_model]


def _with_graph(
    mixed: PoisonedSamples, rows: Sequence[Tensor], poison: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A mini-batch of each model, with the model's own poison and its weights in it: their graphs stay."""
    joined = torch.cat(list(rows))
    source = mixed.source[joined]
    owner = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(batch) for batch in rows]))
    poison_index, indices = (owner[source >= 0], source[source >= 0]), (torch.nonzero(source >= 0)[:, 0],)
    frozen_features = mixed.batch(joined).to(poison).index_put(indices, poison[poison_index])
    labels = mixed.labels[joined].to(poison.device)
    return frozen_features, labels, torch.ones(len(joined)).to(poison).index_put(indices, weights[poison_index])
