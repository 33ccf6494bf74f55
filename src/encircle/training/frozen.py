"""A model in two parts: the frozen stages, which all models of a checkpoint share, and the trainable rest."""

from __future__ import annotations

from typing import cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data import Samples, TensorSamples
from ..models import split

FROZEN_FEATURE_BYTES = 1 << 30
"""Frozen features are stored for a whole training if they fit in this many bytes, and recomputed otherwise."""

CHUNK = 256
"""Samples that pass through a model at once outside of training."""


def frozen_forward(model: nn.Module, inputs: Float[Tensor, "n *shape"], frozen: int) -> Float[Tensor, "n *features"]:
    """The frozen features of inputs: the output of the frozen stages (the inputs themselves, if none are frozen).

    Args:
        model: its frozen stages are those of all models from a checkpoint.
        inputs: with a graph or without.
        frozen: number of frozen stages.

    Raises:
        InputError: the model has fewer stages.
    """
    early, count = split(model, frozen)
    return inputs if early is None else early.early(inputs, count)


def trainable_forward(
    model: nn.Module, frozen_features: Float[Tensor, "n *features"], frozen: int
) -> Float[Tensor, "n classes"]:
    """Logits from frozen features: `trainable_forward(model, frozen_forward(model, x, frozen), frozen) == model(x)`.

    Args:
        model: in any mode.
        frozen_features: the output of its frozen stages.
        frozen: number of frozen stages.

    Raises:
        InputError: the model has fewer stages.
    """
    early, count = split(model, frozen)
    return cast(Tensor, model(frozen_features)) if early is None else early.late(frozen_features, count)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that training moves: θ without frozen stages."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.numel()]


@final
class TrainableStages(nn.Module):
    """The stages of a model that are not frozen, as a module: it takes frozen features and gives logits.

    Args:
        model: the whole model.
        frozen: number of frozen stages.
    """

    def __init__(self, model: nn.Module, frozen: int) -> None:
        super().__init__()
        self.model = model
        self._frozen = frozen

    def forward(self, frozen_features: Tensor) -> Tensor:
        """Logits."""
        return trainable_forward(self.model, frozen_features, self._frozen)


@torch.no_grad()
def frozen_features_of(
    model: nn.Module, inputs: Float[Tensor, "n *shape"], frozen: int
) -> Float[Tensor, "n *features"]:
    """`frozen_forward` on the model's device, `CHUNK` inputs at a time and without a graph.

    Args:
        model: as for `frozen_forward`.
        inputs: on any device.
        frozen: number of frozen stages.
    """
    device = next(model.parameters()).device
    return torch.cat([frozen_forward(model, rows.to(device), frozen) for rows in inputs.split(CHUNK)])


@torch.no_grad()
def frozen_samples(model: nn.Module, samples: Samples, frozen: int, *, limit: int = FROZEN_FEATURE_BYTES) -> Samples:
    """Samples whose inputs are the frozen features of others.

    Args:
        model: as for `frozen_forward`.
        samples: the samples with their own inputs.
        frozen: number of frozen stages; with 0 the samples are returned.
        limit: frozen features that fit in so many bytes are computed once, others batch by batch.
    """
    if frozen == 0:
        return samples
    device = next(model.parameters()).device
    probe = frozen_forward(model, samples.batch(torch.tensor([0])).to(device), frozen)
    if probe.numel() * probe.element_size() * len(samples) > limit:
        return _FrozenSamples(model, samples, frozen)
    frozen_features = torch.cat([frozen_forward(model, chunk.to(device), frozen) for chunk in samples.chunks()])
    return TensorSamples(frozen_features, samples.labels)


@final
class _FrozenSamples(Samples):
    def __init__(self, model: nn.Module, samples: Samples, frozen: int) -> None:
        self.model, self.samples, self.frozen = model, samples, frozen
        self.labels = samples.labels

    @torch.no_grad()
    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b *features"]:
        device = next(self.model.parameters()).device
        return frozen_forward(self.model, self.samples.batch(rows).to(device), self.frozen)
