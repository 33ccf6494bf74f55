"""Networks computed with other parameters in place of their own, also where a parameter has several names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def called_with(module: nn.Module, tensors: Mapping[str, Tensor], arguments: tuple[Any, ...]) -> Any:
    """`module(*arguments)` with these tensors in place of its parameters and buffers.

    The module is not changed. `torch.func.functional_call` puts the wrong tensors back into a module that is twice in a network: it exchanges them twice.

    Args:
        module: the network.
        tensors: by the names of `named_parameters` and `named_buffers`, which name each tensor once.
        arguments: of the call.

    Returns:
        What the module returns.
    """
    return functional_call(module, _under_every_name(module, tensors), arguments, tie_weights=False)


def _under_every_name(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under a name for every attribute of a module that refers to them."""
    first: dict[int, str] = {}
    visited: set[tuple[int, str]] = set()
    spread: dict[str, Tensor] = {}
    for prefix, owner in module.named_modules():  # each module once
        for attribute, value in (*owner._parameters.items(), *owner._buffers.items()):
            if value is None or (id(owner), attribute) in visited:
                continue
            visited.add((id(owner), attribute))
            name = f"{prefix}.{attribute}" if prefix else attribute
            known = first.setdefault(id(value), name)
            if known in tensors:
                spread[name] = tensors[known]
    return spread
