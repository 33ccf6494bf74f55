"""CAM: class activation mapping (Zhou et al. 2016; the paper's Eq. 2-3)."""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED, InputError
from ..models import CamClassifier
from .base import Attribution, Explainer, Space


@final
@dataclass(frozen=True, config=CONFIGURED)
class Cam(Explainer):
    """`Σ_k W[c,k] · a_k[i,j]`: signed, not rectified, on the feature map's own grid.

    Its mean over the grid plus `b[c]` is the class's logit. For tables the map is `W[c,k] · a_k` over hidden units,
    whose *sum* plus `b[c]` is the logit.
    """

    kind: Literal["cam"] = Field(default="cam", kw_only=True)
    title = "CAM"

    def check(self, model: nn.Module) -> None:
        """Raise an `InputError` unless the model is a `CamClassifier`."""
        if not isinstance(model, CamClassifier):
            raise InputError(
                f"{type(model).__name__} has no CAM head; wrap its parts in WithCamHead(body, head), or use the explainer grad."
            )
        if not model.has_linear_head:
            raise InputError(
                f"the network's head ({type(model.head).__name__}) must be one linear layer, without hooks, for CAM; move its other layers to the "
                "end of the body, or use the explainer grad."
            )

    def space(self, shape: tuple[int, ...]) -> Space:
        """Units for tables: the last hidden vector."""
        return "units" if len(shape) == 1 else "grid"

    def _attribute(
        self, model: nn.Module, inputs: Tensor, target: Tensor, graph: bool, random: torch.Generator
    ) -> Attribution:
        assert isinstance(model, CamClassifier)  # noqa: S101 - for the type checker; check() has refused others
        features = model.features(inputs)
        weights, logits = model.class_weights(target), model.classify(features)
        if features.dim() == 2:
            return Attribution(weights * features, logits=logits)
        return Attribution((weights[:, :, None, None] * features).sum(dim=1), logits=logits)
