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
        source: gives its start.
        recipe: how it learns.
        samples: the training set.
        role: of the model (`"victim"`, `"surrogate"`). Different roles never share random numbers.
        seed: of the start and the order of batches.

    Returns:
        The model in eval mode.

    Raises:
        InputError: training diverged, or the recipe does not fit the model.
    """
    if recipe.shared_stages:
        samples = frozen_samples(source.model(recipe, role, seed), samples, recipe.shared_stages)
    return fit_on_features(source, recipe, samples, role, [seed])[0]


def fit_on_features(
    source: Source, recipe: Recipe, frozen_features: Samples, role: str, seeds: Sequence[int], way: Way = "loop"
) -> list[nn.Module]:
    """Train models of several seeds on frozen features.

    Args:
        source: gives their starts.
        recipe: how they learn.
        frozen_features: the training set (`frozen_samples`; the samples themselves, if no stages are frozen).
        role: of the models.
        seeds: of their starts and orders of batches.
        way: one after another, or all at once. The results are equal but for rounding, unless layers or augmentation draw random numbers.

    Returns:
        The models in eval mode.

    Raises:
        InputError: training diverged, or the recipe does not fit the model.
    """
    recipe = recipe.for_labels(frozen_features.labels)
    models = [source.model(recipe, role, seed) for seed in seeds]
    way = feasible(models, way) if models else way
    steps = recipe.epochs * steps_per_epoch(len(frozen_features), recipe.batch_size)
    groups = [[index] for index in range(len(seeds))] if way == "loop" else [list(range(len(seeds)))]
    for group in groups:
        joined = models[group[0]] if way == "loop" else stacked(models, recipe.shared_stages, way)
        learner = Learner(joined, recipe, steps, members=len(group))
        with layer_noise(role, seeds[group[0]]):
            train(learner, frozen_features, [generator(role, "order", seeds[index]) for index in group], steps)
    for model, seed in zip(models, seeds, strict=True):
        if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
            raise InputError(f"training diverged at learning rate {recipe.lr} ({role} {seed}); lower lr.")
    return models


def train(learner: Learner, frozen_features: Samples, shuffles: Sequence[torch.Generator], steps: int) -> None:
    """Take steps of training on frozen features, epoch after epoch.

    Args:
        learner: one model, or several as one.
        frozen_features: the training set.
        shuffles: give the order of batches, for each member of the learner.
        steps: how many steps.
    """
    device = next(learner.model.parameters()).device
    while steps > 0:
        size, count = learner.recipe.batch_size, len(frozen_features)
        orders = zip(*(batches(count, size, shuffle) for shuffle in shuffles), strict=True)
        rows = [torch.cat(members) for members in orders][:steps]
        labels = (frozen_features.labels[batch] for batch in rows)
        with in_training(learner.model, learner.recipe):  # once: for small networks it costs as much as a step
            for inputs, classes in zip(read_ahead(frozen_features, rows), labels, strict=True):
                learner.advance(inputs.to(device), classes.to(device))
        steps -= len(rows)


@torch.no_grad()
def correct(model: nn.Module, frozen_features: Samples, frozen: int = 0) -> Bool[Tensor, "n"]:
    """Which samples are classified correctly.

    Args:
        model: in eval mode.
        frozen_features: the frozen features of the samples (the samples themselves, if no stages are frozen).
        frozen: number of frozen stages.
    """
    device = next(model.parameters()).device
    right = []
    for rows in torch.arange(len(frozen_features)).split(CHUNK):
        predicted = trainable_forward(model, frozen_features.batch(rows).to(device), frozen).argmax(dim=1).cpu()
        right.append(predicted == frozen_features.labels[rows])
    return torch.cat(right)
