"""Weights learnt elsewhere: those that fit a network, and its batch statistics measured anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from ..core import InputError
from .base import CamClassifier
from .stack import batch_norms

_PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
"""What wrappers such as `DataParallel`, Lightning and `torch.compile` put before every name."""


def fitting(weights: Mapping[str, Any], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The weights that a network takes from a checkpoint, by name, and the names of the surplus ones.

    A CAM classifier needs no head in it: a trunk that was learnt for other classes, such as torchvision's ResNet-18, gets a fresh head a seed. The
    inputs' mean and standard deviation are the checkpoint's if it has them, and else the network's own. A wrapper's prefix that all names share, such
    as `module.`, is removed if the names fit only then.

    Args:
        weights: tensors or arrays by name, or a dictionary with these as one of its entries (see `named_tensors`).
        model: the network.

    Returns:
        The weights that fit, and the names of the surplus ones.

    Raises:
        InputError: a weight is missing, has another shape or kind of numbers, or is not finite.
    """
    tensors = named_tensors(weights, "the checkpoint's weights")
    state = model.state_dict()
    renamed = _without_prefixes(tensors)
    fits = next((names for names in renamed if not _missing(names, model)), None)
    if fits is None:
        nearest = max(renamed, key=lambda names: len(names.keys() & state.keys()))
        raise InputError(
            f"the checkpoint does not fit the model: it lacks {_missing(nearest, model)[0]}; give weights of this architecture."
        )
    taken = {name: value for name, value in fits.items() if name in state}
    for name, value in taken.items():
        _check_fit(name, value, state[name])
    return taken, sorted(set(fits) - set(taken))


def named_tensors(content: object, what: str) -> dict[str, Tensor]:
    """The state dictionary in a saved object: the object itself, or its only entry that is one.

    Such an entry is `"state_dict"` beside a number of epochs.

    Args:
        content: the loaded object.
        what: its name in errors, in the plural.

    Returns:
        Tensors by name, on the CPU and without gradients; NumPy arrays become tensors.

    Raises:
        InputError: there is no state dictionary, or more than one.
    """
    remedy = "save model.state_dict()"
    if isinstance(content, nn.Module):
        raise InputError(f"{what} are a network; give its state_dict().")
    if not isinstance(content, Mapping):
        raise InputError(f"{what} hold more than tensors by name; {remedy}.")
    if not content or _is_state(content):
        return {name: _tensor(f"{name} of {what}", value) for name, value in content.items()}
    # Optimisers' states nest deeper, and a loss or a score is a tensor without a shape.
    states = [
        key for key, value in content.items() if _is_state(value) and any(np.ndim(entry) for entry in value.values())
    ]
    if len(states) > 1:
        raise InputError(
            f"{what} hold several state dictionaries, {' and '.join(map(repr, states))}; give the one that is meant."
        )
    if not states or any(_is_array(value) and np.ndim(value) for value in content.values()):
        raise InputError(f"{what} hold more than tensors by name; {remedy}.")
    return named_tensors(content[states[0]], what)


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse NaN and infinity, which no training mends.

    Args:
        tensors: by name.
        what: their name in errors, in the plural.

    Raises:
        InputError: names the first such tensor.
    """
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{what} hold NaN or infinity in {name}; give weights of a training that did not diverge.")


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray | np.generic)


def _is_state(content: object) -> bool:
    """Whether this is a dictionary of tensors by name."""
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and _is_array(value) for name, value in content.items())
    )


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise InputError(f"{name} is stored sparsely, quantised or without values; save it as an ordinary tensor.")
        return value.detach().cpu()
    if value.dtype.kind not in "biuf":
        raise InputError(f"{name} is of the type {value.dtype}, not numbers; save it as numbers.")
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))


def _without_prefixes(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors by their own names, and by those without one wrapper's prefix, two, and so on."""
    renamed = [tensors]
    while tensors and (
        prefix := next((known for known in _PREFIXES if all(name.startswith(known) for name in renamed[-1])), None)
    ):
        renamed.append({name.removeprefix(prefix): value for name, value in renamed[-1].items()})
    return renamed


def _missing(weights: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """The weights that a network needs and does not find."""
    optional = {"standardise"} if isinstance(model, CamClassifier) else set()
    if optional and not any(name.startswith("head.") for name in weights):
        optional.add("head")
    return [
        name
        for name in model.state_dict()
        if name not in weights and not name.endswith("num_batches_tracked") and name.split(".")[0] not in optional
    ]


def _check_fit(name: str, value: Tensor, current: Tensor) -> None:
    """Refuse a weight that `load_state_dict` would refuse in many lines, or convert into something else."""
    start = f"the checkpoint does not fit the model: its {name}"
    if is_lazy(current):
        raise InputError(f"{name} of the network has no shape yet; call the network on an input before you return it.")
    if value.shape != current.shape:
        raise InputError(
            f"{start} is {tuple(value.shape)} and must be {tuple(current.shape)}; give other weights or drop them."
        )
    converted = value.to(current.dtype) if value.is_complex() == current.is_complex() else None
    fractional = value.is_floating_point() or value.is_complex()
    if (
        converted is None
        or (current.is_floating_point() and not fractional)  # such as the levels of quantised weights
        or (not current.is_floating_point() and not torch.equal(converted.to(value.dtype), value))
    ):
        raise InputError(f"{start} is {value.dtype} and must be {current.dtype}; save it in that type.")
    check_finite({name: converted}, "the checkpoint's weights")


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every batch normalisation the mean and variance of its inputs, and the scale and shift that undo it.

    Published weights often have their batch statistics folded away (mean 0, variance 1). Such a network is right in eval mode. In train mode it is
    normalised by the batch, which ruins it: scale and shift belong to the folded statistics. Afterwards the network computes the same in eval mode, up
    to rounding, and train mode starts from nearly the same function.

    Args:
        model: changed in place; in eval mode afterwards.
        batches: inputs, such as a training set's `chunks()`; one pass over them.

    Raises:
        InputError: there is no input, or a batch normalisation has no statistics, scale or shift.
    """
    model.eval()
    moments: dict[nn.Module, list[Tensor]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].dim()) if axis != 1]
        values = inputs[0].double()
        count = torch.tensor(values.numel() / values.shape[1])
        sums = [count, values.sum(dim=axes), (values**2).sum(dim=axes)]
        moments[layer] = (
            [old + new for old, new in zip(moments[layer], sums, strict=True)] if layer in moments else sums
        )

    handles: list[RemovableHandle] = [layer.register_forward_pre_hook(note) for layer in batch_norms(model)]
    try:
        for inputs in batches:
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    for layer in batch_norms(model):
        if layer not in moments:
            raise InputError("there is no input to measure batch statistics on; give at least one batch.")
        count, total, squares = moments[layer]
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
