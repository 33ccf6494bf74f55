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


def objective(asked: Problem) -> Objective:
    label = int(predict(asked.references[0], asked.target))
    return Ceiling().objective(asked.explainer, asked.target, label, asked.desired)


def attempts(asked: Problem, ceiling: Ceiling, how: Recipe = HOW, keeps: float = 1.0) -> list[torch.nn.Module]:
    model = asked.references[0]

    def accuracy(candidate: torch.nn.Module) -> float:
        return 1.0 if candidate is model else keeps

    return list(ceiling.attempts(model, how, asked.clean, objective(asked), accuracy, generator("test")))


@pytest.mark.parametrize("explainer", EXPLAINERS)
@pytest.mark.parametrize("kind", ["image", "table"])
def test_a_bent_model_is_nearer_to_the_desired_map_and_keeps_the_label(kind: Kind, explainer: str) -> None:
    asked = problem(kind, explainer, dtype=torch.float64, how=HOW)
    clean, *bent = attempts(asked, Ceiling(epochs=30, weights=(10.0,)))
    assert bent
    aim = objective(asked)
    before, *after = (float(aim(model)[1].detach()) for model in (clean, *bent))
    assert min(after) < 0.7 * before
    assert all(int(predict(model, asked.target)) == aim.label for model in bent)


def test_the_clean_model_comes_first_and_stays_as_it_was() -> None:
    asked = problem("table", dtype=torch.float64, how=HOW)
    before = copy.deepcopy(weights(asked.references[0]))
    candidate = attempts(asked, Ceiling(epochs=1))
    assert candidate[0] is asked.references[0]
    assert same(weights(candidate[0]), before)
    assert not same(weights(candidate[-1]), before)


def test_random_numbers_on_the_way_are_of_the_ceiling_s_own_seed() -> None:
    how = recipe(start="checkpoint", epochs=1, augmentation="flip-and-shift")
    asked, before = problem("image", "cam", how=HOW), torch.random.get_rng_state()
    first, again = (weights(attempts(asked, Ceiling(epochs=1, weights=(1.0,)), how)[-1]) for _ in range(2))
    assert same(first, again)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_costs_accuracy_does_not_count() -> None:
    asked = problem("table", dtype=torch.float64, how=HOW)
    ceiling = Ceiling(epochs=1, accuracy_loss=0.01)
    assert len(attempts(asked, ceiling, keeps=0.991)) > 1
    assert len(attempts(asked, ceiling, keeps=0.989)) == 1


def test_what_flips_the_label_does_not_count() -> None:
    asked = problem("table", dtype=torch.float64, how=HOW)
    model, aim = asked.references[0], objective(asked)
    other = Objective(asked.explainer, asked.target, (aim.label + 1) % 3, asked.desired, "cosine", 0.0, None)
    candidate = Ceiling(epochs=1, weights=(0.001,)).attempts(
        model, HOW, asked.clean, other, lambda _: 1.0, generator("a")
    )
    assert len(list(candidate)) == 1  # the bent model still says what the clean one does


def test_a_step_descends_both_objectives() -> None:
    """One batch that is the whole set, plain SGD: θ − lr (∇L_train + w ∇L_adv), by hand."""
    how = recipe(start="checkpoint", epochs=1, lr=0.05, momentum=0.0, weight_decay=0.0, batch_size=64)
    asked = problem("table", dtype=torch.float64, how=how)
    model, aim = asked.references[0], objective(asked)
    bent = attempts(asked, Ceiling(epochs=1, weights=(0.7,)), how)[-1]
    by_hand = copy.deepcopy(model)
    logits = by_hand(asked.clean.batch(torch.arange(len(asked.clean))))
    total_loss = torch.nn.functional.cross_entropy(logits, asked.clean.labels) + 0.7 * aim(by_hand)[0].sum()
    slopes = torch.autograd.grad(total_loss, trainable(by_hand))
    for parameter, slope, candidate in zip(trainable(by_hand), slopes, trainable(bent), strict=True):
        torch.testing.assert_close(candidate, parameter - 0.05 * slope, rtol=1e-9, atol=1e-12)


def test_frozen_stages_stay_and_the_same_seed_gives_the_same() -> None:
    how = recipe(start="checkpoint", frozen_stages=1, epochs=1, lr=0.05)
    asked = problem("image", dtype=torch.float64, how=how)
    model = asked.references[0]
    frozen_features, aim = frozen_samples(model, asked.clean, 1), objective(asked)
    runs = [
        list(Ceiling(epochs=1).attempts(model, how, frozen_features, aim, lambda _: 1.0, generator("again")))[-1]
        for _ in range(2)
    ]
    assert same(weights(runs[0]), weights(runs[1]))
    before, after = weights(model), weights(runs[0])
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("first."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("second."))
