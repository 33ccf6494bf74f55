"""Steps of training as a differentiable function of the samples: parameters with a graph to them."""

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
    """A model as a function of its parameters: `called_with(functional, parameters, (ask,))`.

    Args:
        model: it is not changed.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ask: Callable[[nn.Module], Any]) -> Any:
        """`ask(model)`, with the parameters in place."""
        return ask(self.model)

    def trainable(self) -> Parameters:
        """The parameters that training moves, as they are."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def differentiable_steps(learner: Learner, batches: Sequence[tuple[Tensor, ...]]) -> tuple[FunctionalModel, Parameters]:
    """The parameters after further steps of `Learner.advance`, with their graph.

    Batch normalisation's running statistics move as in training, and have no graph.

    Args:
        learner: of one model or several as one, at any point of its training. Its parameters and optimiser are not changed.
        batches: for each step the frozen features `(b, *features)`, with a graph or without, the labels `(b,)`, and perhaps weights of the losses `(b,)`.

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
"""An optimiser's state of a parameter: SGD's velocity, or Adam's moments and number of steps."""


def _remembered(learner: Learner, parameter: Tensor) -> _Memory:
    state = learner.optimiser.state.get(parameter, {})

    def moment(name: str) -> Tensor:
        return torch.zeros_like(parameter) if state.get(name) is None else state[name].clone()

    if learner.recipe.optimiser == "adam":
        return moment("exp_avg"), moment("exp_avg_sq"), float(state.get("step", 0))
    return moment("momentum_buffer"), torch.zeros(()), 0.0


def _sgd(memory: _Memory, slope: Tensor, momentum: float) -> tuple[Tensor, _Memory]:
    velocity = momentum * memory[0] + slope
    return velocity, (velocity, *memory[1:])


def _adam(memory: _Memory, slope: Tensor, constants: tuple[float, float, float]) -> tuple[Tensor, _Memory]:
    beta1, beta2, epsilon = constants
    first = memory[0] * beta1 + slope * (1 - beta1)
    second = memory[1] * beta2 + slope**2 * (1 - beta2)
    step = memory[2] + 1
    size = second / (1 - beta2**step)
    root = size.clamp(min=torch.finfo(size.dtype).tiny).sqrt()  # at 0 the slope of a root is infinite
    return first / (1 - beta1**step) / (root + epsilon), (first, second, step)
