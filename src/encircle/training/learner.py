"""A model in training: one step after another by its recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import batch_norms, split
from ..seeds import derive_seed
from .augmentation import flipped_and_shifted
from .frozen import trainable, trainable_forward
from .recipe import Recipe


@final
class Learner:
    """One model in training, or several as one (`models.stacked`): its optimiser and its progress in the recipe.

    Args:
        model: at its start, early stages already frozen.
        recipe: how it learns.
        steps: number of steps of the whole training, for the schedule.
        members: number of models.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int, *, members: int = 1) -> None:
        self.model = model
        self.recipe = recipe
        self.steps = steps
        self.members = members
        self.optimiser = recipe.build_optimiser(model)
        self.taken = 0

    def step(self, frozen_features: Float[Tensor, "b *features"], labels: Int[Tensor, "b"]) -> float:
        """One step on frozen features (on inputs, if none are frozen); returns the mean cross-entropy."""
        with in_training(self.model, self.recipe):
            return self.advance(frozen_features, labels)

    def advance(self, frozen_features: Float[Tensor, "b *features"], labels: Int[Tensor, "b"]) -> float:
        """Like `step`, for a model that is in training mode already."""
        if len(labels) < 2 * self.members:
            return float("nan")  # batch normalisation cannot learn from one sample
        losses = losses_of(self.model, frozen_features, labels, self.recipe, self.members)
        self.follow(torch.autograd.grad(losses.sum(), trainable(self.model), allow_unused=True))
        return float(losses.detach().mean())

    def follow(self, gradients: Sequence[Tensor | None]) -> None:
        """One step of the optimiser along these gradients of the trainable parameters."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.taken / self.steps)
        parameters = trainable(self.model)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimiser.step()
        for parameter in parameters:
            parameter.grad = None
        self.taken += 1


def losses_of(
    model: nn.Module,
    frozen_features: Float[Tensor, "b *features"],
    labels: Int[Tensor, "b"],
    recipe: Recipe,
    members: int = 1,
    counts: Float[Tensor, "b"] | None = None,
) -> Float[Tensor, "members"]:
    """Each member's mean weighted cross-entropy, with its graph. Augmentation draws from torch's global generator.

    Args:
        model: in training mode; one model, or several as one.
        frozen_features: a mini-batch of each member, one after another.
        labels: of these.
        recipe: gives augmentation, precision, frozen stages and class weights.
        members: number of models.
        counts: further weights of the samples; None for 1.
    """
    if recipe.augmentation is not None:
        frozen_features = flipped_and_shifted(frozen_features)
    if recipe.precision == "bfloat16":
        with torch.autocast(frozen_features.device.type, torch.bfloat16):
            logits = trainable_forward(model, frozen_features, recipe.shared_stages)
    else:
        logits = trainable_forward(model, frozen_features, recipe.shared_stages)
    losses = F.cross_entropy(logits.to(frozen_features.dtype), labels, reduction="none")
    if (weights := recipe.weights_of(labels)) is not None:
        losses = losses * weights.to(losses)
    if counts is not None:
        losses = losses * counts
    means: Tensor = losses.unflatten(0, (members, -1)).mean(dim=1)
    return means


@contextmanager
def in_training(model: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Put the model into training mode, and into eval mode again afterwards."""
    training_mode(model, recipe)
    try:
        yield
    finally:
        model.eval()


def training_mode(model: nn.Module, recipe: Recipe) -> None:
    """Put a model into train mode, but for layers whose statistics must not move.

    These are the frozen stages and, if the recipe says so, every batch normalisation.
    """
    model.train()
    if recipe.batch_norm == "frozen":
        for layer in batch_norms(model):
            layer.eval()
    early, count = split(model, recipe.frozen_stages)
    if early is not None:
        for stage in early.stages[:count]:
            stage.eval()


@contextmanager
def layer_noise(*parts: str | int) -> Iterator[None]:
    """Give layers that draw random numbers, and augmentation, a stream of their own.

    The caller's stream is as before afterwards.

    Args:
        parts: the stream's name (`seeds.derive_seed`).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*parts, "layers"))
        yield
