"""Unrolled crafting: one small step is IMF's exact form, and more of them are what a plain loop says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encircle.attacks import IMF, Unrolled
from encircle.attacks.objective import Objective
from encircle.training import CodePath
from encircle.training.code_path import trainable
from tests.attacks.problems import distance_at_the_end, first_time, problem
from tests.training.problems import recipe


def after_steps(
    model: nn.Module, inputs: Tensor, labels: Tensor, objective: Objective, steps: int, rate: float, weights: Any
) -> float:
    """L_adv of a copy that took these steps."""
    moved = copy.deepcopy(model)
    for _ in range(steps):
        losses = F.cross_entropy(moved(inputs), labels, reduction="none")
        losses = losses if weights is None else losses * torch.tensor(weights, dtype=losses.dtype)[labels]
        slopes = torch.autograd.grad(losses.mean(), trainable(moved), materialize_grads=True)
        with torch.no_grad():
            for parameter, slope in zip(trainable(moved), slopes, strict=True):
                parameter.sub_(rate * slope)
    return float(objective(moved)[0].detach())


def setting(kind: Any, explainer: str, **changes: Any) -> tuple[Any, ...]:
    asked = problem(kind, explainer, dtype=torch.float64, how=recipe(start="checkpoint", **changes))
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.2, 0.1)
    poison, labels = asked.clean.batch(torch.arange(4)), torch.arange(4) % 3
    clean, classes = asked.clean.batch(torch.arange(4, 9)), asked.clean.labels[4:9]
    return asked.ensemble(2, True), objective, poison, labels, clean, classes


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("explainer", ["grad", "cam"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("class_weights", [None, (1.0, 3.0, 0.5)], ids=["alike", "weighed"])
def test_equals_central_differences_through_the_steps(
    kind: Any, explainer: str, steps: int, class_weights: Any
) -> None:
    ensemble, objective, poison, labels, clean, classes = setting(kind, explainer, class_weights=class_weights)
    attack = Unrolled(models=2, steps=steps, rate=0.3)
    found, _ = attack._direction(ensemble, objective, poison, labels, clean=(clean, classes), **first_time())
    random, size = torch.Generator().manual_seed(0), 1e-5
    for _ in range(3):
        along = torch.randn(poison.shape, generator=random, dtype=poison.dtype)
        ends = [
            sum(
                after_steps(
                    learner.model,
                    torch.cat([clean, poison + sign * size * along]),
                    torch.cat([classes, labels]),
                    objective,
                    steps,
                    0.3,
                    class_weights,
                )
                for learner in ensemble.learners
            )
            / 2
            for sign in (1, -1)
        ]
        expected = -(ends[0] - ends[1]) / (2 * size)
        assert float((found * along).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("kind", ["image", "table"])
def test_one_small_step_is_the_exact_form(kind: Any) -> None:
    ensemble, objective, poison, labels, clean, classes = setting(kind, "cam")
    given = {"clean": (clean, classes), **first_time()}
    unrolled, _ = Unrolled(steps=1, rate=1e-6)._direction(ensemble, objective, poison, labels, **given)
    exact, _ = IMF(alpha=1e-6)._direction(ensemble, objective, poison, labels, **given)
    torch.testing.assert_close(unrolled * 9, exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))  # a mean over 9


@pytest.mark.parametrize("frozen", [0, 1])
def test_every_code_path_and_frozen_stages_give_the_same(frozen: int) -> None:
    ensemble, objective, poison, labels, clean, classes = setting("image", "grad", frozen_stages=frozen)
    if frozen:
        clean = ensemble.learners[0].model.early(clean, 1).detach()
    found = []
    for way in ("loop", "vectorised"):
        ensemble.path, ensemble._joined = CodePath(way), None
        found.append(Unrolled()._direction(ensemble, objective, poison, labels, clean=(clean, classes), **first_time()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-12)
    assert found[0][0].shape == poison.shape


def test_the_models_stay_as_they_were() -> None:
    ensemble, objective, poison, labels, clean, classes = setting("table", "grad")
    before = [copy.deepcopy(learner.model.state_dict()) for learner in ensemble.learners]
    Unrolled(steps=3, rate=1.0)._direction(ensemble, objective, poison, labels, clean=(clean, classes), **first_time())
    for learner, kept in zip(ensemble.learners, before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in learner.model.state_dict().items())


def test_moves_the_attacker_s_own_explanation_towards_what_is_wanted() -> None:
    moved, still = (Unrolled(models=2, epochs=6, gamma=gamma, restart=False, staggered=False) for gamma in (0.1, 1e-9))
    assert distance_at_the_end(moved) < distance_at_the_end(still)
