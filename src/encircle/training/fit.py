"""Training models from their start to the end of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..core import InputError
from ..data import Samples
from ..models import Way, feasible, stacked
from ..seeds import generator
from .batches import batches, read_ahead, steps_per_epoch
from .frozen import CHUNK, frozen_samples, trainable_forward
from .learner import Learner, in_training, layer_noise
from .recipe import Recipe
from .source import Source


def fit(source: Source, recipe: Recipe, samples: Samples, role: str, seed: int) -> nn.Module:
    """Train one model from its start to the end of the recipe.

    Args:
        source: where it starts.
        recipe: how it learns.
        samples: what it learns from.
        role: what it is for (`"victim"`, `"surrogate"`); different roles never share random numbers.
        seed: of the start and the order of batches.

    Returns:
        The model in eval mode.

    Raises:
        InputError: training diverged, or the recipe does not fit the model.
    """
    frozen_features = frozen_samples(source.model(recipe, role, seed), samples, recipe.shared_stages)
    return fit_on_features(source, recipe, frozen_features, role, [seed])[0]


def fit_on_features(
    source: Source, recipe: Recipe, frozen_features: Samples, role: str, seeds: Sequence[int], way: Way = "loop"
) -> list[nn.Module]:
    """Train models of several seeds on samples as the frozen stages see them.

    Args:
        source: where they start.
        recipe: how they learn.
        frozen_features: what they learn from (`frozen_samples`; the samples themselves, if no stages are frozen).
        role: what they are for.
        seeds: of their starts and orders of batches.
        way: one after another, or all at once; equal but for rounding, and for what draws random numbers: layers such as dropout, and augmentation.

    Returns:
        The models in eval mode.

    Raises:
        InputError: training diverged, or the recipe does not fit the model.
    """
    recipe = recipe.for_labels(frozen_features.labels)
    models = [source.model(recipe, role, seed) for seed in seeds]
    way = feasible(models, way) if models else way
    steps = recipe.epochs * steps_per_epoch(len(frozen_features), recipe.batch_size)
    groups = [[place] for place in range(len(seeds))] if way == "loop" else [list(range(len(seeds)))]
    for group in groups:
        joined = models[group[0]] if way == "loop" else stacked(models, recipe.shared_stages, way)
        learner = Learner(joined, recipe, steps, members=len(group))
        with layer_noise(role, seeds[group[0]]):
            train(learner, frozen_features, [generator(role, "order", seeds[place]) for place in group], steps)
    for model, seed in zip(models, seeds, strict=True):
        if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
            raise InputError(f"training diverged at learning rate {recipe.lr} ({role} {seed}); lower lr.")
    return models


def train(learner: Learner, frozen_features: Samples, shuffles: Sequence[torch.Generator], steps: int) -> None:
    """Take so many steps of training on outputs of the frozen stages, epoch after epoch.

    Args:
        learner: what learns.
        frozen_features: what from.
        shuffles: the order of batches, for each member of the learner.
        steps: how many.
    """
    device = next(learner.model.parameters()).device
    while steps > 0:
        orders = zip(*(batches(len(frozen_features), learner.recipe.batch_size, one) for one in shuffles), strict=True)
        rows = [torch.cat(each) for each in orders][:steps]
        with in_training(learner.model, learner.recipe):  # once: for small networks it costs as much as a step
            for inputs, labels in zip(
                read_ahead(frozen_features, rows), (frozen_features.labels[each] for each in rows), strict=True
            ):
                learner.advance(inputs.to(device), labels.to(device))
        steps -= len(rows)


@torch.no_grad()
def correct(model: nn.Module, frozen_features: Samples, frozen: int = 0) -> Bool[Tensor, "n"]:
    """Which samples are classified correctly.

    Args:
        model: in eval mode.
        frozen_features: the samples as the frozen stages see them (the samples themselves, if none are frozen).
        frozen: number of frozen stages.
    """
    device = next(model.parameters()).device
    right = []
    for rows in torch.arange(len(frozen_features)).split(CHUNK):
        found = trainable_forward(model, frozen_features.batch(rows).to(device), frozen).argmax(dim=1).cpu()
        right.append(found == frozen_features.labels[rows])
    return torch.cat(right)
