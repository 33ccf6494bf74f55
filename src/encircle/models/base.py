"""What a classifier must offer to be explained by CAM and to be fine-tuned with early stages frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core import InputError


class CamClassifier(nn.Module, ABC):
    """A classifier `z = W·pool(a) + b` (Zhou et al. 2016): stages in order, then a linear head on pooled features.

    The last stage gives `a`: `(n, k, h, w)` for images, pooled by the mean over the grid, or `(n, k)` for tables,
    where nothing is pooled.
    """

    head: nn.Linear

    @property
    @abstractmethod
    def stages(self) -> Sequence[nn.Module]:
        """The modules that turn inputs into features, in order; `frozen_stages` counts from the first."""

    @final
    def early(self, inputs: Float[Tensor, "n *shape"], count: int) -> Float[Tensor, "n *features"]:
        """The output of the first `count` stages (the inputs themselves for 0)."""
        for stage in self.stages[:count]:
            inputs = stage(inputs)
        return inputs

    @final
    def late(self, frozen_features: Float[Tensor, "n *features"], start: int) -> Float[Tensor, "n classes"]:
        """Logits from the output of the first `start` stages: `late(early(x, s), s) == model(x)`."""
        for stage in self.stages[start:]:
            frozen_features = stage(frozen_features)
        return self.classify(frozen_features)

    @final
    def features(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *features"]:
        """The last feature map `(n, k, h, w)`, or the last hidden vector `(n, k)`."""
        return self.early(inputs, len(self.stages))

    @final
    def classify(self, features: Float[Tensor, "n *features"]) -> Float[Tensor, "n classes"]:
        """Logits from features."""
        pooled = features.mean(dim=(2, 3)) if features.dim() == 4 else features
        return cast(Tensor, self.head(pooled))

    @property
    def has_linear_head(self) -> bool:
        """Whether the head is one linear layer, so that CAM's weights exist."""
        head: nn.Module = self.head
        return isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward and not hooked(head)

    def class_weights(self, target: Int[Tensor, "n"]) -> Float[Tensor, "n k"]:
        """The head's weights of a class, for each row. Only in a `Stack` of networks do they differ from row to row."""
        return self.head.weight[target]

    @final  # type: ignore[misc]
    def forward(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits."""
        return self.classify(self.features(inputs))


@final
class WithCamHead(CamClassifier):
    """Your own network, split into a body that gives feature maps and a linear head, so that CAM can explain it.

    Args:
        body: a module that gives `(n, k, h, w)` or `(n, k)`. The children of an `nn.Sequential` count as stages.
        head: the linear layer on the (mean-pooled) features. It may be another module, but CAM cannot explain that.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = cast(nn.Linear, head)

    @property
    def stages(self) -> Sequence[nn.Module]:
        """The children of a plain `nn.Sequential`, or the body as a single stage."""
        body = self.body
        in_turn = isinstance(body, nn.Sequential) and type(body).forward is nn.Sequential.forward and not hooked(body)
        return list(cast(nn.Sequential, body)) if in_turn else [body]


@final
class Standardise(nn.Module):
    """Inputs in [0, 1] to zero mean and unit variance per channel or column; part of the model.

    Perturbations and input gradients are in the units of the raw input, like the budget.

    Args:
        mean: per channel or column.
        std: likewise.
        trailing: number of axes after the channel: 2 for images, 0 for rows of a table.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, trailing: int) -> None:
        super().__init__()
        shape = (len(mean), *([1] * trailing))
        self.register_buffer("mean", torch.tensor(list(mean)).reshape(shape))
        self.register_buffer("std", torch.tensor(list(std)).reshape(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """The standardised inputs."""
        return (inputs - self.mean) / self.std


def hooked(module: nn.Module) -> bool:
    """Whether hooks change what the module's forward does; those that are `observing` do not."""
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return any(not getattr(hook, "observes", False) for hook in hooks)


def observing(hook: Callable[..., None]) -> Callable[..., None]:
    """Mark a hook that changes nothing."""
    hook.observes = True  # type: ignore[attr-defined]
    return hook


def split(model: nn.Module, frozen_stages: int) -> tuple[CamClassifier | None, int]:
    """The model as one that can be split after its frozen stages, or `(None, 0)` when nothing is frozen.

    Raises:
        InputError: stages are to be frozen but the model has none, or has too few.
    """
    if frozen_stages == 0:
        return None, 0
    if not isinstance(model, CamClassifier):
        raise InputError(
            f"frozen_stages={frozen_stages} needs a model with stages; wrap {type(model).__name__} in WithCamHead(body, head)."
        )
    if frozen_stages > len(model.stages):
        raise InputError(
            f"frozen_stages={frozen_stages} but the model has {len(model.stages)} stages; use that or fewer."
        )
    return model, frozen_stages


def predict(model: nn.Module, inputs: Float[Tensor, "n *shape"]) -> Int[Tensor, "n"]:
    """The predicted classes, without gradients."""
    with torch.no_grad():
        return cast(Tensor, model(inputs)).argmax(dim=1)
