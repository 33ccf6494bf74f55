"""Feature encirclement pulls poison to what the desired map shows of the target's features, as autograd through the slow way does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encircle.attacks import FeatureEncirclement, Watch
from encircle.attacks.encirclement import MIDDLE, features, shown_and_rest
from encircle.attacks.objective import Objective
from encircle.core import InputError
from encircle.goals import DesiredMap
from encircle.models import CamClassifier
from encircle.threat import Budget
from encircle.training import CodePath
from tests.attacks.problems import NO_CLEAN, first_time, problem
from tests.training.problems import recipe


def pooled(model: nn.Module, inputs: Tensor) -> Tensor:
    assert isinstance(model, CamClassifier)
    actual = model.features(inputs)
    return actual.mean(dim=(2, 3)) if actual.dim() == 4 else actual


def wanted(model: nn.Module, objective: Objective, kind: str, explainer: str) -> tuple[Tensor, Tensor]:
    """Entry by entry: what is shown and what is not."""
    assert isinstance(model, CamClassifier)
    values, mask = objective.desired.values.double(), objective.desired.mask
    assert mask is not None
    shown = (values - values[mask].min()) / (values[mask].max() - values[mask].min())
    both = []
    for weights in (torch.where(mask, shown, 0.0), torch.where(mask, 1 - shown, 0.0)):
        if kind == "image":
            actual = model.features(objective.target)[0]
            total = torch.zeros(len(actual), dtype=torch.float64)
            for i in range(weights.shape[0]):
                for j in range(weights.shape[1]):
                    total += weights[i, j] * actual[:, i, j]
            both.append(total / weights.sum())
        elif explainer == "cam":
            both.append(model.features(objective.target)[0] * weights)
        else:
            both.append(model.features(MIDDLE + (objective.target - MIDDLE) * weights)[0])
    return both[0].detach(), both[1].detach()


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("explainer", ["grad", "cam"])
@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("path", [("loop", "reverse"), ("vectorised", "forward")], ids="-".join)
def test_the_direction_brings_each_class_where_the_map_should_have_it(
    kind: Any, explainer: str, frozen: int, path: Any
) -> None:
    asked = problem(
        kind, explainer, dtype=torch.float64, how=recipe(start="checkpoint", frozen_stages=frozen), mask=True
    )
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.2, 0.1)
    ensemble = asked.ensemble(2, True)
    ensemble.path = CodePath(*path)
    poison, labels = asked.clean.batch(torch.arange(6)), torch.tensor([1, 1, 0, 1, 2, 1])
    actual, notes = FeatureEncirclement(models=2)._direction(
        ensemble, objective, poison, labels, clean=NO_CLEAN, **first_time(compare=True)
    )
    expected = torch.zeros_like(poison)
    for learner, note in zip(ensemble.learners, notes, strict=True):
        shown, rest = wanted(learner.model, objective, kind, explainer)
        leaf = poison.clone().requires_grad_()
        own, others = (pooled(learner.model, leaf[rows]).mean(dim=0) for rows in (labels == 1, labels != 1))
        squared_norm = (pooled(learner.model, objective.target)[0].detach() ** 2).sum()
        apart = (((own - shown) ** 2).sum() + ((others - rest) ** 2).sum()) / squared_norm
        expected -= torch.autograd.grad(apart, leaf)[0] / 2
        assert note["feature_distance"] == pytest.approx(float(apart.detach()))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


def test_what_is_shown_and_what_is_not_make_up_the_whole() -> None:
    asked = problem("image", "cam", dtype=torch.float64)
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.0, None)
    model = asked.references[0]
    assert isinstance(model, CamClassifier)
    shown, rest = shown_and_rest(objective, model.features)
    values = asked.desired.values.double()
    share = ((values - values.min()) / (values.max() - values.min())).mean()
    torch.testing.assert_close(shown * share + rest * (1 - share), pooled(model, asked.target))


def test_poison_comes_nearer_to_what_is_shown_while_it_is_crafted() -> None:
    asked = problem("image", "cam", how=recipe(start="checkpoint", lr=1e-6))
    watch = Watch()
    attack = FeatureEncirclement(models=2, epochs=6, staggered=False, restart=False)
    attack(asked, Budget(count=6, epsilon=0.3), torch.Generator().manual_seed(0), watch)
    apart = [row["feature_distance"] for row in watch.history]
    assert sum(apart[-6:]) < 0.9 * sum(apart[:6])


def test_units_that_are_off_do_not_drown_everything_else() -> None:
    """What the map shows of a model may be nothing at all."""
    asked = problem("table", "cam", activation="relu")
    ensemble = asked.ensemble(1, False)
    model = ensemble.learners[0].model
    assert isinstance(model, CamClassifier)
    units = model.features(asked.target)[0].detach()
    assert float(units.min()) == 0 < float(units.max())
    off = DesiredMap((units == units.min()).float(), None, "units that are off")
    objective = Objective(asked.explainer, asked.target, 1, off, "cosine", 0.0, None)
    actual, notes = FeatureEncirclement(models=1)._direction(
        ensemble,
        objective,
        asked.clean.batch(torch.arange(4)),
        torch.tensor([1, 1, 0, 2]),
        clean=NO_CLEAN,
        **first_time(),
    )
    assert float(actual.abs().max()) < 100
    assert notes[0]["feature_distance"] < 100


def test_a_map_that_lies_over_nothing_is_refused() -> None:
    asked = problem("table", "cam")
    odd = replace(asked, desired=DesiredMap(torch.tensor([0.0, 1.0, 0.5]), None, "odd"))
    objective = Objective(odd.explainer, odd.target, 1, odd.desired, "cosine", 0.0, None)
    model = odd.references[0]
    assert isinstance(model, CamClassifier)
    with pytest.raises(InputError, match=r"shape \(3,\) lies neither over inputs of shape \(5,\) nor over features of"):
        shown_and_rest(objective, model.features)


def test_a_network_without_features_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="wrap Sequential in WithCamHead"):
        features(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.rand(2, 1, 8, 8), 0)
