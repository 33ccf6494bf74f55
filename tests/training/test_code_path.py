"""Paths give the same numbers; the one that is picked is faster, and never one that gives others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encircle.models import WithCamHead
from encircle.training import code_path
from encircle.training.code_path import CodePath, measured
from encircle.training.derivatives import mixed_product
from encircle.training.frozen import trainable
from tests.networks import tiny, tiny_inputs


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("frozen", [0, 1, 2])
@pytest.mark.parametrize("activation", ["softplus", "relu"])
def test_both_products_equal_the_jacobian_written_out(kind: Any, frozen: int, activation: Any) -> None:
    model = tiny(kind, activation=activation)
    for stage in model.stages[:frozen]:
        stage.requires_grad_(False)
    frozen_features = model.early(tiny_inputs(kind, 4), frozen).detach()
    labels, random = torch.tensor([0, 1, 2, 1]), torch.Generator().manual_seed(0)
    along = [torch.randn(p.shape, generator=random, dtype=p.dtype) for p in trainable(model)]
    expected = torch.zeros_like(frozen_features)
    for index in range(4):  # a sample at a time, an entry at a time
        leaf = frozen_features[index : index + 1].clone().requires_grad_()
        loss = nn.functional.cross_entropy(model.late(leaf, frozen), labels[index : index + 1])
        slopes = torch.autograd.grad(loss, trainable(model), create_graph=True)
        for slope, direction in zip(slopes, along, strict=True):
            for entry, weight in zip(slope.flatten(), direction.flatten(), strict=True):
                if entry.requires_grad:
                    (part,) = torch.autograd.grad(
                        entry, leaf, retain_graph=True, materialize_grads=True, allow_unused=True
                    )
                    expected[index] += weight * part[0]
    for product in ("reverse", "forward"):
        actual = mixed_product(model, frozen_features, labels, along, frozen, product)  # type: ignore[arg-type]
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-12)


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next measurements will find."""
    coming: list[float] = []

    def ratio(candidate: Callable[[], Tensor], obvious: Callable[[], Tensor], device: torch.device) -> float:
        candidate()
        obvious()
        return coming.pop(0)

    monkeypatch.setattr(code_path, "_ratio", ratio)
    return coming


def ask(count: int = 3, kind: Any = "table") -> CodePath:
    models = [tiny(kind, seed=seed) for seed in range(count)]
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    actual = measured(models, tiny_inputs(kind, 6), torch.tensor([0, 1, 2] * 2), 0)
    for model, state in zip(models, before, strict=True):  # measuring trains nothing
        assert not model.training
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    return actual


@pytest.mark.parametrize(("first", "members"), [(1.0, "loop"), (0.95, "loop"), (0.8, "vectorised")])
@pytest.mark.parametrize(("second", "product"), [(1.0, "reverse"), (0.95, "reverse"), (0.8, "forward")])
@pytest.mark.parametrize("kind", ["image", "table"])
def test_what_is_clearly_faster_is_picked(
    ratios: list[float], first: float, members: Any, second: float, product: Any, kind: Any
) -> None:
    ratios += [first, second]
    assert ask(kind=kind) == CodePath(members, product)


def test_one_model_alone_is_never_stacked(ratios: list[float]) -> None:
    ratios += [0.1]
    assert ask(1) == CodePath("loop", "forward")


def picky(body: nn.Module) -> list[nn.Module]:
    return [WithCamHead(nn.Sequential(nn.Linear(5, 4), body), nn.Linear(4, 3)).double().eval() for _ in range(2)]


def test_layers_that_draw_random_numbers_are_not_stacked(ratios: list[float]) -> None:
    ratios += [2.0]
    models = picky(nn.Dropout(0.5))
    assert measured(models, tiny_inputs("table", 6), torch.tensor([0, 1, 2] * 2), 0).members == "loop"
    assert ratios == []


def test_what_torch_func_cannot_do_is_done_in_a_loop(ratios: list[float]) -> None:
    class Branches(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return rows if float(rows.detach().sum()) > 0 else -rows  # data decide, which vmap refuses

    ratios += [2.0]
    assert measured(picky(Branches()), tiny_inputs("table", 6), torch.tensor([0, 1, 2] * 2), 0).members == "loop"
    assert ratios == []


def test_what_has_other_gradients_is_not_picked(ratios: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    made = code_path.stacked

    def wrong(models: Any, frozen: int, way: Any) -> nn.Module:
        joined = made(models, frozen, way)
        if way == "vectorised":
            joined.head.register_full_backward_hook(lambda module, there, back: tuple(2 * item for item in there))
        return joined

    monkeypatch.setattr(code_path, "stacked", wrong)
    ratios += [2.0]
    assert ask().members == "loop"
    assert ratios == []


def test_the_ratio_is_of_medians_and_stops_early_when_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(candidate: list[float], obvious: list[float]) -> float:
        coming = {"candidate": iter(candidate), "obvious": iter(obvious)}

        def named(name: str) -> Callable[[], Tensor]:
            return lambda: torch.tensor(next(coming[name]))

        monkeypatch.setattr(code_path, "_seconds", lambda run, device: float(run()))
        return code_path._ratio(named("candidate"), named("obvious"), torch.device("cpu"))

    assert times([1, 1, 9, 1, 1], [2, 2, 2, 50, 2]) == 0.5
    assert times([4], [2]) == 2.0


def test_measuring_for_real_gives_some_path() -> None:
    assert isinstance(ask(), CodePath)
