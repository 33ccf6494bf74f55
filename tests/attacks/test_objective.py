"""L_adv: its value by independent formulas, its θ-gradient by finite differences, and maps of any scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from encircle.attacks.objective import Objective
from encircle.attacks.objective import distance as distances
from encircle.core import InputError
from encircle.explain import Cam, Grad
from encircle.goals import DesiredMap
from encircle.models import CamClassifier
from tests.attacks.problems import EXPLAINERS, desired
from tests.networks import tiny, tiny_inputs


def distance(maps: Tensor, wanted: Tensor, mask: Tensor | None, kind: Any) -> Tensor:
    """Of one map."""
    return distances(maps[None], wanted, mask, kind)[0]


DISTANCES = ["none", "max", "minmax", "cosine", "mixed"]
HINGES = {"plain": None, "hinge below": 0.1, "hinge above": 50.0}


def objective(kind: Any, explainer: str, distance: Any, hinge: float | None, *, mask: bool) -> Objective:
    return Objective(
        explainer=EXPLAINERS[explainer],
        target=tiny_inputs(kind, 1, seed=5),
        label=1,
        desired=desired(kind, explainer, mask=mask),
        kind=distance,
        label_weight=0.3,
        hinge=hinge,
    )


def central_difference(wanted: Objective, model: CamClassifier, parameter: Tensor, direction: Tensor) -> float:
    size = 1e-5
    original, actual = parameter.detach().clone(), []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.copy_(original + sign * size * direction)
        actual.append(float(wanted(model)[0].detach()))
    with torch.no_grad():
        parameter.copy_(original)
    return (actual[0] - actual[1]) / (2 * size)


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("explainer", ["grad", "cam"])
@pytest.mark.parametrize("distance_kind", DISTANCES)
@pytest.mark.parametrize("hinge", HINGES)
@pytest.mark.parametrize("mask", [False, True], ids=["everywhere", "masked"])
def test_the_gradient_in_theta_equals_central_differences(
    kind: Any, explainer: str, distance_kind: Any, hinge: str, mask: bool
) -> None:
    """Every parameter of body and head, along random directions and along each weight of the class's row of the head."""
    for activation in ("softplus", "tanh"):
        model = tiny(kind, activation=activation, seed=3)
        wanted = objective(kind, explainer, distance_kind, HINGES[hinge], mask=mask)
        named = dict(model.named_parameters())
        actual = torch.autograd.grad(wanted(model)[0], list(named.values()), materialize_grads=True)
        random = torch.Generator().manual_seed(0)
        scale = max(float(item.abs().max()) for item in actual)
        assert scale > 0
        for (name, parameter), gradient in zip(named.items(), actual, strict=True):
            directions = [torch.randn(parameter.shape, generator=random, dtype=parameter.dtype)]
            if name == "head.weight":
                directions += [torch.zeros_like(parameter) for _ in range(2)]
                directions[1][1, 0] = directions[2][1, 3] = 1
            for direction in directions:
                expected = central_difference(wanted, model, parameter, direction)
                assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-8 * scale), name


@pytest.mark.parametrize("explainer", ["grad", "cam"])
@pytest.mark.parametrize("kind", ["image", "table"])
def test_the_map_s_own_gradient_reaches_the_head(kind: Any, explainer: str) -> None:
    model = tiny(kind)
    far = objective(kind, explainer, "cosine", None, mask=False)(model)[1]
    (gradient,) = torch.autograd.grad(far, model.head.weight)
    assert float(gradient[1].abs().min()) > 0


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("hinge", HINGES)
def test_is_the_distance_plus_the_weighted_label_term(kind: Any, hinge: str) -> None:
    model, limit = tiny(kind), HINGES[hinge]
    wanted = objective(kind, "cam", "max", limit, mask=True)
    total, far, entropy = (float(part.detach()) for part in wanted(model))
    probability = float(model(wanted.target).softmax(dim=1)[0, 1].detach())
    assert entropy == pytest.approx(-np.log(probability))
    assert total == pytest.approx(far + 0.3 * (entropy if limit is None else max(0.0, entropy - limit)))


def slow(maps: np.ndarray, wanted: np.ndarray, keep: np.ndarray, kind: str) -> float:
    if kind == "none":
        return float(sum((m - g) ** 2 for m, g, k in zip(maps.flat, wanted.flat, keep.flat, strict=True) if k))
    if kind == "cosine":
        return float(1 - np.corrcoef(maps[keep], wanted[keep])[0, 1])
    if kind == "mixed":
        first, second = ((item - item.min()) / (item.max() - item.min()) for item in (maps, wanted))
        return slow(maps, wanted, keep, "cosine") / 2 + float(abs(first - second)[keep].mean())
    if kind == "max":
        first, second = maps / abs(maps).max(), wanted / abs(wanted).max()
    else:
        first, second = ((item - item.min()) / (item.max() - item.min()) for item in (maps, wanted))
    return float(((first - second)[keep] ** 2).mean())


class TestDistance:
    @given(seed=st.integers(0, 999), shape=st.sampled_from([(4, 4), (7,), (2, 9)]), masked=st.booleans())
    @pytest.mark.parametrize("kind", DISTANCES)
    def test_equals_its_formula(self, kind: Any, seed: int, shape: tuple[int, ...], masked: bool) -> None:
        random = np.random.default_rng(seed)
        maps, wanted = random.normal(size=shape), random.normal(size=shape)
        keep = random.random(shape) < 0.7
        keep.flat[:2] = True
        keep = keep if masked else np.ones(shape, dtype=bool)
        actual = distance(torch.tensor(maps), torch.tensor(wanted), torch.tensor(keep) if masked else None, kind)
        assert float(actual) == pytest.approx(slow(maps, wanted, keep, kind), rel=1e-9)

    @pytest.mark.parametrize("kind", ["max", "minmax", "cosine", "mixed"])
    @pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e20])
    def test_normalised_kinds_do_not_see_the_scale_even_in_float32(self, kind: Any, scale: float) -> None:
        random = torch.Generator().manual_seed(0)
        maps, wanted = torch.rand(4, 4, generator=random), torch.rand(4, 4, generator=random)
        leaf = (maps * scale).requires_grad_()
        actual = distance(leaf, wanted, None, kind)
        assert float(actual.detach()) == pytest.approx(float(distance(maps, wanted, None, kind)), rel=1e-5)
        plain = maps.clone().requires_grad_()
        (expected,) = torch.autograd.grad(distance(plain, wanted, None, kind), plain)
        (gradient,) = torch.autograd.grad(actual, leaf)
        torch.testing.assert_close(gradient.double() * scale, expected.double(), rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("kind", DISTANCES)
    def test_a_map_that_is_what_was_wanted_has_none(self, kind: Any) -> None:
        wanted = desired("image", "cam").values
        assert float(distance(wanted, wanted, None, kind)) == pytest.approx(0, abs=1e-6)

    def test_the_cosine_is_centred_and_between_0_and_2(self) -> None:
        wanted = desired("image", "cam").values
        assert float(distance(3 * wanted + 5, wanted, None, "cosine")) == pytest.approx(0, abs=1e-6)
        assert float(distance(1 - wanted, wanted, None, "cosine")) == pytest.approx(2, abs=1e-6)

    @pytest.mark.parametrize("kind", DISTANCES)
    @pytest.mark.parametrize("value", [0.0, 0.5, 1e-44])
    def test_a_constant_map_has_a_finite_distance_and_gradient(self, kind: Any, value: float) -> None:
        leaf = torch.full((4, 4), value).requires_grad_()
        actual = distance(leaf, desired("image", "cam").values, None, kind)
        (gradient,) = torch.autograd.grad(actual, leaf)
        assert bool(actual.isfinite())
        assert bool(gradient.isfinite().all())

    @pytest.mark.parametrize("explainer", [Grad(), Cam()], ids=["grad", "cam"])
    @pytest.mark.parametrize("kind", ["max", "minmax", "cosine", "mixed"])
    def test_a_dead_network_gives_a_finite_gradient(self, explainer: Any, kind: Any) -> None:
        model = tiny("table", activation="relu", dtype=torch.float32)
        model.second[0].bias.data.fill_(-100.0)
        target = tiny_inputs("table", 1, dtype=torch.float32)
        wanted = desired("table", "grad" if isinstance(explainer, Grad) else "cam")
        total = Objective(explainer, target, 1, wanted, kind, 0.1, 0.1)(model)[0]
        for gradient in torch.autograd.grad(total, list(model.parameters()), materialize_grads=True):
            assert bool(gradient.isfinite().all())

    def test_the_cosine_of_a_constant_wish_is_refused(self) -> None:
        keep = torch.zeros(4, 4, dtype=torch.bool)
        keep[0] = True
        wanted = torch.zeros(4, 4)
        wanted[0] = 1
        for values, mask in ((torch.ones(4, 4), None), (wanted, keep)):
            with pytest.raises(InputError, match="constant where it matters"):
                distance(torch.rand(4, 4), values, mask, "cosine")

    def test_entries_outside_the_mask_do_not_count(self) -> None:
        wanted = desired("image", "cam", mask=True)
        assert isinstance(wanted, DesiredMap)
        assert wanted.mask is not None
        maps = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
        maps[0, 1], maps[0, 2] = 0.0, 1.0  # the extremes, which every kind looks at, are inside
        changed = torch.where(wanted.mask, maps, 0.5)
        for kind in DISTANCES:
            first, second = (distance(item, wanted.values, wanted.mask, kind) for item in (maps, changed))  # type: ignore[arg-type]
            torch.testing.assert_close(first, second)


def test_is_about_the_model_it_is_called_with() -> None:
    wanted = objective("image", "grad", "cosine", 0.1, mask=False)
    first, second = tiny("image", seed=0), tiny("image", seed=1)
    assert isinstance(first, CamClassifier)
    assert float(wanted(first)[0].detach()) != float(wanted(second)[0].detach())
