"""Small trainings on random data, in float64 where rounding must not matter."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from encircle.data import Samples, TensorSamples
from encircle.training import Recipe, Source
from tests.networks import Activation, TinyImageNet, TinyTableNet, tiny, tiny_inputs

Kind = Literal["image", "table"]


def source(kind: Kind, *, dtype: torch.dtype = torch.float64, activation: Activation = "softplus") -> Source:
    """Fresh weights from torch's global generator, and a checkpoint that is not fresh."""
    make = TinyImageNet if kind == "image" else TinyTableNet
    return Source(lambda: make(activation=activation).to(dtype), dict(tiny(kind, dtype=dtype).state_dict()))


def samples(kind: Kind, count: int = 23, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> TensorSamples:
    """Labels of three classes that can be learnt from the inputs' mean."""
    inputs = tiny_inputs(kind, count, seed=seed, dtype=dtype)
    ranks = inputs.flatten(1).mean(dim=1).argsort().argsort()
    return TensorSamples(inputs, ranks * 3 // count)


def recipe(**changes: Any) -> Recipe:
    """Three epochs of small batches."""
    return Recipe(**{"epochs": 3, "batch_size": 5, **changes})


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of everything a model has learnt."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_poison(clean: Samples) -> Samples:
    """A poisoned set with no poison in it."""
    none = torch.zeros(0, dtype=torch.int64)
    return clean.with_poison(clean.batch(none), none, none)
