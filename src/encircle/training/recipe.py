"""How a victim learns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..core import CONFIGURED, InputError


@final
@dataclass(frozen=True, config=CONFIGURED)
class Recipe:
    """A training recipe.

    The same recipe, seed and data give the same weights bit for bit, on the same machine and with the same thread count.

    Args:
        start: `"scratch"` (fresh weights a seed) or `"checkpoint"` (every model starts from the same weights, or from one of `starts`).
        frozen_stages: number of early stages that keep their starting weights and batch statistics; needs a checkpoint.
        starts: number of checkpoints, each learnt by the pre-training recipe from a seed of its own. An attack's surrogates take them in turn, other
            models by their seeds. With several no frozen stages are shared. `attacker: {recipe: {starts: 8}}` lacks the victims' starting weights and
            learns eight of its own.
        epochs: passes over the training set.
        batch_size: samples a step.
        lr: learning rate.
        optimiser: `"sgd"` or `"adam"`.
        momentum: of SGD.
        weight_decay: L2 penalty.
        schedule: `"constant"`, or `"cosine"` to zero over the whole training.
        precision: `"bfloat16"` trains in mixed precision (autocast). Compare its results with clean victims and a seed null of the same precision only.
            Explanations, poison and scores are always computed in float32.
        batch_norm: `"frozen"` keeps every batch normalisation on its starting statistics; needs a checkpoint. Scale and shift are still learnt, except in
            frozen stages.
        class_weights: a factor on the loss of each class's samples. `"balanced"` is N / (C · N_c) of the training set, poison included: every class counts
            alike, however many samples are added to it. None weighs all samples alike.
        augmentation: `"flip-and-shift"` mirrors images left to right or not, and shifts them by up to an eighth of their side, at random in every step. Not
            with frozen stages, whose outputs are stored. None leaves images as they are.
    """

    start: Literal["scratch", "checkpoint"] = "scratch"
    frozen_stages: int = Field(default=0, ge=0)
    starts: int = Field(default=1, ge=1)
    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.05, gt=0)
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_norm: Literal["train", "frozen"] = "train"
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    augmentation: Literal["flip-and-shift"] | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Recipe:
        if self.frozen_stages and self.start == "scratch":
            raise ValueError("frozen_stages needs start='checkpoint': frozen random stages would never learn anything")
        if self.starts > 1 and self.start == "scratch":
            raise ValueError(
                "several starts need start='checkpoint': from scratch every model starts by itself already"
            )
        if self.batch_norm == "frozen" and self.start == "scratch":
            raise ValueError("batch_norm='frozen' needs start='checkpoint': fresh statistics describe no data")
        if self.augmentation is not None and self.frozen_stages:
            raise ValueError(
                "augmentation needs frozen_stages=0: what frozen stages make of an image is worked out once"
            )
        return self

    @property
    def shared_stages(self) -> int:
        """Number of early stages that all models share: the frozen ones, if there is a single checkpoint."""
        return self.frozen_stages if self.starts == 1 else 0

    def build_optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over the parameters that are not frozen."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def rate(self, progress: float) -> float:
        """The learning rate after this share (0 to 1) of the whole training.

        Examples:
            >>> recipe = Recipe(lr=0.1, schedule="cosine")
            >>> recipe.rate(0.0), round(recipe.rate(0.5), 3), recipe.rate(1.0)
            (0.1, 0.05, 0.0)
        """
        return self.lr if self.schedule == "constant" else self.lr * (1 + math.cos(math.pi * min(progress, 1))) / 2

    def weights_of(self, labels: Int[Tensor, "n"]) -> Float[Tensor, "n"] | None:
        """Each sample's factor on its loss; None where all weigh alike.

        Raises:
            InputError: the class weights are balanced, and not yet those of a training set.
        """
        if isinstance(self.class_weights, str):
            raise InputError(
                "balanced class weights depend on the training set; work them out with Recipe.for_labels first."
            )
        return None if self.class_weights is None else torch.tensor(self.class_weights, device=labels.device)[labels]

    def for_labels(self, labels: Int[Tensor, "n"]) -> Recipe:
        """This recipe for a training set with these labels: balanced class weights become numbers.

        A class without samples weighs 1.

        Examples:
            >>> Recipe(class_weights="balanced").for_labels(torch.tensor([0, 0, 0, 1])).class_weights
            (0.6666666865348816, 2.0)
        """
        if self.class_weights != "balanced":
            return self
        counts = labels.bincount()
        weights = torch.where(counts > 0, len(labels) / (len(counts) * counts.clamp(min=1)), 1.0)
        return replace(self, class_weights=tuple(weights.tolist()))
