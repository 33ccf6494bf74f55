"""Weights in files: written whole or not at all, and read without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..core import InputError
from ..storage import write_bytes


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a model's weights and buffers as safetensors, whole or not at all."""
    save_tensors(path, model.state_dict())


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors, whole or not at all."""
    write_bytes(path, save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights by name from `.safetensors`, or from a torch file of tensors (`weights_only=True`: nothing in it can run).

    Raises:
        InputError: the file is missing or is neither.
    """
    if not path.is_file():
        raise InputError(f"the weights {path} do not exist; give an existing .safetensors or .pt file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"the weights {path} cannot be read: {reason}") from None
    except Exception as error:  # torch raises pickle's own error for what it refuses to unpickle
        raise InputError(f"the weights {path} hold more than tensors and are not loaded; save a state dict.") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"the weights {path} hold more than tensors by name; save model.state_dict().")
    return loaded


__all__ = ["read_weights", "save_tensors", "save_weights"]
