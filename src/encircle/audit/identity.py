"""What tells configured objects, weights and files apart, so that a run can be known by what decides its scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from ..core import InputError
from ..storage import sha256_of


def settings_of(piece: Any) -> Any:
    """The settings of a configured object; a class of the user's own is described by its attributes.

    Tensors, arrays and networks among them are known by all their values, everything else by its `repr`, which therefore has to tell all that decides scores.

    Raises:
        InputError: an attribute has no text of its own, only an address.
    """
    if hasattr(type(piece), "__pydantic_fields__"):
        return TypeAdapter(type(piece)).dump_python(piece, mode="json")
    return {
        "kind": kind_of(piece),
        "class": f"{type(piece).__module__}.{type(piece).__qualname__}",
        **_own_settings(piece),
    }


def _own_settings(piece: Any) -> dict[str, str]:
    slots = {name for base in type(piece).__mro__ for name in _names(base.__dict__.get("__slots__", ()))}
    there = {name for name in slots if name not in {"__dict__", "__weakref__"} and hasattr(piece, name)}
    settings = {name: _text(getattr(piece, name)) for name in sorted(there | set(getattr(piece, "__dict__", {})))}
    for name, text in settings.items():
        if " at 0x" in text:  # an address differs in every process, and with it the id of the run
            raise InputError(
                f"{type(piece).__name__}.{name} has no text of its own; give its class a __repr__ that tells its settings."
            )
    return settings


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    return [slots] if isinstance(slots, str) else slots


def _text(value: Any) -> str:
    """What tells a value apart; the `repr` of a tensor leaves out most of a large one, and that of a network its weights."""
    if isinstance(value, nn.Module):
        return f"{value} {digest_of_weights(value.state_dict())}"
    if isinstance(value, Tensor | np.ndarray):
        values = torch.as_tensor(value)
        return f"{type(value).__name__} {values.dtype} {digest_of_weights({'': values})}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_text(key)}: {_text(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{', '.join(map(_text, value))}]"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{{{', '.join(sorted(map(_text, value)))}}}"
    return repr(value)


def kind_of(piece: Any) -> str:
    """The name of a configured object, or of the class of one that has none."""
    return str(getattr(piece, "kind", type(piece).__name__))


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values."""
    hasher = hashlib.sha256()
    for name, value in weights.items():
        hasher.update(f"{name}{tuple(value.shape)}".encode() + _bytes(value))
    return hasher.hexdigest()


def _bytes(value: Tensor) -> bytes:
    plain = value.detach().cpu().contiguous()
    return bytes(plain.reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError:
        raise InputError(f"{path} cannot be read; give an existing file.") from None
