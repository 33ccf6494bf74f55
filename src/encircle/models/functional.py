"""Networks computed with other parameters in place of their own, also where a parameter stands in several places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def called_with(module: nn.Module, tensors: Mapping[str, Tensor], arguments: tuple[Any, ...]) -> Any:
    """`module(*arguments)` with these tensors in place of its parameters and buffers; the module is as before afterwards.

    `torch.func.functional_call` puts back the wrong tensors into a module that stands twice in a network: it exchanges them twice.

    Args:
        module: the network.
        tensors: by the names of `named_parameters` and `named_buffers`, which have one for each.
        arguments: of the call.
    """
    return functional_call(module, _everywhere(module, tensors), arguments, tie_weights=False)


def _everywhere(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under one name for every place in which they stand, a place being an attribute of a module."""
    first: dict[int, str] = {}
    places: set[tuple[int, str]] = set()
    spread: dict[str, Tensor] = {}
    for prefix, owner in module.named_modules():  # each module once
        for attribute, value in (*owner._parameters.items(), *owner._buffers.items()):
            if value is None or (id(owner), attribute) in places:
                continue
            places.add((id(owner), attribute))
            name = f"{prefix}.{attribute}" if prefix else attribute
            known = first.setdefault(id(value), name)
            if known in tensors:
                spread[name] = tensors[known]
    return spread
