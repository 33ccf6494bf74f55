"""GRAD against captum and plain autograd, and where both of those give up: saturated probabilities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

from encircle.explain import Grad
from encircle.models import SmallResNet
from tests.networks import tiny, tiny_inputs

CASES = [("image", 1), ("image", 3), ("table", 1)]
CASE_NAMES = ["grey", "colour", "table"]
TARGET = torch.tensor([0, 1, 2, 1])


def by_autograd(model: nn.Module, inputs: Tensor, target: Tensor, of: str) -> Tensor:
    """|d score / d input|, one sample at a time."""
    rows = []
    for sample, c in zip(inputs, target, strict=True):
        leaf = sample.clone().requires_grad_()
        logits = model(leaf[None])[0]
        score = {"logit": logits, "log-probability": logits.log_softmax(0), "probability": logits.softmax(0)}[of][c]
        rows.append(torch.autograd.grad(score, leaf)[0].abs())
    return torch.stack(rows)


def cosine(first: Tensor, second: Tensor) -> float:
    return float(torch.cosine_similarity(first.flatten().double(), second.flatten().double(), dim=0, eps=0))


def reduced(gradients: Tensor, channels: str) -> Tensor:
    if gradients.dim() == 2:
        return gradients
    return gradients.max(dim=1).values if channels == "max" else gradients.sum(dim=1)


@pytest.mark.parametrize(("kind", "channels"), CASES, ids=CASE_NAMES)
@pytest.mark.parametrize("activation", ["softplus", "relu"])
def test_equals_captum_s_saliency_of_the_probability(kind: Any, channels: int, activation: Any) -> None:
    model = tiny(kind, channels=channels, activation=activation)
    inputs = tiny_inputs(kind, 4, channels=channels)
    oracle = Saliency(nn.Sequential(model, nn.Softmax(dim=1))).attribute(inputs.clone().requires_grad_(), TARGET)
    pictures = Grad().explain(model, inputs, TARGET).pictures
    torch.testing.assert_close(pictures, reduced(oracle.detach(), "max"), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("kind", "channels"), CASES, ids=CASE_NAMES)
@pytest.mark.parametrize("of", ["logit", "log-probability", "probability"])
@pytest.mark.parametrize("reduction", ["max", "sum"])
def test_equals_plain_autograd(kind: Any, channels: int, of: Any, reduction: Any) -> None:
    model, inputs = tiny(kind, channels=channels), tiny_inputs(kind, 4, channels=channels)
    pictures = Grad(of=of, channels=reduction).explain(model, inputs, TARGET).pictures
    expected = reduced(by_autograd(model, inputs, TARGET, of), reduction)
    torch.testing.assert_close(pictures, expected, rtol=1e-9, atol=1e-15)


def test_explains_models_without_a_cam_head_unpooled() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 3)).double()
    inputs = tiny_inputs("image", 4)
    expected = reduced(by_autograd(model, inputs, TARGET, "probability"), "max")
    torch.testing.assert_close(Grad().attribute(model, inputs, TARGET), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("grid", "shape"), [("cam", (4, 4)), (None, (8, 8)), ((2, 3), (2, 3))], ids=["cam", "full", "own"]
)
def test_is_scored_on_the_grid_asked_for(grid: Any, shape: tuple[int, int]) -> None:
    assert Grad(grid=grid).attribute(tiny("image"), tiny_inputs("image", 4), TARGET).shape == (4, *shape)
    assert Grad(grid=grid).explain(tiny("image"), tiny_inputs("image", 4), TARGET).pictures.shape == (4, 8, 8)


def test_two_classes_and_binary_tables_work() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 2).double()
    inputs = tiny_inputs("table", 4)
    target = torch.tensor([0, 1, 0, 1])
    expected = by_autograd(model, inputs, target, "probability")
    torch.testing.assert_close(Grad().attribute(model, inputs, target), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("margin", [20.0, 40.0, 80.0])
def test_survives_probabilities_that_are_1_in_floating_point(kind: Any, margin: float) -> None:
    """Autograd through softmax in float32 loses 1-p, and points elsewhere; ours keeps the direction of float64."""
    inputs = tiny_inputs(kind, 1)
    model = tiny(kind)
    target = model(inputs).argmax(dim=1)
    others = model(inputs)[0].detach()
    here = float(others[target])
    others[target] = -torch.inf
    model.head.bias.data[target] += margin - here + float(others.logsumexp(0))
    exact = Grad().attribute(model, inputs, target).detach()
    single = model.float()
    assert float(single(inputs.float()).softmax(dim=1).detach().max()) == 1.0
    maps = Grad().attribute(single, inputs.float(), target).detach()
    naive = reduced(by_autograd(single, inputs.float(), target, "probability"), "max")
    assert float(exact.max()) < 1e-6
    assert cosine(Grad(grid=None).attribute(single, inputs.float(), target).detach(), naive) < 0.99
    torch.testing.assert_close((maps / maps.max()).double(), exact / exact.max(), rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(maps.double(), exact, rtol=1e-2, atol=0)


def test_survives_a_hopelessly_unlikely_class_too() -> None:
    model, inputs = tiny("table"), tiny_inputs("table", 1)
    model.head.bias.data[1] -= 60
    exact = Grad().attribute(model, inputs, torch.tensor([1])).detach()
    maps = Grad().attribute(model.float(), inputs.float(), torch.tensor([1])).detach()
    assert 0 < float(exact.max()) < 1e-20
    torch.testing.assert_close((maps / maps.max()).double(), exact / exact.max(), rtol=2e-3, atol=1e-4)


def test_the_small_resnet_is_scored_on_its_cam_grid() -> None:
    model = SmallResNet(3, widths=(2, 3, 4)).eval()
    assert Grad().attribute(model, torch.rand(2, 1, 16, 16), torch.tensor([0, 1])).shape == (2, 4, 4)
