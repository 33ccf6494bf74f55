"""Differentiable steps: they are the optimiser's own, and their graph is that of what they compute."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.func import functional_call

from encircle.training.differentiable import differentiable_steps
from encircle.training.learner import Learner, in_training
from tests.training.problems import recipe, same, samples, source, weights

WAYS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "adam": {"optimiser": "adam", "lr": 0.01, "weight_decay": 0.01},
    "cosine": {"schedule": "cosine"},
    "weighed": {"class_weights": (1.0, 3.0, 0.5)},
    "frozen": {"start": "checkpoint", "batch_norm": "frozen", "frozen_stages": 1},
}


def learner_of(kind: Any, changes: dict[str, Any], taken: int) -> tuple[Learner, list[tuple[Any, Any]]]:
    """A learner that has taken some steps, and batches that it has not seen; one of them is too small to learn from."""
    how, data = recipe(**changes), samples(kind)
    learner = Learner(source(kind).model(how, "victim", 0), how, 20)
    frozen_features = data.inputs
    if how.frozen_stages:
        frozen_features = learner.model.stages[0](frozen_features).detach()  # type: ignore[union-attr, index, operator]
    parts = [(frozen_features[at : at + 5], data.labels[at : at + 5]) for at in range(0, 20, 5)]
    with in_training(learner.model, how):
        for inputs, labels in parts[:taken]:
            learner.advance(inputs, labels)
    return learner, [*parts[:2], (frozen_features[:1], data.labels[:1]), *parts[2:]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("taken", [0, 3])
def test_steps_are_those_of_the_optimiser(kind: Any, way: str, taken: int) -> None:
    if kind == "table" and way == "frozen":
        pytest.skip("a two-layer network has no stages")
    learner, batches = learner_of(kind, WAYS[way], taken)
    before, slow = weights(learner.model), copy.deepcopy(learner)
    functional, actual = differentiable_steps(learner, batches)
    with in_training(slow.model, slow.recipe):
        for inputs, labels in batches:
            slow.advance(inputs, labels)
    expected = dict(slow.model.named_parameters())
    assert {name.removeprefix("model.") for name in actual} == {
        name for name, value in expected.items() if value.requires_grad
    }
    for name, value in actual.items():
        assert torch.allclose(value, expected[name.removeprefix("model.")], rtol=1e-9, atol=1e-11)
    for name, value in slow.model.named_buffers():
        assert torch.allclose(value, functional.model.get_buffer(name))
    names = [name for name, _ in learner.model.named_parameters()]
    assert same({name: before[name] for name in names}, {name: weights(learner.model)[name] for name in names})
    assert not functional.model.training


@pytest.mark.parametrize("way", ["momentum", "adam"])
def test_no_steps_are_no_steps(way: str) -> None:
    learner, _ = learner_of("table", WAYS[way], 2)
    _, actual = differentiable_steps(learner, [])
    assert all(
        torch.equal(value, learner.model.get_parameter(name.removeprefix("model."))) for name, value in actual.items()
    )


@pytest.mark.parametrize("way", ["momentum", "adam", "weighed"])
@pytest.mark.parametrize("taken", [0, 3])
def test_the_graph_is_that_of_the_steps(way: str, taken: int) -> None:
    learner, batches = learner_of("table", WAYS[way], taken)
    inputs, labels = batches[0]
    ask = torch.linspace(0, 1, 5, dtype=torch.float64)

    def outcome(first: torch.Tensor) -> torch.Tensor:
        functional, parameters = differentiable_steps(learner, [(first, labels), *batches[1:]])
        logits: torch.Tensor = functional_call(functional, parameters, (lambda model: model(ask[None]),))
        return logits.square().sum()

    assert torch.autograd.gradcheck(outcome, (inputs.clone().requires_grad_(),), eps=1e-6, atol=1e-6, rtol=1e-4)
