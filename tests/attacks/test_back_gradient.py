"""Back-gradient: crafting lowers what it should, repeats, and needs of the ensemble no more than a start."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from encircle.attacks import BackGradient, Watch
from encircle.attacks.through_training import slopes_at_the_end
from encircle.threat import Budget
from tests.attacks.problems import problem
from tests.training.problems import recipe


@pytest.mark.parametrize("kind", ["image", "table"])
def test_a_crafting_lowers_the_distance_and_repeats(kind: Any) -> None:
    asked = problem(kind, "cam", clean=30, how=recipe(start="checkpoint", epochs=3, batch_size=10, lr=0.1))
    attack, budget = BackGradient(models=2, epochs=12, last_steps=8, target_share=0.0), Budget(count=9, epsilon=0.5)
    runs = []
    for _ in range(2):
        watch, steps_done = Watch(), list[tuple[int, int]]()
        watch.progress = lambda done, planned, steps_done=steps_done: steps_done.append((done, planned))  # type: ignore[misc]
        runs.append((attack(asked, budget, torch.Generator().manual_seed(0), watch), watch.history, steps_done))
    (first, history, steps_done), (second, again, _) = runs
    assert torch.equal(first.inputs, second.inputs)
    assert history == again
    assert steps_done == [(move + 1, 12) for move in range(12)]
    assert [(row["iteration"], row["member"]) for row in history] == [
        (move, member) for move in range(12) for member in range(2)
    ]
    upper = [row["upper"] for row in history]
    assert sum(upper[-6:]) < sum(upper[:6])


def test_every_model_of_a_crafting_has_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def spied(*arguments: Any, **settings: Any) -> Any:
        seeds.extend(arguments[5])
        return slopes_at_the_end(*arguments, **settings)

    monkeypatch.setattr("encircle.attacks.back_gradient.slopes_at_the_end", spied)
    asked = problem("table")
    for start in range(2):
        BackGradient(models=2, epochs=3)(asked, Budget(count=4), torch.Generator().manual_seed(start))
    assert len(set(seeds)) == 12


def test_it_asks_for_no_models_that_have_learnt() -> None:
    members, staggered = BackGradient(models=5).ensemble
    ensemble = problem("table").ensemble(members, staggered)
    assert [learner.taken for learner in ensemble.learners] == [0]
