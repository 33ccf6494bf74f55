"""Through whole trainings: what poison and its weights change at their end is what two trainings show."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from encircle.attacks.objective import Objective
from encircle.attacks.through_training import AT_ONCE, slopes_at_the_end
from encircle.data import Samples
from encircle.seeds import generator
from encircle.training.batches import batches, steps_per_epoch
from encircle.training.code_path import CodePath
from encircle.training.frozen import frozen_forward, trainable
from encircle.training.learner import Learner, in_training, losses_of
from tests.attacks.problems import problem
from tests.training.problems import recipe

ROLE = "a role"
WAYS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "adam": {"optimiser": "adam", "lr": 0.01},
    "balanced": {"class_weights": "balanced"},
    "cosine": {"schedule": "cosine", "weight_decay": 0.01},
}


def trained(asked: Any, early: Samples, late: Any, steps: int, seed: int, counts: Tensor | None = None) -> Any:
    """A model that learns from one set, and in its last steps from another, whose poison may count more or less: the obvious way."""
    source = asked.ensemble(1, True).source
    how = asked.recipe.for_labels(early.labels)
    per_epoch = steps_per_epoch(len(early), how.batch_size)
    learner = Learner(source.model(how, ROLE, seed), how, how.epochs * per_epoch)
    shuffle = generator(ROLE, "order", seed)
    order = [rows for _ in range(how.epochs) for rows in batches(len(early), how.batch_size, shuffle)]
    with in_training(learner.model, how):
        for index, rows in enumerate(order):
            if index < len(order) - steps:
                learner.advance(early.batch(rows), early.labels[rows])
                continue
            batch, source_rows = (late.batch(rows), late.labels[rows]), late.source[rows]
            count = torch.ones(len(rows), dtype=batch[0].dtype)
            if counts is not None:
                count[source_rows >= 0] = counts[source_rows[source_rows >= 0]]
            losses = losses_of(learner.model, *batch, how, 1, count)
            learner.follow(torch.autograd.grad(losses.sum(), trainable(learner.model)))
    return learner.model


def setting(kind: Any, explainer: str, mode: Any = "inject", **changes: Any) -> tuple[Any, ...]:
    """A problem, its objective, and poison with how it is mixed in; the image's statistics are frozen, as they have no graph."""
    fixed = {"batch_norm": "frozen"} if kind == "image" else {}
    how = recipe(start="checkpoint", epochs=2, **fixed, **changes)
    asked = problem(kind, explainer, dtype=torch.float64, how=how)
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.2, 0.1)
    trunk = asked.ensemble(1, True).learners[0].model
    with torch.no_grad():
        poison = frozen_forward(trunk, asked.clean.batch(torch.arange(4)), how.frozen_stages)
        clean = frozen_forward(trunk, asked.clean.inputs, how.frozen_stages)
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
    arguments = (ensemble, objective, poison, mixed(poison), ROLE, [7])
    [actual], [note] = slopes_at_the_end(*arguments, of="poison", last_steps=steps)
    [weighed], again = slopes_at_the_end(*arguments, of="weights", last_steps=steps)
    assert again == [note]
    plain = objective(trained(asked, mixed(poison), mixed(poison), steps, 7))
    assert [note[name] for name in ("upper", "distance", "label")] == pytest.approx(
        [float(term.detach()) for term in plain]
    )
    random, size = torch.Generator().manual_seed(0), 1e-5
    for _ in range(2):
        along = torch.randn(poison.shape, generator=random, dtype=poison.dtype)
        ends = [
            float(objective(trained(asked, mixed(poison), mixed(poison + sign * size * along), steps, 7))[0].detach())
            for sign in (1, -1)
        ]
        assert float((actual * along).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * size), rel=1e-4, abs=1e-8)
        along = torch.randn(len(poison), generator=random, dtype=poison.dtype)
        ends = [
            float(
                objective(trained(asked, mixed(poison), mixed(poison), steps, 7, 1 + sign * size * along))[0].detach()
            )
            for sign in (1, -1)
        ]
        assert float((weighed * along).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * size), rel=1e-4, abs=1e-8)


def test_with_frozen_stages_poison_moves_as_without_knowing_of_them() -> None:
    asked, objective, _, _ = setting("image", "cam", frozen_stages=1)
    trunk = asked.ensemble(1, True).learners[0].model
    samples = asked.clean.batch(torch.arange(4))
    labels, rows = torch.arange(4) % 3, torch.full((4,), -1)
    with torch.no_grad():
        clean = type(asked.clean)(frozen_forward(trunk, asked.clean.inputs, 1), asked.clean.labels)

    def end_of(poison: Tensor) -> float:
        with torch.no_grad():
            mixed = clean.with_poison(frozen_forward(trunk, poison, 1), labels, rows)
        return float(objective(trained(asked, mixed, mixed, 1000, 7))[0].detach())

    leaf = samples.clone().requires_grad_()
    frozen_features = frozen_forward(trunk, leaf, 1)
    poison_features = frozen_features.detach()
    mixed = clean.with_poison(poison_features, labels, rows)
    arguments = (asked.ensemble(1, True), objective, poison_features, mixed, ROLE, [7])
    [slopes], _ = slopes_at_the_end(*arguments, of="poison", last_steps=1000)
    actual = torch.autograd.grad(frozen_features, leaf, slopes)[0]
    along = torch.randn(samples.shape, generator=torch.Generator().manual_seed(0), dtype=samples.dtype)
    size = 1e-5
    expected = (end_of(samples + size * along) - end_of(samples - size * along)) / (2 * size)
    assert float((actual * along).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("way", ["momentum", "adam"])
@pytest.mark.parametrize(("kind", "explainer"), [("table", "cam"), ("table", "grad"), ("image", "cam")])
def test_trainings_at_once_are_those_one_after_another(kind: Any, explainer: str, way: str) -> None:
    asked, objective, poison, mixed = setting(kind, explainer, **WAYS[way])
    actual = []
    for members in ("loop", "vectorised"):
        ensemble = asked.ensemble(1, True)
        ensemble.path = CodePath(members)
        seeds, both = range(3, 3 + AT_ONCE + 2), []
        for of in ("poison", "weights"):
            slopes, notes = slopes_at_the_end(
                ensemble, objective, poison, mixed(poison), ROLE, seeds, of=of, last_steps=3
            )
            both.append(slopes)
        assert all("lower" in note for note in notes)
        actual.append((torch.tensor([note["upper"] for note in notes]), *both))
    for slow, fast in zip(*actual, strict=True):
        assert torch.allclose(slow, fast, rtol=1e-6, atol=1e-9 * float(slow.abs().max()))
