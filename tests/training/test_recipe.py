"""Recipes: schedules in numbers, optimisers over what learns, and what makes no sense."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from encircle.core import InputError
from encircle.training import Recipe
from tests.networks import tiny


@given(st.floats(0, 1))
def test_cosine_falls_from_lr_to_zero(progress: float) -> None:
    rate = Recipe(schedule="cosine", lr=0.2).rate(progress)
    assert rate == pytest.approx(0.2 * math.cos(math.pi * progress / 2) ** 2, abs=1e-12)  # the half-angle form


def test_cosine_stays_at_zero_when_training_goes_on() -> None:
    assert Recipe(schedule="cosine").rate(1.7) == pytest.approx(0, abs=1e-15)


@given(st.floats(0, 5))
def test_constant_is_constant(progress: float) -> None:
    assert Recipe(lr=0.3).rate(progress) == 0.3


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)])
def test_the_optimiser_moves_only_what_is_not_frozen(name: Any, kind: type[torch.optim.Optimizer]) -> None:
    model = tiny("image")
    model.first.requires_grad_(False)
    optimiser = Recipe(optimiser=name, lr=0.2, momentum=0.5, weight_decay=0.01).build_optimiser(model)
    assert isinstance(optimiser, kind)
    (group,) = optimiser.param_groups
    assert {id(value) for value in group["params"]} == {
        id(value) for value in (*model.second.parameters(), *model.head.parameters())
    }
    assert (group["lr"], group["weight_decay"]) == (0.2, 0.01)
    assert group.get("momentum", 0.5) == 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"frozen_stages": 1},
        {"frozen_stages": -1, "start": "checkpoint"},
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1e-3},
        {"optimiser": "lion"},
        {"schedule": "step"},
        {"batch_norm": "frozen"},
        {"class_weights": (1.0, 0.0)},
        {"class_weights": (1.0, float("inf"))},
        {"start": "somewhere"},
        {"starts": 2},
        {"starts": 0, "start": "checkpoint"},
        {"learning_rate": 0.1},
    ],
    ids=str,
)
def test_refuses_what_makes_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**settings)


def test_each_sample_weighs_as_its_class_does() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    assert Recipe().weights_of(labels) is None
    weights = Recipe(class_weights=(0.5, 4.0)).weights_of(labels)
    assert weights is not None
    assert weights.tolist() == [0.5, 4.0, 4.0, 0.5]


def test_balanced_weights_make_every_class_count_alike_in_what_is_learnt_from() -> None:
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 3, 3])
    how = Recipe(class_weights="balanced").for_labels(labels)
    assert how.class_weights == pytest.approx((8 / (4 * 5), 8 / 4, 1.0, 8 / (4 * 2)))
    weights = how.weights_of(labels)
    assert weights is not None
    sums = [float(weights[labels == label].sum()) for label in (0, 1, 3)]
    assert sums == pytest.approx([2.0, 2.0, 2.0])
    assert how.for_labels(labels[:3]) is how  # once worked out they stay
    plain = Recipe(class_weights=(1.0, 2.0))
    assert plain.for_labels(labels) is plain
    with pytest.raises(InputError, match="for_labels first"):
        Recipe(class_weights="balanced").weights_of(labels)


def test_frozen_stages_are_shared_by_models_of_one_start_only() -> None:
    shared = Recipe(start="checkpoint", frozen_stages=2)
    assert shared.shared_stages == 2
    assert replace(shared, starts=3).shared_stages == 0
