"""Feature encirclement: the poison's features surround what the desired map shows of the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import CONFIGURED, InputError
from ..models import CamClassifier, split
from ..training.frozen import frozen_forward
from .objective import Objective
from .surrogate import Iteration, SurrogateAttack

MIDDLE = 0.5
"""Of a column's range: what stands for one that the desired map does not show, or shows."""


def shown_and_rest(
    objective: Objective, see: Callable[[Tensor], Tensor]
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The target's pooled features as they would be if only what the desired map shows were there, and if only the rest were.

    A feature map `(n, k, h, w)` is pooled with the desired map as weights (brought to the features' grid), and with one minus it. Hidden units `(n, k)`
    are kept or dropped one by one where the map is over them; where it is over a table's columns, those are moved to the middle of their range before they
    go through the model. What a mask leaves out is neither shown nor the rest.

    Args:
        objective: knows target and desired map, of which only how it varies matters.
        see: gives the last feature map or hidden vector of inputs, a row for each of n models.

    Raises:
        InputError: the map's entries are not places in inputs or features.
    """
    values, target = objective.desired.values.to(objective.target), objective.target
    matters = torch.ones_like(values) if objective.desired.mask is None else objective.desired.mask.to(values)
    low, high = values[matters > 0].aminmax()
    shown = matters * ((values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)).clamp(0, 1)
    rest = matters - shown
    over_units = objective.explainer.space(tuple(target.shape[1:])) == "units"
    if target.shape[1:] == shown.shape and not over_units:
        parts = (see(MIDDLE + (target - MIDDLE) * weights) for weights in (shown, rest))
        return next(parts), next(parts)
    found = see(target)
    if found.dim() == 4 and shown.dim() == 2:
        grids = [
            F.adaptive_avg_pool2d(weights[None, None], (found.shape[2], found.shape[3])) for weights in (shown, rest)
        ]
        return _pooled(found, grids[0]), _pooled(found, grids[1])
    if over_units and found.shape[1:] == shown.shape:
        return found * shown, found * rest
    raise InputError(
        f"a desired map of shape {tuple(shown.shape)} lies neither over inputs of shape {tuple(target.shape[1:])} nor over features of shape "
        f"{tuple(found.shape[1:])}, so feature encirclement does not know what it shows; choose another attack."
    )


def _pooled(features: Tensor, weights: Tensor) -> Tensor:
    return (features * weights).sum(dim=(2, 3)) / weights.sum().clamp(min=1e-6)


@final
@dataclass(frozen=True, config=CONFIGURED)
class FeatureEncirclement(SurrogateAttack):
    """Poison that surrounds the target in feature space, each class where the map should have it (Aghakhani et al., *Bullseye Polytope*, EuroS&P 2021).

    Bullseye Polytope brings the mean of the poison's features to the target's. Here poison of the target's class is brought to what the desired map
    shows of them, so that the class is learnt from there; poison of other classes (`other_share`) to the rest, so that this is learnt to speak for
    them: `−∇_X ‖mean_j φ(x_j) − φ_shown‖² / ‖φ(T)‖²`, and likewise of the rest. Models that learn from it go on learning, as IMF's do. What concerns
    L_adv (`distance`, `label_weight`, `hinge`, `softplus`) is only noted, and decides which of several attempts is kept.
    """

    kind: Literal["encirclement"] = Field(default="encirclement", kw_only=True)
    title = "feature encirclement"
    about = (
        "Poison that surrounds, in the model's features, what the desired map shows of the target. It looks at no gradient of the "
        "explanation."
    )

    def check(self, model: nn.Module) -> None:
        """Raise an `InputError` unless the model has features to move in."""
        if not isinstance(model, CamClassifier):
            raise InputError(
                f"feature encirclement needs a model with features and {type(model).__name__} has no CAM head; wrap its parts in WithCamHead(body, head), or "
                "choose another attack."
            )

    def _shares(
        self, iteration: Iteration, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *features"], list[dict[str, float]]]:
        objective, frozen = iteration.objective, iteration.ensemble.recipe.shared_stages
        first = iteration.ensemble.learners[0].model

        def of_each(inputs: Tensor) -> Tensor:
            seen = frozen_forward(first, inputs, frozen)
            return features(model, seen.expand(members, *seen.shape[1:]), frozen)

        with torch.no_grad():
            shown, rest = shown_and_rest(objective, of_each)
            target_features = _mean(of_each(objective.target))
        leaf = iteration.frozen_features.repeat(members, *[1] * (iteration.frozen_features.dim() - 1)).requires_grad_()
        found = features(model, leaf, frozen)
        found = _mean(found).reshape(members, len(iteration.labels), -1)
        mine = iteration.labels == objective.label
        feature_distance = torch.zeros(members, device=found.device, dtype=found.dtype)
        for rows, wanted in ((mine, shown), (~mine, rest)):
            if bool(rows.any()):
                feature_distance = feature_distance + ((found[:, rows].mean(dim=1) - wanted) ** 2).sum(dim=1) / _length(
                    target_features
                )
        shares = -torch.autograd.grad(feature_distance.sum(), leaf)[0]
        return shares.reshape(members, *iteration.frozen_features.shape), [
            {"feature_distance": one} for one in feature_distance.tolist()
        ]


def features(model: nn.Module, frozen_features: Tensor, frozen: int) -> Tensor:
    """The last feature map or hidden vector, from the output of the frozen stages."""
    if not isinstance(model, CamClassifier):
        raise InputError(
            f"feature encirclement needs to know a model's features; wrap {type(model).__name__} in WithCamHead(body, head)."
        )
    split(model, frozen)
    for stage in model.stages[frozen:]:
        frozen_features = stage(frozen_features)
    return frozen_features


def _mean(found: Tensor) -> Tensor:
    return found.mean(dim=(2, 3)) if found.dim() == 4 else found


def _length(target_features: Tensor) -> Tensor:
    """‖φ‖² of each model, or 1 for one that sees nothing at all in the target: a dead model has nothing to say."""
    length = (target_features**2).sum(dim=1)
    return torch.where(length > 0, length, 1)
