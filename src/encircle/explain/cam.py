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

    Example:
        >>> from encircle.models import WithCamHead
        >>> head = nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 2.0]]))
        >>> model = WithCamHead(nn.ReLU(), head)
        >>> Cam().attribute(model, torch.tensor([[0.5, 0.25]]), torch.tensor([0]))  # sums to the logit of class 0
        tensor([[ 0.5000, -0.2500]])
    """

    kind: Literal["cam"] = Field(default="cam", kw_only=True)
    title = "CAM"
    about = (
        "What each place of the image adds to the class's score, read from the last layer's features. For a "
        "table: what each hidden unit adds."
    )

    def check(self, model: nn.Module) -> None:
        """Refuse models without a CAM head, that is, one linear layer after the features.

        Raises:
            InputError: the model is no `CamClassifier`, or its head is more than a linear layer.
        """
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
