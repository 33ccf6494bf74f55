"""Steps of training as a function of what is learnt from: parameters with a graph to the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ..models import called_with
from .learner import Learner, in_training, losses_of

Parameters = dict[str, Tensor]
"""Trainable parameters by name."""


@final
class FunctionalModel(nn.Module):
    """A model about which anything can be asked with other parameters in place of its own: `called_with(held, parameters, (ask,))`.

    Args:
        model: it stays as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ask: Callable[[nn.Module], Any]) -> Any:
        """What is asked, of the model."""
        return ask(self.model)

    def trainable(self) -> Parameters:
        """The parameters that training moves, as they are."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def differentiable_steps(learner: Learner, batches: Sequence[tuple[Tensor, ...]]) -> tuple[FunctionalModel, Parameters]:
    """What `Learner.advance` would make of the parameters, batch after batch, with the graph that in-place steps of an optimiser have not.

    Batch normalisation's running statistics move as they would, and have no graph.

    Args:
        learner: of one model or several as one, wherever it is in its training; its parameters and optimiser stay as they are.
        batches: samples as frozen features `(b, *features)`, with a graph or without, their labels `(b,)`, and perhaps what each sample's loss counts `(b,)`.

    Returns:
        The model, in eval mode, and the parameters that it would have.
    """
    functional, recipe, taken = FunctionalModel(learner.model), learner.recipe, learner.taken
    parameters = functional.trainable()
    state = {name: _remembered(learner, value) for name, value in parameters.items()}
    constants = learner.optimiser.param_groups[0]
    with in_training(learner.model, recipe):
        for frozen_features, labels, *counts in batches:
            if len(labels) < 2 * learner.members:
                continue  # as Learner.advance does

            def loss(
                model: nn.Module, batch: Any = (frozen_features, labels, recipe, learner.members, *counts)
            ) -> Tensor:
                return losses_of(model, *batch).sum()

            slopes = torch.autograd.grad(
                called_with(functional, parameters, (loss,)),
                list(parameters.values()),
                create_graph=True,
                materialize_grads=True,
            )
            rate = recipe.rate(taken / learner.steps)
            taken += 1
            for (name, value), slope in zip(list(parameters.items()), slopes, strict=True):
                pulled = slope + recipe.weight_decay * value
                if recipe.optimiser == "adam":
                    move, state[name] = _adam(state[name], pulled, (*constants["betas"], constants["eps"]))
                else:
                    move, state[name] = _sgd(state[name], pulled, recipe.momentum)
                parameters[name] = value - rate * move
    return functional, parameters


_Memory = tuple[Tensor, Tensor, float]
"""What an optimiser remembers of a parameter: SGD its velocity, Adam both moments and how many steps it took."""


def _remembered(learner: Learner, parameter: Tensor) -> _Memory:
    kept = learner.optimiser.state.get(parameter, {})

    def moment(name: str) -> Tensor:
        return torch.zeros_like(parameter) if kept.get(name) is None else kept[name].clone()

    if learner.recipe.optimiser == "adam":
        return moment("exp_avg"), moment("exp_avg_sq"), float(kept.get("step", 0))
    return moment("momentum_buffer"), torch.zeros(()), 0.0


def _sgd(memory: _Memory, slope: Tensor, momentum: float) -> tuple[Tensor, _Memory]:
    velocity = momentum * memory[0] + slope
    return velocity, (velocity, *memory[1:])


def _adam(memory: _Memory, slope: Tensor, constants: tuple[float, float, float]) -> tuple[Tensor, _Memory]:
    kept, also, least = constants
    first, second, step = memory[0] * kept + slope * (1 - kept), memory[1] * also + slope**2 * (1 - also), memory[2] + 1
    size = second / (1 - also**step)
    root = size.clamp(min=torch.finfo(size.dtype).tiny).sqrt()  # at 0 the slope of a root is infinite
    return first / (1 - kept**step) / (root + least), (first, second, step)
