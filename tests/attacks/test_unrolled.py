"""Unrolled crafting: one small step is IMF's exact form, and more of them are what a plain loop says."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from encircle.attacks import IMF, Unrolled
from encircle.attacks.objective import Objective
from encircle.training import CodePath
from encircle.training.learner import Learner
from tests.attacks.problems import distance_at_the_end, first_time, problem
from tests.training.problems import recipe, same, weights

WAYS: dict[str, dict[str, Any]] = {
    "plain": {"momentum": 0.0},
    "momentum": {"momentum": 0.9, "class_weights": (1.0, 3.0, 0.5)},
    "adam": {"optimiser": "adam", "lr": 0.01},
    "at the end of a schedule": {"schedule": "cosine"},
}
FROZEN = {"batch_norm": "frozen"}
"""Running statistics have no graph, and those of a batch are not what they were where samples are repeated."""

OFTEN = 3
"""How many clean samples each of a mini-batch stands for."""


def after_steps(learner: Learner, inputs: Tensor, labels: Tensor, objective: Objective, steps: int) -> float:
    """L_adv of a copy that took these steps by itself."""
    moved = copy.deepcopy(learner)
    moved.recipe = replace(learner.recipe, schedule="constant")
    for _ in range(steps):
        moved.step(inputs, labels)
    return float(objective(moved.model)[0].detach())


def setting(kind: Any, explainer: str, **changes: Any) -> tuple[Any, ...]:
    asked = problem(kind, explainer, dtype=torch.float64, how=recipe(start="checkpoint", **changes))
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.2, 0.1)
    poison, labels = asked.clean.batch(torch.arange(4)), torch.arange(4) % 3
    clean, classes = asked.clean.batch(torch.arange(4, 9)), asked.clean.labels[4:9]
    return asked.ensemble(2, True), objective, poison, labels, clean, classes


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("explainer", ["grad", "cam"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_equals_central_differences_through_the_steps(kind: Any, explainer: str, steps: int, way: str) -> None:
    ensemble, objective, poison, labels, clean, classes = setting(kind, explainer, **WAYS[way], **FROZEN)
    facts = first_time() | {"sizes": (OFTEN * len(clean), len(poison))}
    actual, _ = Unrolled(models=2, steps=steps)._direction(
        ensemble, objective, poison, labels, clean=(clean, classes), **facts
    )
    random, size = torch.Generator().manual_seed(0), 1e-5
    for _ in range(3):
        along = torch.randn(poison.shape, generator=random, dtype=poison.dtype)
        ends = [
            sum(
                after_steps(
                    learner,
                    torch.cat([clean.repeat(OFTEN, *[1] * (clean.dim() - 1)), poison + sign * size * along]),
                    torch.cat([classes.repeat(OFTEN), labels]),
                    objective,
                    steps,
                )
                for learner in ensemble.learners
            )
            / 2
            for sign in (1, -1)
        ]
        expected = -(ends[0] - ends[1]) / (2 * size)
        assert float((actual * along).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("kind", ["image", "table"])
def test_one_small_step_is_the_exact_form(kind: Any) -> None:
    ensemble, objective, poison, labels, clean, classes = setting(kind, "cam", momentum=0.0, lr=1e-6, **FROZEN)
    context = {"clean": (clean, classes), **first_time()}
    unrolled, _ = Unrolled(steps=1)._direction(ensemble, objective, poison, labels, **context)
    exact, _ = IMF(alpha=1e-6)._direction(ensemble, objective, poison, labels, **context)
    # A mean over a training set of 12 clean samples and 6 of poison, each of the 4 at hand standing for one and a half.
    expected = exact * 1.5 / 18
    torch.testing.assert_close(unrolled, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("frozen", [0, 1])
def test_every_code_path_and_frozen_stages_give_the_same(frozen: int) -> None:
    ensemble, objective, poison, labels, clean, classes = setting("image", "grad", frozen_stages=frozen)
    if frozen:
        clean = ensemble.learners[0].model.early(clean, 1).detach()
    actual = []
    for way in ("loop", "vectorised"):
        ensemble.path, ensemble._joined = CodePath(way), None
        actual.append(
            Unrolled()._direction(ensemble, objective, poison, labels, clean=(clean, classes), **first_time())
        )
    torch.testing.assert_close(actual[0][0], actual[1][0], rtol=1e-6, atol=1e-12)
    assert actual[0][0].shape == poison.shape


@pytest.mark.parametrize("kind", ["image", "table"])
def test_the_models_stay_as_they_were(kind: Any) -> None:
    ensemble, objective, poison, labels, clean, classes = setting(kind, "grad")
    before = [weights(learner.model) for learner in ensemble.learners]
    Unrolled(steps=3)._direction(ensemble, objective, poison, labels, clean=(clean, classes), **first_time())
    for learner, statistics in zip(ensemble.learners, before, strict=True):
        assert same(weights(learner.model), statistics)
        assert learner.model.training is False


def test_moves_the_attacker_s_own_explanation_towards_what_is_wanted() -> None:
    moved, still = (Unrolled(models=2, epochs=6, gamma=gamma, restart=False, staggered=False) for gamma in (0.1, 1e-9))
    assert distance_at_the_end(moved) < distance_at_the_end(still)
