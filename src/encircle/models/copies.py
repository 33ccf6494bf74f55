"""Deep copies of modules that keep tensors of their last pass, which torch refuses to copy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

_T = TypeVar("_T")


def copied(value: _T, models: Iterable[nn.Module] | None = None) -> _T:
    """A deep copy of a model, or of an object with models in it.

    Tensors of their last pass are copied without their graph.

    Args:
        value: the model or object.
        models: the models in the object; None for a model.
    """
    memo: dict[int, Any] = {}
    for model in models if models is not None else [value] if isinstance(value, nn.Module) else []:
        for module in model.modules():
            _detach(vars(module), memo)
    return copy.deepcopy(value, memo)


def _detach(value: Any, memo: dict[int, Any]) -> None:
    """Put a plain copy of every tensor with a graph into a memo of `copy.deepcopy`."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            memo[id(value)] = _plain(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            _detach(inner, memo)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            _detach(inner, memo)


def _plain(value: Tensor) -> Tensor | None:
    try:
        return value.detach().clone()
    except RuntimeError:  # of a pass under `torch.func` that is over
        return None
