"""A learner's steps are the textbook's, by its recipe."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from encircle.seeds import generator
from encircle.training import Learner, fit
from encircle.training.batches import batches
from encircle.training.learner import losses_of
from tests.networks import tiny
from tests.training.problems import recipe, same, samples, source, weights

KINDS = ["image", "table"]


def by_hand(model: nn.Module, how: Any, data: Any, order: list[Tensor], steps: int) -> None:
    """SGD with momentum and weight decay as in the textbook, on whole inputs."""
    velocity = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for taken, rows in enumerate(order):
        model.train()
        loss = F.cross_entropy(model(data.inputs[rows]), data.labels[rows])
        named = dict(model.named_parameters())
        gradients = torch.autograd.grad(loss, list(named.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(named.items(), gradients, strict=True):
                velocity[name] = how.momentum * velocity[name] + gradient + how.weight_decay * value
                value.sub_(how.rate(taken / steps) * velocity[name])


@pytest.mark.parametrize("kind", KINDS)
def test_is_the_textbook_s_sgd(kind: Any) -> None:
    start, how, data = source(kind), recipe(schedule="cosine", lr=0.1), samples(kind)
    order = generator("victim", "order", 2)
    drawn = [rows for _ in range(3) for rows in batches(len(data), 5, order)]
    expected = start.model(how, "victim", 2)
    by_hand(expected, how, data, drawn, len(drawn))
    actual = weights(fit(start, how, data, "victim", 2))
    for name, value in weights(expected).items():
        torch.testing.assert_close(actual[name], value, rtol=1e-9, atol=1e-12)


class TestLearner:
    def test_reports_the_loss_and_counts_its_steps(self) -> None:
        model, data = tiny("table"), samples("table", 6)
        learner = Learner(model, recipe(), 10)
        expected = float(F.cross_entropy(model(data.inputs), data.labels).detach())
        assert learner.step(data.inputs, data.labels) == pytest.approx(expected)
        assert learner.taken == 1
        assert not model.training

    def test_follows_the_schedule(self) -> None:
        how = recipe(schedule="cosine", lr=0.4)
        learner = Learner(tiny("table"), how, 4)
        rates = []
        for _ in range(5):
            learner.step(samples("table", 6).inputs, samples("table", 6).labels)
            rates.append(learner.optimiser.param_groups[0]["lr"])
        assert rates == pytest.approx([0.4, 0.4 * (2 + 2**0.5) / 4, 0.2, 0.4 * (2 - 2**0.5) / 4, 0.0], abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_near_float32_and_keeps_float32_weights(kind: Any) -> None:
    start, data = source(kind, dtype=torch.float32), samples(kind, dtype=torch.float32)
    full, half, again = (
        weights(fit(start, recipe(precision=precision), data, "victim", 0))
        for precision in ("float32", "bfloat16", "bfloat16")
    )
    assert same(half, again)
    assert not same(full, half)
    for name, value in half.items():
        assert value.dtype == full[name].dtype
        torch.testing.assert_close(value, full[name], rtol=0.3, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_weighed_by_class(kind: Any) -> None:
    model, data = source(kind).model(recipe(), "victim", 0), samples(kind)
    how = recipe(class_weights=tuple(float(label + 1) for label in range(int(data.labels.max()) + 1)))
    actual = losses_of(model, data.inputs, data.labels, how)
    losses = F.cross_entropy(model(data.inputs), data.labels, reduction="none")
    torch.testing.assert_close(actual[0], (losses * (data.labels + 1)).mean())
