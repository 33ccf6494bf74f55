"""Back-gradient: its direction is that of whole trainings, run twice; what it needs of the ensemble is a start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from encircle.attacks import BackGradient, Watch
from encircle.attacks.back_gradient import ROLE
from encircle.attacks.objective import Objective
from encircle.data import Samples
from encircle.seeds import generator
from encircle.threat import Budget
from encircle.training.fit import Learner, batches, before, in_training, steps_per_epoch
from tests.attacks.problems import problem
from tests.training.problems import recipe

WAYS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "adam": {"optimiser": "adam", "lr": 0.01},
    "balanced": {"class_weights": "balanced"},
    "cosine": {"schedule": "cosine", "weight_decay": 0.01},
}


def trained(asked: Any, early: Samples, late: Samples, steps: int, seed: int) -> Any:
    """A model that learns from one set, and in its last steps from another: the obvious way."""
    source = asked.ensemble(1, True).source
    how = asked.recipe.for_labels(early.labels)
    each = steps_per_epoch(len(early), how.batch_size)
    learner = Learner(source.model(how, ROLE, seed), how, how.epochs * each)
    shuffle = generator(ROLE, "order", seed)
    order = [rows for _ in range(how.epochs) for rows in batches(len(early), how.batch_size, shuffle)]
    with in_training(learner.model, how):
        for place, rows in enumerate(order):
            given = early if place < len(order) - steps else late
            learner.advance(given.batch(rows), given.labels[rows])
    return learner.model


def setting(kind: Any, explainer: str, mode: Any = "inject", **changes: Any) -> tuple[Any, ...]:
    """A problem, its objective, and poison with how it is mixed in; the image's statistics are frozen, as they have no graph."""
    fixed = {"batch_norm": "frozen"} if kind == "image" else {}
    how = recipe(start="checkpoint", epochs=2, **fixed, **changes)
    asked = problem(kind, explainer, dtype=torch.float64, how=how)
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.2, 0.1)
    trunk = asked.ensemble(1, True).learners[0].model
    with torch.no_grad():
        poison = before(trunk, asked.clean.batch(torch.arange(4)), how.frozen_stages)
        clean = before(trunk, asked.clean.inputs, how.frozen_stages)
    labels = torch.arange(4) % 3
    rows = torch.arange(4, 8) if mode == "replace" else torch.full((4,), -1)

    def mixed(samples: Tensor) -> Samples:
        return type(asked.clean)(clean, asked.clean.labels).with_poison(samples, labels, rows)

    return asked, objective, poison, mixed


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "explainer", "mode"),
    [("table", "grad", "inject"), ("table", "cam", "replace"), ("image", "cam", "inject")],
)
@pytest.mark.parametrize("steps", [3, 1000])
def test_equals_central_differences_through_trainings(
    kind: Any, explainer: str, mode: Any, steps: int, way: str
) -> None:
    asked, objective, poison, mixed = setting(kind, explainer, mode, **WAYS[way])
    ensemble = asked.ensemble(1, True)
    leaf = poison.clone().requires_grad_()
    found, note = BackGradient(steps=steps)._slope(ensemble, objective, leaf, mixed(poison), 7)
    plain = objective(trained(asked, mixed(poison), mixed(poison), steps, 7))
    assert [note[name] for name in ("upper", "distance", "label")] == pytest.approx(
        [float(one.detach()) for one in plain]
    )
    random, size = torch.Generator().manual_seed(0), 1e-5
    for _ in range(2):
        along = torch.randn(poison.shape, generator=random, dtype=poison.dtype)
        ends = [
            float(objective(trained(asked, mixed(poison), mixed(poison + sign * size * along), steps, 7))[0].detach())
            for sign in (1, -1)
        ]
        assert float((found * along).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * size), rel=1e-4, abs=1e-8)


def test_with_frozen_stages_poison_moves_as_without_knowing_of_them() -> None:
    asked, objective, _, _ = setting("image", "cam", frozen_stages=1)
    trunk = asked.ensemble(1, True).learners[0].model
    samples = asked.clean.batch(torch.arange(4))
    labels, rows = torch.arange(4) % 3, torch.full((4,), -1)
    with torch.no_grad():
        clean = type(asked.clean)(before(trunk, asked.clean.inputs, 1), asked.clean.labels)

    def at_the_end(poison: Tensor) -> float:
        with torch.no_grad():
            mixed = clean.with_poison(before(trunk, poison, 1), labels, rows)
        return float(objective(trained(asked, mixed, mixed, 1000, 7))[0].detach())

    leaf = samples.clone().requires_grad_()
    hidden = before(trunk, leaf, 1)
    seen = hidden.detach().requires_grad_()
    slope, _ = BackGradient(steps=1000)._slope(
        asked.ensemble(1, True), objective, seen, clean.with_poison(seen.detach(), labels, rows), 7
    )
    found = torch.autograd.grad(hidden, leaf, slope)[0]
    along = torch.randn(samples.shape, generator=torch.Generator().manual_seed(0), dtype=samples.dtype)
    size = 1e-5
    expected = (at_the_end(samples + size * along) - at_the_end(samples - size * along)) / (2 * size)
    assert float((found * along).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("kind", ["image", "table"])
def test_a_crafting_lowers_the_distance_and_repeats(kind: Any) -> None:
    asked = problem(kind, "cam", clean=30, how=recipe(start="checkpoint", epochs=3, batch_size=10, lr=0.1))
    attack, budget = BackGradient(models=2, epochs=12, steps=8, target_share=0.0), Budget(count=9, epsilon=0.5)
    found = []
    for _ in range(2):
        watch, told = Watch(), list[tuple[int, int]]()
        watch.progress = lambda done, planned, told=told: told.append((done, planned))  # type: ignore[misc]
        found.append((attack(asked, budget, torch.Generator().manual_seed(0), watch), watch.history, told))
    (first, history, told), (second, again, _) = found
    assert torch.equal(first.inputs, second.inputs)
    assert history == again
    assert told == [(move + 1, 12) for move in range(12)]
    assert [(row["iteration"], row["member"]) for row in history] == [
        (move, member) for move in range(12) for member in range(2)
    ]
    upper = [row["upper"] for row in history]
    assert sum(upper[-6:]) < sum(upper[:6])


def test_every_model_of_a_crafting_has_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    slope = BackGradient._slope

    def spied(self: Any, ensemble: Any, objective: Any, poison: Any, mixed: Any, seed: int) -> Any:
        seeds.append(seed)
        return slope(self, ensemble, objective, poison, mixed, seed)

    monkeypatch.setattr(BackGradient, "_slope", spied)
    asked = problem("table")
    for start in range(2):
        BackGradient(models=2, epochs=3)(asked, Budget(count=4), torch.Generator().manual_seed(start))
    assert len(set(seeds)) == 12


def test_it_asks_for_no_models_that_have_learnt() -> None:
    members, staggered = BackGradient(models=5).ensemble
    ensemble = problem("table").ensemble(members, staggered)
    assert [learner.taken for learner in ensemble.learners] == [0]
