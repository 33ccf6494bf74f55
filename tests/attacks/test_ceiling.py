"""The ceiling: a model that is bent directly gets nearer than it was, and only what keeps label and accuracy counts."""

from __future__ import annotations

import copy

import pytest
import torch

from encircle.attacks import Ceiling, Problem
from encircle.attacks.objective import Objective
from encircle.models import predict
from encircle.seeds import generator
from encircle.training import Recipe
from encircle.training.frozen import frozen_samples, trainable
from tests.attacks.problems import EXPLAINERS, Kind, problem
from tests.training.problems import recipe, same, weights

HOW = recipe(start="checkpoint", epochs=2, lr=0.05, momentum=0.0, weight_decay=0.0)


def objective(given: Problem) -> Objective:
    label = int(predict(given.references[0], given.target))
    return Ceiling().objective(given.explainer, given.target, label, given.desired)


def attempts(given: Problem, ceiling: Ceiling, how: Recipe = HOW, keeps: float = 1.0) -> list[torch.nn.Module]:
    model = given.references[0]

    def accuracy(found: torch.nn.Module) -> float:
        return 1.0 if found is model else keeps

    return list(ceiling.attempts(model, how, given.clean, objective(given), accuracy, generator("test")))


@pytest.mark.parametrize("explainer", EXPLAINERS)
@pytest.mark.parametrize("kind", ["image", "table"])
def test_a_bent_model_is_nearer_to_the_desired_map_and_keeps_the_label(kind: Kind, explainer: str) -> None:
    given = problem(kind, explainer, dtype=torch.float64, how=HOW)
    clean, *bent = attempts(given, Ceiling(epochs=30, weights=(10.0,)))
    assert bent
    aim = objective(given)
    before, *after = (float(aim(model)[1].detach()) for model in (clean, *bent))
    assert min(after) < 0.7 * before
    assert all(int(predict(model, given.target)) == aim.label for model in bent)


def test_the_clean_model_comes_first_and_stays_as_it_was() -> None:
    given = problem("table", dtype=torch.float64, how=HOW)
    before = copy.deepcopy(weights(given.references[0]))
    found = attempts(given, Ceiling(epochs=1))
    assert found[0] is given.references[0]
    assert same(weights(found[0]), before)
    assert not same(weights(found[-1]), before)


def test_random_numbers_on_the_way_are_of_the_ceiling_s_own_seed() -> None:
    how = recipe(start="checkpoint", epochs=1, augmentation="flip-and-shift")
    given, before = problem("image", "cam", how=HOW), torch.random.get_rng_state()
    first, again = (weights(attempts(given, Ceiling(epochs=1, weights=(1.0,)), how)[-1]) for _ in range(2))
    assert same(first, again)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_costs_accuracy_does_not_count() -> None:
    given = problem("table", dtype=torch.float64, how=HOW)
    ceiling = Ceiling(epochs=1, accuracy_loss=0.01)
    assert len(attempts(given, ceiling, keeps=0.991)) > 1
    assert len(attempts(given, ceiling, keeps=0.989)) == 1


def test_what_flips_the_label_does_not_count() -> None:
    given = problem("table", dtype=torch.float64, how=HOW)
    model, aim = given.references[0], objective(given)
    other = Objective(given.explainer, given.target, (aim.label + 1) % 3, given.desired, "cosine", 0.0, None)
    found = Ceiling(epochs=1, weights=(0.001,)).attempts(model, HOW, given.clean, other, lambda _: 1.0, generator("a"))
    assert len(list(found)) == 1  # the bent model still says what the clean one does


def test_a_step_descends_both_objectives() -> None:
    """One batch that is the whole set, plain SGD: θ − lr (∇L_train + w ∇L_adv), by hand."""
    how = recipe(start="checkpoint", epochs=1, lr=0.05, momentum=0.0, weight_decay=0.0, batch_size=64)
    given = problem("table", dtype=torch.float64, how=how)
    model, aim = given.references[0], objective(given)
    bent = attempts(given, Ceiling(epochs=1, weights=(0.7,)), how)[-1]
    by_hand = copy.deepcopy(model)
    logits = by_hand(given.clean.batch(torch.arange(len(given.clean))))
    whole = torch.nn.functional.cross_entropy(logits, given.clean.labels) + 0.7 * aim(by_hand)[0].sum()
    slopes = torch.autograd.grad(whole, trainable(by_hand))
    for parameter, slope, found in zip(trainable(by_hand), slopes, trainable(bent), strict=True):
        torch.testing.assert_close(found, parameter - 0.05 * slope, rtol=1e-9, atol=1e-12)


def test_frozen_stages_stay_and_the_same_seed_gives_the_same() -> None:
    how = recipe(start="checkpoint", frozen_stages=1, epochs=1, lr=0.05)
    given = problem("image", dtype=torch.float64, how=how)
    model = given.references[0]
    frozen_features, aim = frozen_samples(model, given.clean, 1), objective(given)
    runs = [
        list(Ceiling(epochs=1).attempts(model, how, frozen_features, aim, lambda _: 1.0, generator("again")))[-1]
        for _ in range(2)
    ]
    assert same(weights(runs[0]), weights(runs[1]))
    before, after = weights(model), weights(runs[0])
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("first."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("second."))
