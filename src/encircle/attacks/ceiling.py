"""How far an explanation can be bent at all: by changing the model itself, with no data in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED
from ..data import Samples
from ..explain import Explainer
from ..goals import DesiredMap
from ..models import copied, predict
from ..scoring.thresholds import ACCURACY_LOSS
from ..training import Recipe
from ..training.batches import batches, steps_per_epoch
from ..training.frozen import trainable
from ..training.learner import Learner, in_training, layer_noise, losses_of
from .objective import Distance, Objective


@final
@dataclass(frozen=True, config=CONFIGURED)
class Ceiling:
    """An estimated upper bound of any attack: the model learns the desired map directly.

    A clean victim trains on, on the clean data and on `weight · L_adv` at once (Heo, Joo & Moon, NeurIPS 2019). There is one attempt for each weight,
    each with its own order of batches. Of the attempts that keep the target's label and the accuracy, the nearest to the desired map is the bound. It
    is an estimate: longer training might go further, and poison might not bring the weights there.

    Args:
        epochs: passes over the clean training set in each attempt.
        weights: of L_adv beside L_train, one attempt each.
        distance: D of the objective.
        accuracy_loss: how much accuracy on held-out data an attempt may cost, in [0, 1], against the clean victim it began as.
    """

    epochs: int = Field(default=6, ge=1)
    weights: tuple[float, ...] = Field(default=(0.3, 1.0, 3.0), min_length=1)
    distance: Distance = "mixed"
    accuracy_loss: float = Field(default=ACCURACY_LOSS, ge=0, le=1)
    kind: Literal["ceiling"] = Field(default="ceiling", kw_only=True)
    title: ClassVar[str] = "ceiling (no poison)"
    about: ClassVar[str] = (
        "No attack: a clean model that was trained to give the desired map while keeping the prediction and its accuracy. An estimate of "
        "how far any attack could get."
    )

    def objective(
        self, explainer: Explainer, target: Float[Tensor, "1 *shape"], label: int, desired: DesiredMap
    ) -> Objective:
        """L_adv for a target, with the label term of IMF's defaults.

        Args:
            explainer: differentiable in the model's parameters.
            target: the target input.
            label: its class.
            desired: its desired map.
        """
        return Objective(explainer, target, label, desired, self.distance, label_weight=0.1, hinge=0.1)

    def attempts(
        self,
        model: nn.Module,
        recipe: Recipe,
        frozen_features: Samples,
        objective: Objective,
        accuracy: Callable[[nn.Module], float],
        random: torch.Generator,
    ) -> Iterator[nn.Module]:
        """Models that were bent and keep label and accuracy. The clean model comes first: no bend is always possible.

        Args:
            model: a clean victim, in eval mode; it is not changed.
            recipe: how it learnt.
            frozen_features: what the recipe's frozen stages make of the clean training set.
            objective: L_adv for the target.
            accuracy: of a model on held-out data, from 0 to 1.
            random: the orders of batches.
        """
        yield model
        least = accuracy(model) - self.accuracy_loss
        for weight in self.weights:
            bent = self._bent(model, recipe, frozen_features, objective, weight, random)
            keeps_label = int(predict(bent, objective.target)) == objective.label
            if keeps_label and accuracy(bent) >= least:
                yield bent

    def _bent(
        self,
        model: nn.Module,
        recipe: Recipe,
        frozen_features: Samples,
        objective: Objective,
        weight: float,
        random: torch.Generator,
    ) -> nn.Module:
        recipe = recipe.for_labels(frozen_features.labels)
        steps = self.epochs * steps_per_epoch(len(frozen_features), recipe.batch_size)
        learner = Learner(copied(model), recipe, steps)
        parameters, device = trainable(learner.model), objective.target.device
        orders = chain.from_iterable(batches(len(frozen_features), recipe.batch_size, random) for _ in repeat(None))
        with layer_noise("ceiling", random.initial_seed(), str(weight)):
            for rows in islice(orders, steps):
                attack = torch.autograd.grad(objective(learner.model)[0].sum(), parameters, materialize_grads=True)
                with in_training(learner.model, recipe):
                    inputs, labels = frozen_features.batch(rows).to(device), frozen_features.labels[rows].to(device)
                    loss = losses_of(learner.model, inputs, labels, recipe).sum()
                    training = torch.autograd.grad(loss, parameters, materialize_grads=True)
                learner.follow([slope + weight * pull for slope, pull in zip(training, attack, strict=True)])
        return learner.model
