"""What tells configured objects, weights and files apart, so that a run can be known by what decides its scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from ..core import InputError
from ..storage import sha256_of


def settings_of(piece: Any) -> Any:
    """The settings of a configured object; a class of the user's own is described by the `repr` of its attributes.

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
    settings = {name: repr(value) for name, value in sorted(vars(piece).items())} if hasattr(piece, "__dict__") else {}
    for name, text in settings.items():
        if " at 0x" in text:  # an address differs in every process, and with it the id of the run
            raise InputError(
                f"{type(piece).__name__}.{name} has no text of its own; give its class a __repr__ that tells its settings."
            )
    return settings


def kind_of(piece: Any) -> str:
    """The name of a configured object, or of the class of one that has none."""
    return str(getattr(piece, "kind", type(piece).__name__))


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values."""
    hasher = hashlib.sha256()
    for name, value in weights.items():
        hasher.update(f"{name}{tuple(value.shape)}".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError:
        raise InputError(f"{path} cannot be read; give an existing file.") from None
