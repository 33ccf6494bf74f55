"""Weights in files: written whole or not at all, and read without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..core import InputError
from ..models.checkpoint import check_finite, named_tensors
from ..storage import write_bytes


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a model's weights and buffers as safetensors, whole or not at all."""
    save_tensors(path, model.state_dict())


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors, whole or not at all."""
    write_bytes(path, save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights by name from `.safetensors`, or from a torch file of tensors.

    Torch files are read with `weights_only=True`: nothing in them can run. A training checkpoint may be given if exactly one of its entries is a state
    dictionary.

    Raises:
        InputError: the file is missing or is neither, holds several state dictionaries, or a tensor in it is not finite.
    """
    if not path.is_file():
        raise InputError(f"the weights {path} do not exist; give an existing .safetensors or .pt file.")
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"the weights {path} cannot be read: {reason}") from None
    except Exception as error:  # torch raises pickle's own error for what it refuses to unpickle
        raise InputError(f"the weights {path} hold more than tensors and are not loaded; save a state dict.") from error
    tensors = named_tensors(content, f"the weights {path}")
    check_finite(tensors, f"the weights {path}")
    return tensors


__all__ = ["read_weights", "save_tensors", "save_weights"]
