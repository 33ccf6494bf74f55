"""L_adv at the end of whole trainings, with a graph to the poison that was learnt from and to how much each sample of it counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from ..data.base import PoisonedSamples
from ..models import stacked
from ..seeds import generator
from ..training import Ensemble
from ..training.differentiable import continued
from ..training.fit import Learner, batches, in_training, layer_noise, steps_per_epoch
from .objective import Objective

LAST_STEPS = 30
"""A training's steps that are differentiated through unless said otherwise; what came before them counts as given."""

AT_ONCE = 5
"""Trainings that are computed as one where that is faster: each holds the graph of its last steps."""


def at_the_end(
    ensemble: Ensemble,
    objective: Objective,
    poison: Float[Tensor, "members p *hidden"],
    mixed: PoisonedSamples,
    role: str,
    seeds: Sequence[int],
    *,
    last_steps: int = LAST_STEPS,
    weights: Float[Tensor, "members p"] | None = None,
) -> tuple[Float[Tensor, "members"], list[dict[str, float]]]:
    """L_adv of models trained on everything, by the recipe's own optimiser and through its last steps (Muñoz-González et al., AISec 2017).

    Args:
        ensemble: says where models start, by what recipe they learn and whether several are computed as one; its own members stay as they are.
        objective: L_adv.
        poison: as the frozen stages see it; once for each model, with graphs of their own.
        mixed: the clean set with this poison in it, likewise.
        role: what the models are trained as: seeds of their own.
        seeds: of each model's start and batches.
        last_steps: how many steps are differentiated through; memory grows with it.
        weights: what each poison sample's loss counts in those steps; 1, but perhaps with a graph.

    Returns:
        L_adv of each model with its graph, and what there is to note of its training.
    """
    size = 1 if ensemble.path.members == "loop" else AT_ONCE
    ends, notes = list[Tensor](), list[dict[str, float]]()
    for places in torch.arange(len(seeds)).split(size):
        mine = [seeds[place] for place in places.tolist()]
        counted = None if weights is None else weights[places]
        end, noted = _ends(ensemble, objective, poison[places], mixed, role, mine, last_steps, counted)
        ends.append(end)
        notes += noted
    return torch.cat(ends), notes


def _ends(
    ensemble: Ensemble,
    objective: Objective,
    poison: Tensor,
    mixed: PoisonedSamples,
    role: str,
    seeds: Sequence[int],
    last_steps: int,
    weights: Tensor | None,
) -> tuple[Tensor, list[dict[str, float]]]:
    """The same of models that are computed as one."""
    recipe, count = ensemble.recipe.for_labels(mixed.labels), len(seeds)
    models = [ensemble.source.model(recipe, role, seed) for seed in seeds]
    model = models[0] if count == 1 else stacked(models, recipe.frozen_stages, ensemble.path.members)
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
        held, parameters = continued(learner, [_with_graph(mixed, rows, poison, weights) for rows in last])
    found = functional_call(held, parameters, (lambda model: torch.stack(objective(model, count)),))
    seen = found.detach().T.tolist()
    return found[0], [dict(zip(("upper", "distance", "label"), one, strict=True)) | lower for one in seen]


def _with_graph(
    mixed: PoisonedSamples, rows: Sequence[Tensor], poison: Tensor, weights: Tensor | None
) -> tuple[Tensor, ...]:
    """A mini-batch of each model, in which the poison is that model's own, not a copy, and counts what it counts."""
    every = torch.cat(list(rows))
    source = mixed.source[every]
    owner = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(one) for one in rows]))
    mine, places = (owner[source >= 0], source[source >= 0]), (torch.nonzero(source >= 0)[:, 0],)
    hidden = mixed.batch(every).to(poison).index_put(places, poison[mine])
    labels = mixed.labels[every].to(poison.device)
    if weights is None:
        return hidden, labels
    return hidden, labels, torch.ones(len(every)).to(poison).index_put(places, weights[mine])
