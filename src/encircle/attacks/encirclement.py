"""Feature encirclement: the poison's features surround what the desired map shows of the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, final

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
"""The middle of a column's range: the value of a column that is left out."""


def shown_and_rest(
    objective: Objective, features_of: Callable[[Tensor], Tensor]
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The target's pooled features, of the part that the desired map shows and of the rest.

    A feature map `(n, k, h, w)` is pooled with the desired map as weights (brought to the features' grid), and with one minus it. If the map is over
    hidden units `(n, k)`, they are multiplied by these weights. If it is over a table's columns, those are moved to the middle of their range before
    they go through the model. Entries that a mask leaves out are in neither part.

    Args:
        objective: knows target and desired map. The map's scale does not matter.
        features_of: gives the last feature map or hidden vector of inputs, a row for each of n models.

    Returns:
        The shown part's features and the rest's, `(n, k)` each.

    Raises:
        InputError: the map is neither over inputs nor over features.
    """
    values, target = objective.desired.values.to(objective.target), objective.target
    mask = torch.ones_like(values) if objective.desired.mask is None else objective.desired.mask.to(values)
    low, high = values[mask > 0].aminmax()
    shown = mask * ((values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)).clamp(0, 1)
    rest = mask - shown
    over_units = objective.explainer.space(tuple(target.shape[1:])) == "units"
    if target.shape[1:] == shown.shape and not over_units:
        parts = (features_of(MIDDLE + (target - MIDDLE) * weights) for weights in (shown, rest))
        return next(parts), next(parts)
    features = features_of(target)
    if features.dim() == 4 and shown.dim() == 2:
        grid = (features.shape[2], features.shape[3])
        shown, rest = (F.adaptive_avg_pool2d(weights[None, None], grid) for weights in (shown, rest))
        return _pooled(features, shown), _pooled(features, rest)
    if over_units and features.shape[1:] == shown.shape:
        return features * shown, features * rest
    raise InputError(
        f"a desired map of shape {tuple(shown.shape)} lies neither over inputs of shape {tuple(target.shape[1:])} nor over features of shape "
        f"{tuple(features.shape[1:])}, so feature encirclement does not know what it shows; choose another attack."
    )


def _pooled(features: Tensor, weights: Tensor) -> Tensor:
    return (features * weights).sum(dim=(2, 3)) / weights.sum().clamp(min=1e-6)


@final
@dataclass(frozen=True, config=CONFIGURED)
class FeatureEncirclement(SurrogateAttack):
    """Poison that surrounds the target in feature space, each class where the map should have it.

    Bullseye Polytope (Aghakhani et al., EuroS&P 2021) brings the mean of the poison's features to the target's. Here poison of the target's class is
    brought to the part of them that the desired map shows, so that the class is learnt from there. Poison of other classes (`other_share`) is brought
    to the rest, which is then learnt as theirs: `−∇_X ‖mean_j φ(x_j) − φ_shown‖² / ‖φ(T)‖²`, and likewise for the rest. Surrogates learn from the poison
    meanwhile, as IMF's do. The settings of L_adv (`distance`, `label_weight`, `hinge`, `softplus`) move no poison: they decide which of several
    attempts is kept.
    """

    kind: Literal["encirclement"] = Field(default="encirclement", kw_only=True)
    title = "feature encirclement"
    uses_attack_gradient: ClassVar[bool] = False
    about = (
        "Poison that surrounds, in the model's features, what the desired map shows of the target. It looks at no gradient of the "
        "explanation."
    )

    def check(self, model: nn.Module) -> None:
        """Refuse a model without features to move in.

        Raises:
            InputError: the model is no `CamClassifier`.
        """
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

        def target_features_of(inputs: Tensor) -> Tensor:
            frozen_features = frozen_forward(first, inputs, frozen)
            return features(model, frozen_features.expand(members, *frozen_features.shape[1:]), frozen)

        with torch.no_grad():
            shown, rest = shown_and_rest(objective, target_features_of)
            target_features = _pooled_mean(target_features_of(objective.target))
        leaf = iteration.repeated(members)[0].requires_grad_()
        poison = _pooled_mean(features(model, leaf, frozen)).reshape(members, len(iteration.labels), -1)
        is_target_class = iteration.labels == objective.label
        distances = torch.zeros(members, device=poison.device, dtype=poison.dtype)
        for rows, wanted in ((is_target_class, shown), (~is_target_class, rest)):
            if bool(rows.any()):
                squared = ((poison[:, rows].mean(dim=1) - wanted) ** 2).sum(dim=1)
                distances = distances + squared / _squared_norm(target_features)
        shares = -torch.autograd.grad(distances.sum(), leaf)[0]
        notes = [{"feature_distance": distance} for distance in distances.tolist()]
        return shares.reshape(members, *iteration.frozen_features.shape), notes


def features(model: nn.Module, frozen_features: Tensor, frozen: int) -> Tensor:
    """The last feature map `(n, k, h, w)` or hidden vector `(n, k)`, from the output of the frozen stages.

    Args:
        model: a `CamClassifier`.
        frozen_features: the output of the frozen stages.
        frozen: number of frozen stages.

    Raises:
        InputError: the model has no CAM head, or too few stages.
    """
    if not isinstance(model, CamClassifier):
        raise InputError(
            f"feature encirclement needs to know a model's features; wrap {type(model).__name__} in WithCamHead(body, head)."
        )
    split(model, frozen)
    for stage in model.stages[frozen:]:
        frozen_features = stage(frozen_features)
    return frozen_features


def _pooled_mean(values: Tensor) -> Tensor:
    return values.mean(dim=(2, 3)) if values.dim() == 4 else values


def _squared_norm(target_features: Tensor) -> Tensor:
    """‖φ‖² of each model, or 1 where all of the target's features are zero."""
    squared = (target_features**2).sum(dim=1)
    return torch.where(squared > 0, squared, 1)
