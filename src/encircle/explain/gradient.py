"""GRAD: gradient saliency (Simonyan et al. 2013; the paper's Eq. 1)."""

from __future__ import annotations

from typing import Literal, cast, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import CONFIGURED
from ..models import CamClassifier
from .base import Attribution, Explainer


@final
@dataclass(frozen=True, config=CONFIGURED)
class Grad(Explainer):
    """Absolute gradient of the class score with respect to the input.

    Args:
        of: the score: `"probability"` (Eq. 1), `"log-probability"` or `"logit"`.
        channels: how the colours of a pixel become one value: `"max"` (Simonyan et al.) or `"sum"`.
        grid: the grid that image maps are average-pooled to before scoring; `"cam"` is the model's feature map
            (and no pooling for models without one), None is no pooling.

    Example:
        >>> model = nn.Linear(3, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]]))
        >>> Grad().attribute(model, torch.zeros(1, 3), torch.tensor([0]))  # p (1 - p) |w| with p = 0.5
        tensor([[0.2500, 0.0000, 0.5000]])
    """

    of: Literal["probability", "log-probability", "logit"] = "probability"
    channels: Literal["max", "sum"] = "max"
    grid: tuple[int, int] | Literal["cam"] | None = "cam"
    kind: Literal["grad"] = Field(default="grad", kw_only=True)
    title = "GRAD"
    about = (
        "How much each pixel or column would change the class's score if it changed a little: the size of the "
        "score's gradient at the input."
    )

    def _attribute(
        self, model: nn.Module, inputs: Tensor, target: Tensor, graph: bool, random: torch.Generator
    ) -> Attribution:
        # Detached from whatever made the inputs: a map is a function of the model's parameters here.
        leaf = inputs.detach().requires_grad_()
        logits, cam_grid = _logits(model, leaf)
        score, scale = self._score(logits, target)
        (gradient,) = torch.autograd.grad(score.sum(), leaf, create_graph=graph)
        maps = gradient.abs() * scale.reshape(-1, *[1] * (gradient.dim() - 1))
        if maps.dim() != 4:
            return Attribution(maps, logits=logits)
        maps = maps.amax(dim=1) if self.channels == "max" else maps.sum(dim=1)
        return Attribution(maps, cam_grid if self.grid == "cam" else self.grid, logits)

    def _score(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """A score and a positive factor whose product with the score's gradient is the gradient wanted.

        The probability is split as dp = p(1-p) dm with the margin m = z_c - log Σ_{j≠c} exp z_j: autograd through the
        softmax would lose 1-p to rounding as soon as p is 1 in floating point, and the map with it.
        """
        chosen = logits.gather(1, target[:, None])[:, 0]
        unit = torch.ones_like(chosen)
        if self.of == "logit":
            return chosen, unit
        others = logits.scatter(1, target[:, None], -torch.inf)
        margin = chosen - others.logsumexp(dim=1)
        if self.of == "log-probability":
            return margin, torch.exp(F.logsigmoid(-margin))
        return margin, torch.exp(F.logsigmoid(margin) + F.logsigmoid(-margin))


def _logits(model: nn.Module, inputs: Tensor) -> tuple[Tensor, tuple[int, int] | None]:
    """Logits and, for a model with a CAM head on images, the grid of its feature map."""
    if not isinstance(model, CamClassifier):
        return cast(Tensor, model(inputs)), None
    features = model.features(inputs)
    grid = (features.shape[2], features.shape[3]) if features.dim() == 4 else None
    return model.classify(features), grid
