"""K models as one: rows, gradients and batch statistics are each member's own, by either way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from encircle.explain import Cam, Grad
from encircle.models import ResNet13, SmallResNet, Standardise, TwoLayerNet, WithCamHead, stacked
from tests.networks import tiny, tiny_inputs

WAYS = ["loop", "vectorised"]


def own(seed: int) -> WithCamHead:
    """A network of the user's own: nested, with a normalisation without parameters, a head without bias."""
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Sequential(Standardise([0.4], [0.2 + 0.1 * seed], trailing=2), nn.Conv2d(1, 3, 3), nn.GELU()),
        nn.BatchNorm2d(3, affine=False),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 4),
    )
    return WithCamHead(body, nn.Linear(4, 3, bias=False)).double().eval()


def plain(seed: int) -> nn.Module:
    """One that has no CAM head."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double().eval()


def seeded(make: Any) -> Any:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model: nn.Module = make().double().eval()
        return model

    return build


MODELS: dict[str, tuple[Any, Any]] = {
    "tiny image": (lambda seed: tiny("image", seed=seed), lambda n: tiny_inputs("image", n)),
    "tiny table": (lambda seed: tiny("table", seed=seed), lambda n: tiny_inputs("table", n)),
    "small residual network": (
        seeded(lambda: SmallResNet(3, widths=(2, 3, 4))),
        lambda n: torch.rand(n, 1, 16, 16, dtype=torch.float64),
    ),
    "two layers": (seeded(lambda: TwoLayerNet(5, 3)), lambda n: tiny_inputs("table", n)),
    "own": (own, lambda n: tiny_inputs("image", n)),
    "without a CAM head": (plain, lambda n: tiny_inputs("image", n)),
}


def members(name: str, count: int) -> tuple[list[nn.Module], Any]:
    build, inputs = MODELS[name]
    return [build(seed) for seed in range(count)], inputs


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
@given(count=st.integers(1, 3), rows=st.integers(2, 4))
@settings(max_examples=4)
def test_every_row_meets_its_own_member(way: Any, name: str, training: bool, count: int, rows: int) -> None:
    models, inputs = members(name, count)
    twins, _ = members(name, count)
    rows_of = inputs(count * rows)
    joined = stacked(models, 0, way).train(training)
    actual = joined(rows_of)
    expected = torch.cat(
        [twin.train(training)(own_rows) for twin, own_rows in zip(twins, rows_of.chunk(count), strict=True)]
    )
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    for model, twin in zip(models, twins, strict=True):  # batch statistics moved as they would have alone
        for (key, value), other in zip(model.named_buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("explainer", [Grad(), Cam()], ids=["grad", "cam"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "without a CAM head"])
def test_explanations_are_each_member_s_own(way: Any, explainer: Any, name: str) -> None:
    models, inputs = members(name, 3)
    rows, labels = inputs(6), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = torch.cat(
        [explainer.attribute(m, r, c) for m, r, c in zip(models, rows.chunk(3), labels.chunk(3), strict=True)]
    ).detach()
    torch.testing.assert_close(explainer.attribute(stacked(models, 0, way), rows, labels), expected)


@pytest.mark.parametrize("name", ["tiny image", "tiny table", "own"])
def test_a_member_s_parameters_are_views_of_the_stack_s(name: str) -> None:
    models, inputs = members(name, 2)
    joined, rows = stacked(models, 0, "vectorised"), inputs(4)
    before = [model(rows).detach() for model in models]
    with torch.no_grad():
        for parameter in joined.parameters():
            parameter[1] += 0.1
    assert torch.equal(models[0](rows), before[0])
    assert not torch.allclose(models[1](rows), before[1])
    torch.testing.assert_close(joined(torch.cat([rows, rows])), torch.cat([model(rows) for model in models]))


@pytest.mark.parametrize("way", WAYS)
def test_frozen_stages_are_shared_and_see_all_rows_at_once(way: Any) -> None:
    models, inputs = members("tiny image", 3)
    for model in models:
        model.first.load_state_dict(models[0].first.state_dict())  # type: ignore[union-attr, operator]
    calls: list[int] = []
    models[0].first.register_forward_hook(lambda *batch: calls.append(len(batch[1][0])))  # type: ignore[union-attr]
    rows = inputs(6)
    expected = torch.cat([model(own_rows) for model, own_rows in zip(models, rows.chunk(3), strict=True)])
    calls.clear()
    torch.testing.assert_close(stacked(models, 1, way)(rows), expected)
    assert calls == [6]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_does_not_require_gradients_still_does_not(way: Any, frozen: int) -> None:
    models, inputs = members("tiny image", 2)
    for model in models:
        for stage in model.stages[:frozen]:  # type: ignore[union-attr, index]
            stage.requires_grad_(False)
    joined = stacked(models, frozen, way)
    alone = sum(value.numel() for value in models[0].parameters() if value.requires_grad)
    assert sum(value.numel() for value in joined.parameters() if value.requires_grad) == 2 * alone
    loss: Tensor = joined(inputs(4)).sum()
    loss.backward()


class TestResNet13:
    def test_has_thirteen_convolutions_besides_two_shortcuts(self) -> None:
        names = [name for name, module in ResNet13(2).named_modules() if isinstance(module, nn.Conv2d)]
        assert len([name for name in names if "downsample" not in name]) == 13
        assert len(names) == 15

    @pytest.mark.parametrize(("side", "grid"), [(64, 4), (112, 7), (224, 14)])
    def test_grid(self, side: int, grid: int) -> None:
        with torch.no_grad():
            assert ResNet13(2).eval().features(torch.rand(1, 3, side, side)).shape == (1, 256, grid, grid)

    def test_with_one_block_its_last_stage_is_the_first_of_them(self) -> None:
        smaller, full = set(ResNet13(2, last_blocks=1).state_dict()), set(ResNet13(2).state_dict())
        assert full - smaller == {name for name in full if name.startswith("layer3.1.")}
        assert smaller < full

    def test_grey_images(self) -> None:
        with torch.no_grad():
            assert ResNet13(4, channels=1).eval()(torch.rand(2, 1, 32, 32)).shape == (2, 4)

    def test_its_names_are_torchvision_s(self) -> None:
        names = set(ResNet13(2).state_dict())
        for name in ("conv1.weight", "bn1.running_var", "layer1.1.conv2.weight", "layer3.0.downsample.1.bias"):
            assert name in names
        assert {name.partition(".")[0] for name in names} == {
            "standardise", "conv1", "bn1", "layer1", "layer2", "layer3", "head",
        }  # fmt: skip

    def test_every_parameter_belongs_to_a_stage_or_the_head(self) -> None:
        model = ResNet13(2)
        owned = [id(value) for part in (*model.stages, model.head) for value in part.parameters()]
        assert sorted(owned) == sorted(id(value) for value in model.parameters())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", ["tiny image", "small residual network", "own"])
def test_the_layout_of_weights_and_maps_does_not_matter(way: Any, rows: int, name: str) -> None:
    """Backward through batch normalisation, of single rows too, where vmap and channels-last maps do not go together."""
    models, inputs = members(name, 2)
    batch = inputs(2 * rows)
    expected = torch.cat([model(own_rows) for model, own_rows in zip(models, batch.chunk(2), strict=True)])
    slopes = [torch.autograd.grad((expected**2).sum(), list(m.parameters()), retain_graph=True) for m in models]
    for model in models:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    leaf = batch.to(memory_format=torch.channels_last).requires_grad_()
    joined = stacked(models, 0, way)
    actual = joined(leaf)
    torch.testing.assert_close(actual, expected)
    named = [
        (parameter, torch.autograd.grad((actual**2).sum(), parameter, retain_graph=True)[0])
        for parameter in joined.parameters()
    ]
    total = sum(float((slope**2).sum()) for _, slope in named)
    assert total == pytest.approx(sum(float((slope**2).sum()) for member_slopes in slopes for slope in member_slopes))
    entry = torch.autograd.grad((actual**2).sum(), leaf)[0]
    plain = batch.clone().requires_grad_()
    again = torch.cat([model(own_rows) for model, own_rows in zip(models, plain.chunk(2), strict=True)])
    torch.testing.assert_close(entry, torch.autograd.grad((again**2).sum(), plain)[0])
