"""L_adv at the end of a whole training, with a graph to the poison that was learnt from and to how much each sample of it counts."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from ..data.base import PoisonedSamples
from ..seeds import generator
from ..training import Ensemble
from ..training.differentiable import continued
from ..training.fit import Learner, batches, in_training, layer_noise, steps_per_epoch
from .objective import Objective

LAST_STEPS = 30
"""A training's steps that are differentiated through unless said otherwise; what came before them counts as given."""


def at_the_end(
    ensemble: Ensemble,
    objective: Objective,
    poison: Float[Tensor, "p *hidden"],
    mixed: PoisonedSamples,
    role: str,
    seed: int,
    *,
    last_steps: int = LAST_STEPS,
    weights: Float[Tensor, "p"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """L_adv of one model trained on everything, by the recipe's own optimiser and through its last steps (Muñoz-González et al., AISec 2017).

    Args:
        ensemble: says where models start and by what recipe they learn; its own members stay as they are.
        objective: L_adv.
        poison: as the frozen stages see it.
        mixed: the clean set with this poison in it, likewise.
        role: what the model is trained as: seeds of its own.
        seed: of its start and of its batches.
        last_steps: how many steps are differentiated through; memory grows with it.
        weights: what each poison sample's loss counts in those steps; 1, but perhaps with a graph.

    Returns:
        L_adv with its graph, and what there is to note of the training.
    """
    recipe = ensemble.recipe.for_labels(mixed.labels)
    steps = recipe.epochs * steps_per_epoch(len(mixed), recipe.batch_size)
    learner = Learner(ensemble.source.model(recipe, role, seed), recipe, steps)
    shuffle = generator(role, "order", seed)
    order = [rows for _ in range(recipe.epochs) for rows in batches(len(mixed), recipe.batch_size, shuffle)]
    early, last = order[:-last_steps], order[-last_steps:]
    with layer_noise(role, seed):
        with in_training(learner.model, recipe):
            lower = [
                learner.advance(mixed.batch(rows).to(poison), mixed.labels[rows].to(poison.device)) for rows in early
            ]
        held, parameters = continued(learner, [_with_graph(mixed, rows, poison, weights) for rows in last])
    upper, far, entropy = functional_call(held, parameters, (lambda model: torch.cat(objective(model)),))
    seen = torch.stack([upper, far, entropy]).detach().tolist()
    note = dict(zip(("upper", "distance", "label"), seen, strict=True))
    return upper, note | ({"lower": lower[-1]} if lower else {})


def _with_graph(
    mixed: PoisonedSamples, rows: Int[Tensor, "b"], poison: Float[Tensor, "p *hidden"], weights: Tensor | None
) -> tuple[Tensor, ...]:
    """A mini-batch in which the poison is poison, not a copy, and counts what it counts."""
    source = mixed.source[rows]
    mine, places = source[source >= 0], (torch.nonzero(source >= 0)[:, 0],)
    hidden, labels = mixed.batch(rows).to(poison).index_put(places, poison[mine]), mixed.labels[rows].to(poison.device)
    if weights is None:
        return hidden, labels
    return hidden, labels, torch.ones(len(rows)).to(poison).index_put(places, weights[mine])
