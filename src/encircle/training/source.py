"""Where models start: a way to build one, its checkpoints, and the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from ..core import InputError
from ..models import Adapter, fitting, layout_of, split
from ..seeds import derive_seed
from .recipe import Recipe


@final
class Source:
    """Where models start: a way to build one, and the checkpoint for recipes that start from one.

    Args:
        build: makes the network with fresh weights. It is called with torch's global generator seeded.
        checkpoint: weights by name, or None.
        device: of the models.
        others: more checkpoints. A model's seed chooses one of all.

    Raises:
        InputError: this machine has no such device.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        checkpoint: dict[str, Tensor] | None = None,
        device: str | torch.device = "cpu",
        *,
        others: Sequence[dict[str, Tensor]] = (),
    ) -> None:
        self.build = build
        self.checkpoint = checkpoint
        self.others = tuple(others)
        self.device = available(device)

    def model(self, recipe: Recipe, role: str, seed: int) -> nn.Module:
        """A model at the start of this recipe, its early stages frozen, in eval mode.

        Args:
            recipe: says how it starts, and how many stages are frozen.
            role: of the model; models of different roles share no random numbers.
            seed: of its fresh weights, and of the choice among checkpoints.

        Raises:
            InputError: the recipe wants a checkpoint and there is none, or the checkpoint does not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(role, "start", seed))
            model = self.build()
        if recipe.start == "checkpoint":
            if self.checkpoint is None:
                raise InputError(
                    "the recipe starts from a checkpoint but there is none; give weights or a pre-training recipe."
                )
            checkpoints = (self.checkpoint, *self.others)
            weights, _ = fitting(checkpoints[seed % len(checkpoints)], model)
            model.load_state_dict(weights, strict=False)
        early, frozen = split(model, recipe.frozen_stages)
        if early is not None:
            for stage in early.stages[:frozen]:
                stage.requires_grad_(False)
        layout = self.build.layout(model) if isinstance(self.build, Adapter) else layout_of(model)
        return model.to(self.device, memory_format=layout).eval()  # type: ignore[call-overload, no-any-return]


def available(device: str | torch.device) -> torch.device:
    """The device, if this machine has it.

    Raises:
        InputError: torch knows no such device, or finds none here.
    """
    try:
        chosen = torch.device(device)
        usable = chosen.type != "meta" and bool(torch.zeros(1, device=chosen).cpu()[0] == 0)
    except Exception:
        usable = False
    if not usable:
        raise InputError(
            f"torch finds no device {str(device)!r} on this machine; choose cpu, or a machine that has it."
        )
    return chosen
