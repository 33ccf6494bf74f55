"""WM against a slow loop: whose maps are nearest, the blend, and the ball around the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from encircle.attacks import Problem, ProjectedWatermark, Watermark
from encircle.threat import Budget, Legal
from tests.attacks.problems import problem
from tests.networks import tiny


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def unit(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


def slow_nearest(asked: Problem, count: int) -> list[int]:
    """Rows of any class whose mean map for the target's class is nearest to the goal, one at a time."""
    goal = unit(asked.desired.values.numpy())
    keep = np.ones(goal.shape, dtype=bool) if asked.desired.mask is None else asked.desired.mask.numpy()
    label = torch.tensor([asked.label])
    errors = []
    for row in range(len(asked.clean)):
        sample = asked.clean.batch(torch.tensor([row]))
        maps = [asked.explainer.attribute(model, sample, label)[0].detach().double() for model in asked.references]
        mean = torch.stack(maps).mean(dim=0).numpy()
        errors.append(float(((unit(mean) - goal)[keep] ** 2).mean()))
    return sorted(range(len(errors)), key=lambda row: errors[row])[:count]


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("explainer", ["grad", "cam"])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("nearest", [10, 3])
def test_blends_the_target_with_the_nearest_samples_in_turn(
    kind: Any, explainer: str, mask: bool, nearest: int
) -> None:
    asked = problem(kind, explainer, mask=mask, legal=Legal())
    asked = replace(asked, references=[*asked.references, tiny(kind, seed=6, dtype=torch.float32)])
    poison = Watermark(weight=0.3, nearest=nearest)(asked, Budget(count=12), seeded())
    rows = slow_nearest(asked, nearest)
    for number, blend in enumerate(poison.inputs):
        other = asked.clean.batch(torch.tensor([rows[number % nearest]]))[0]
        torch.testing.assert_close(blend, 0.3 * asked.target[0] + 0.7 * other)
    assert poison.bases.tolist() == [-1] * 12
    assert poison.labels.tolist() == [asked.label] * 12
    if nearest == 10:
        assert len(set(asked.clean.labels[rows].tolist())) > 1  # of any class


def test_the_paper_s_ten_and_an_even_blend_are_the_defaults() -> None:
    assert (Watermark().nearest, Watermark().weight) == (10, 0.5)
    assert (ProjectedWatermark().nearest, ProjectedWatermark().weight) == (10, 0.5)


def test_a_set_smaller_than_ten_is_used_up() -> None:
    asked = problem("table", clean=4, legal=Legal())
    poison = Watermark(nearest=2)(asked, Budget(count=3), seeded())
    assert len({tuple(row) for row in poison.inputs.tolist()}) == 2
    assert len(Watermark()(asked, Budget(count=3), seeded())) == 3


@pytest.mark.parametrize("kind", ["image", "table"])
def test_projected_is_the_same_blend_brought_into_the_ball(kind: Any) -> None:
    asked, budget = problem(kind, legal=Legal()), Budget(count=8)
    free, bound = Watermark()(asked, budget, seeded()), ProjectedWatermark()(asked, budget, seeded())
    assert budget.excess(free.inputs, free.base_inputs) > 0.05  # the paper's is not bounded
    assert budget.excess(bound.inputs, bound.base_inputs) <= 0
    expected = asked.target + (free.inputs - asked.target).clamp(-0.1, 0.1)
    torch.testing.assert_close(bound.inputs, expected)


def test_is_always_added_since_it_is_made_from_the_target() -> None:
    poison = Watermark()(problem("image"), Budget(count=4, mode="replace"), seeded())
    assert poison.overwritten.tolist() == [-1] * 4


@pytest.mark.parametrize("settings", [{"weight": 1.1}, {"weight": -0.1}, {"nearest": 0}])
def test_refuses_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    for make in (Watermark, ProjectedWatermark):
        with pytest.raises(ValueError, match="validation error"):
            make(**settings)
