"""A model in two parts gives what the whole model gives, and stored frozen features train alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from encircle.seeds import generator
from encircle.training import Learner, fit
from encircle.training.batches import batches, steps_per_epoch
from encircle.training.fit import train
from encircle.training.frozen import frozen_forward, frozen_samples, trainable_forward
from encircle.training.learner import training_mode
from tests.networks import tiny, tiny_inputs
from tests.training.problems import recipe, samples, source, weights

KINDS = ["image", "table"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_and_trainable_forward_make_the_model(kind: Any, frozen: int) -> None:
    model, inputs = tiny(kind), tiny_inputs(kind, 4)
    assert torch.equal(trainable_forward(model, frozen_forward(model, inputs, frozen), frozen), model(inputs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [1, 2])
class TestFrozenSamples:
    def test_training_on_stored_features_equals_recomputing_them(self, kind: Any, frozen: int) -> None:
        actual = []
        for limit in (1 << 30, 0):
            how = recipe(start="checkpoint", frozen_stages=frozen)
            model, data = source(kind).model(how, "victim", 0), samples(kind)
            frozen_features = frozen_samples(model, data, frozen, limit=limit)
            learner = Learner(model, how, how.epochs * steps_per_epoch(len(data), how.batch_size))
            train(learner, frozen_features, [generator("order")], learner.steps)
            actual.append(weights(model))
        for name, value in actual[0].items():
            torch.testing.assert_close(actual[1][name], value, rtol=1e-6, atol=1e-12)

    def test_training_on_stored_features_equals_training_on_inputs(self, kind: Any, frozen: int) -> None:
        how = recipe(start="checkpoint", frozen_stages=frozen)
        on_inputs = weights(fit(source(kind), how, samples(kind), "victim", 0))
        model, data = source(kind).model(how, "victim", 0), samples(kind)
        optimiser = how.build_optimiser(model)
        order = generator("victim", "order", 0)
        for _ in range(how.epochs):
            for rows in batches(len(data), how.batch_size, order):
                training_mode(model, how)
                optimiser.zero_grad()
                F.cross_entropy(model(data.inputs[rows]), data.labels[rows]).backward()
                optimiser.step()
        for name, value in weights(model).items():
            torch.testing.assert_close(on_inputs[name], value, rtol=1e-6, atol=1e-12)

    def test_the_limit_decides(self, kind: Any, frozen: int) -> None:
        model, data = tiny(kind), samples(kind, 7)
        size = sum(value.numel() * value.element_size() for value in [frozen_forward(model, data.inputs, frozen)])
        calls = []
        model.stages[0].register_forward_hook(lambda *_: calls.append(1))
        for limit, more in ((size, 0), (size - 1, 1)):
            frozen_features = frozen_samples(model, data, frozen, limit=limit)
            calls.clear()
            batch = frozen_features.batch(torch.tensor([3, 1]))
            assert len(calls) == more
            torch.testing.assert_close(batch, frozen_forward(model, data.inputs[[3, 1]], frozen).detach())
            assert not batch.requires_grad
            assert torch.equal(frozen_features.labels, data.labels)


def test_nothing_frozen_means_the_samples_themselves() -> None:
    data = samples("table")
    assert frozen_samples(tiny("table"), data, 0) is data
