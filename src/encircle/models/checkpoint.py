"""Weights learnt elsewhere: what of them fits a network, and batch statistics measured anew without changing what it computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core import InputError
from .base import CamClassifier
from .stack import batch_norms


def fitting(weights: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The weights a network takes from a checkpoint, by name, and the names of those it has no place for.

    A CAM classifier need not find a head in it: a trunk that was learnt for other classes, such as torchvision's ResNet-18, gets a fresh head a seed.
    What standardises the inputs is the checkpoint's where it has it, and else the network's own.

    Args:
        weights: tensors by name.
        model: the network.

    Returns:
        The weights that have a place, and the names of the surplus ones.

    Raises:
        InputError: a weight is missing, or has another shape.
    """
    places = model.state_dict()
    optional = {"standardise"} if isinstance(model, CamClassifier) else set()
    if optional and not any(name.startswith("head.") for name in weights):
        optional.add("head")
    taken = {name: value for name, value in weights.items() if name in places}
    for name, place in places.items():
        if name not in taken:
            if name.endswith("num_batches_tracked") or name.split(".")[0] in optional:
                continue
            raise InputError(
                f"the checkpoint does not fit the model: it lacks {name}; give weights of this architecture."
            )
        if taken[name].shape != place.shape:
            found, wanted = tuple(taken[name].shape), tuple(place.shape)
            raise InputError(
                f"the checkpoint does not fit the model: its {name} is {found} and must be {wanted}; give other weights or drop them."
            )
    return taken, sorted(set(weights) - set(taken))


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every batch normalisation the mean and variance of what it sees, and the scale and shift that undo the change.

    Published weights often have their batch statistics folded away (mean 0, variance 1). Such a network computes the right thing in eval mode,
    but training it in train mode normalises by the batch and ruins it, because scale and shift belong to the folded statistics. Afterwards the
    network computes the same in eval mode, up to rounding, and train mode starts from nearly the same function.

    Args:
        model: changed in place; in eval mode afterwards.
        batches: inputs, such as a training set's `chunks()`; one pass over them.

    Raises:
        InputError: there is no input.
    """
    model.eval()
    seen: dict[nn.Module, list[Tensor]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].dim()) if axis != 1]
        values = inputs[0].double()
        count = torch.tensor(values.numel() / values.shape[1])
        sums = [count, values.sum(dim=axes), (values**2).sum(dim=axes)]
        seen[layer] = [old + new for old, new in zip(seen[layer], sums, strict=True)] if layer in seen else sums

    handles: list[RemovableHandle] = [layer.register_forward_pre_hook(note) for layer in batch_norms(model)]
    try:
        for inputs in batches:
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    for layer in batch_norms(model):
        if layer not in seen:
            raise InputError("there is no input to measure batch statistics on; give at least one batch.")
        count, total, squares = seen[layer]
        mean = total / count
        _restate(layer, mean, (squares / count - mean**2).clamp(min=0))


def _restate(layer: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """The same function of the layer's input, with other statistics."""
    if (
        not isinstance(layer, nn.modules.batchnorm._BatchNorm)
        or layer.running_mean is None
        or layer.running_var is None
        or not layer.affine
    ):
        raise InputError(
            "a batch normalisation keeps no statistics, or no scale and shift, so there is nothing to measure anew."
        )
    slope = layer.weight.double() / (layer.running_var.double() + layer.eps).sqrt()
    offset = layer.bias.double() - slope * layer.running_mean.double()
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)
    layer.weight.copy_(slope * (variance + layer.eps).sqrt())
    layer.bias.copy_(offset + slope * mean)
