"""Gradient matching ascends the cosine of two gradients, which autograd through both of them agrees with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from encircle.attacks import GradientMatching
from encircle.attacks.matching import towards
from encircle.attacks.objective import Objective
from encircle.training import CodePath
from encircle.training.frozen import trainable
from tests.attacks.problems import NO_CLEAN, distance_at_the_end, first_time, problem
from tests.training.problems import recipe


def cosine_of(
    model: torch.nn.Module, poison: Tensor, labels: Tensor, attack: list[Tensor], weights: Tensor | None = None
) -> Tensor:
    """The cosine that is ascended, with its graph to the poison: the slow, obvious way."""
    losses = F.cross_entropy(model(poison), labels, reduction="none")
    losses = losses if weights is None else losses * weights[labels]
    slopes = torch.autograd.grad(losses.sum(), trainable(model), create_graph=True, materialize_grads=True)
    poison_part, attack_part = (torch.cat([piece.flatten() for piece in vector]) for vector in (slopes, attack))
    return poison_part @ attack_part / (poison_part.norm() * attack_part.norm())


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("explainer", ["grad", "cam"])
@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("path", [("loop", "reverse"), ("vectorised", "forward")], ids="-".join)
@pytest.mark.parametrize("class_weights", [None, (1.0, 3.0, 0.5)], ids=["alike", "weighed"])
def test_the_direction_is_the_gradient_of_the_cosine(
    kind: Any, explainer: str, frozen: int, path: Any, class_weights: Any
) -> None:
    how = recipe(start="checkpoint", frozen_stages=frozen, class_weights=class_weights)
    asked = problem(kind, explainer, dtype=torch.float64, how=how)
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "mixed", 0.2, 0.1)
    ensemble = asked.ensemble(2, True)
    ensemble.path = CodePath(*path)
    rows = torch.arange(6)
    poison, labels = asked.clean.batch(rows), torch.arange(6) % 3
    actual, notes = GradientMatching(models=2)._direction(
        ensemble, objective, poison, labels, clean=NO_CLEAN, **first_time(compare=True)
    )
    expected = torch.zeros_like(poison)
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
    for learner, note in zip(ensemble.learners, notes, strict=True):
        attack = torch.autograd.grad(objective(learner.model)[0], trainable(learner.model), materialize_grads=True)
        leaf = poison.clone().requires_grad_()
        cosine = cosine_of(learner.model, leaf, labels, list(attack), weights)
        expected += torch.autograd.grad(cosine, leaf)[0] / 2
        assert note["alignment"] == pytest.approx(float(cosine.detach()))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_gradients_of_any_size_have_a_direction_in_float32(scale: float) -> None:
    random = torch.Generator().manual_seed(0)
    poison, attack = ([torch.randn(2, 3, generator=random), torch.randn(2, generator=random)] for _ in range(2))
    plain, cosine = towards(poison, attack, 2)
    actual, same = towards([piece * scale for piece in poison], [piece * scale for piece in attack], 2)
    torch.testing.assert_close(same, cosine)
    for piece, other in zip(actual, plain, strict=True):
        torch.testing.assert_close(piece.double() * scale, other.double(), rtol=1e-4, atol=1e-6)


def test_each_member_has_a_cosine_of_its_own() -> None:
    random = torch.Generator().manual_seed(1)
    poison, attack = ([torch.randn(3, 4, generator=random), torch.randn(3, generator=random)] for _ in range(2))
    _, together = towards(poison, attack, 3)
    for member in range(3):
        poison_part, attack_part = ([piece[member : member + 1] for piece in vector] for vector in (poison, attack))
        torch.testing.assert_close(towards(poison_part, attack_part, 1)[1][0], together[member])


def test_no_gradient_gives_no_direction_and_no_nan() -> None:
    zero, attack = [torch.zeros(1, 3)], [torch.ones(1, 3)]
    for poison, aim in ((zero, attack), (attack, zero), (zero, zero)):
        actual, cosine = towards(poison, aim, 1)
        assert float(cosine) == 0
        assert bool(torch.isfinite(cosine).all())
        assert not bool(actual[0].isnan().any())


@pytest.mark.parametrize("step", ["sign", "adam"])
def test_moves_the_attacker_s_own_explanation_towards_what_is_wanted(step: Any) -> None:
    how = {"models": 2, "epochs": 6, "step": step, "restart": False, "staggered": False}
    moved, still = (GradientMatching(**how, gamma=gamma) for gamma in (0.2, 1e-9))
    assert distance_at_the_end(moved) < 0.9 * distance_at_the_end(still)
