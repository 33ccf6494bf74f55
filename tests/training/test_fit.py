"""Training: the same seed gives the same weights, frozen is frozen, and files of weights are not trusted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from encircle.core import InputError
from encircle.models import CamClassifier
from encircle.seeds import generator
from encircle.training import correct, fit
from encircle.training.batches import batches
from encircle.training.fit import fit_on_features
from encircle.training.frozen import frozen_samples
from tests.networks import tiny
from tests.training.problems import recipe, same, samples, source, weights, without_poison

KINDS = ["image", "table"]
RECIPES = {
    "scratch": {},
    "checkpoint": {"start": "checkpoint"},
    "frozen": {"start": "checkpoint", "frozen_stages": 1},
    "head only": {"start": "checkpoint", "frozen_stages": 2, "optimiser": "adam", "schedule": "cosine"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RECIPES)
class TestFit:
    def test_the_same_seed_gives_the_same_weights_bit_for_bit(self, kind: Any, name: str) -> None:
        start, how, data = source(kind), recipe(**RECIPES[name]), samples(kind)
        first = weights(fit(start, how, data, "victim", 3))
        torch.rand(7)  # the global generator is somewhere else by now
        assert same(first, weights(fit(start, how, data, "victim", 3)))

    def test_another_seed_or_role_gives_others(self, kind: Any, name: str) -> None:
        start, how, data = source(kind), recipe(**RECIPES[name]), samples(kind)
        first = weights(fit(start, how, data, "victim", 3))
        for role, seed in (("victim", 4), ("surrogate", 3)):
            assert not same(first, weights(fit(start, how, data, role, seed)))

    def test_without_poison_it_is_the_clean_training_bit_for_bit(self, kind: Any, name: str) -> None:
        start, how, data = source(kind), recipe(**RECIPES[name]), samples(kind)
        clean = weights(fit(start, how, data, "victim", 0))
        assert same(clean, weights(fit(start, how, without_poison(data), "victim", 0)))

    def test_leaves_the_global_generator_the_data_and_the_checkpoint_alone(self, kind: Any, name: str) -> None:
        start, data = source(kind), samples(kind)
        assert start.checkpoint is not None
        state, inputs, checkpoint = torch.get_rng_state(), data.inputs.clone(), copy.deepcopy(start.checkpoint)
        fit(start, recipe(**RECIPES[name]), data, "victim", 0)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(data.inputs, inputs)
        assert same(checkpoint, start.checkpoint)

    def test_frozen_stages_keep_parameters_and_batch_statistics(self, kind: Any, name: str) -> None:
        start, how = source(kind), recipe(**RECIPES[name])
        began = start.model(how, "victim", 0)
        ended = fit(start, how, samples(kind), "victim", 0)
        assert isinstance(began, CamClassifier)
        assert isinstance(ended, CamClassifier)
        for stage, (first, last) in enumerate(zip(began.stages, ended.stages, strict=True)):
            assert same(weights(first), weights(last)) == (stage < how.frozen_stages)
        assert not same(weights(began.head), weights(ended.head))
        assert not ended.training


def test_diverged_training_is_an_error_that_names_the_rate() -> None:
    with pytest.raises(InputError, match=r"diverged at learning rate 1e\+300 \(victim 5\); lower lr"):
        fit(source("table"), recipe(lr=1e300), samples("table"), "victim", 5)


@pytest.mark.parametrize("frozen", [0, 1])
def test_correct_are_the_right_answers(frozen: int) -> None:
    model, data = tiny("table"), samples("table", 300)
    right = [
        int(model(sample[None]).argmax()) == int(label) for sample, label in zip(data.inputs, data.labels, strict=True)
    ]
    assert correct(model, frozen_samples(model, data, frozen), frozen).tolist() == right


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("seeds", [[4], [0, 1, 2]])
def test_victims_trained_at_once_equal_those_trained_one_after_another(kind: Any, name: str, seeds: list[int]) -> None:
    start, how, data = source(kind), recipe(**RECIPES[name]), samples(kind)
    frozen_features = frozen_samples(start.model(how, "victim", 0), data, how.frozen_stages)
    at_once = fit_on_features(start, how, frozen_features, "victim", seeds, "vectorised")
    for model, seed in zip(at_once, seeds, strict=True):
        alone = fit(start, how, data, "victim", seed)
        assert not model.training
        for (key, actual), expected in zip(model.state_dict().items(), alone.state_dict().values(), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-10, msg=key)


def test_a_small_network_learns() -> None:
    data = samples("table", 200)
    model = fit(source("table"), recipe(epochs=60, batch_size=20, lr=0.1), data, "victim", 0)
    assert float(correct(model, data).double().mean()) > 0.8


@pytest.mark.parametrize("kind", ["image", "table"])
def test_balanced_victims_are_those_of_the_weights_of_their_own_training_set(kind: Any) -> None:
    data = samples(kind)
    poison = data.batch(torch.arange(6))
    poisoned = data.with_poison(poison, torch.zeros(6, dtype=torch.int64), torch.full((6,), -1))
    for learnt in (data, poisoned):
        counts = learnt.labels.bincount()
        explicit = recipe(class_weights=tuple((len(learnt) / (3 * counts)).tolist()))
        actual, expected = (
            fit(source(kind), how, learnt, "victim", 0) for how in (recipe(class_weights="balanced"), explicit)
        )
        assert same(weights(actual), weights(expected))


@pytest.mark.parametrize("way", ["loop", "vectorised"])
@pytest.mark.parametrize("frozen", [0, 1])
def test_frozen_batch_statistics_stay_and_their_scale_learns(way: Any, frozen: int) -> None:
    how = recipe(start="checkpoint", batch_norm="frozen", frozen_stages=frozen)
    start, data = source("image"), samples("image")
    before = weights(start.model(how, "victim", 0))
    frozen_features = frozen_samples(start.model(how, "victim", 0), data, frozen)
    for model in fit_on_features(start, how, frozen_features, "victim", [0, 1], way):
        ended = weights(model)
        statistics = [name for name in ended if "running" in name or "tracked" in name]
        assert statistics
        assert all(torch.equal(ended[name], before[name]) for name in statistics)
        norms = [name for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
        moved = [not torch.equal(ended[f"{name}.weight"], before[f"{name}.weight"]) for name in norms]
        assert any(moved)


def test_frozen_batch_statistics_equal_training_in_eval_mode() -> None:
    how = recipe(start="checkpoint", batch_norm="frozen")
    start, data = source("image"), samples("image")
    actual = weights(fit(start, how, data, "victim", 0))
    model, order = start.model(how, "victim", 0), generator("victim", "order", 0)
    optimiser = how.build_optimiser(model)
    for _ in range(how.epochs):
        for rows in batches(len(data), how.batch_size, order):
            optimiser.zero_grad()
            F.cross_entropy(model(data.inputs[rows]), data.labels[rows]).backward()
            optimiser.step()
    for name, value in weights(model).items():
        torch.testing.assert_close(actual[name], value, rtol=1e-6, atol=1e-12)
