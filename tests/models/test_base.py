"""Classifiers split into stages and a head without changing what they compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encircle.core import InputError
from encircle.models import CamClassifier, SmallResNet, Standardise, TwoLayerNet, WithCamHead, predict, split
from tests.networks import tiny, tiny_inputs


def own_network() -> WithCamHead:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    return WithCamHead(body, nn.Linear(5, 2)).eval()


CLASSIFIERS = {
    "tiny image": (lambda: tiny("image", dtype=torch.float32), (1, 8, 8)),
    "tiny table": (lambda: tiny("table", dtype=torch.float32), (5,)),
    "resnet": (lambda: SmallResNet(4).eval(), (1, 16, 16)),
    "two layers": (lambda: TwoLayerNet(6, 3).eval(), (6,)),
    "own": (own_network, (3, 9, 9)),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_early_then_late_is_the_model_wherever_it_is_cut(name: str) -> None:
    build, shape = CLASSIFIERS[name]
    model = build()
    inputs = torch.rand(3, *shape)
    with torch.no_grad():
        logits = model(inputs)
        for cut in range(len(model.stages) + 1):
            assert torch.equal(model.late(model.early(inputs, cut), cut), logits)
        assert torch.equal(model.early(inputs, 0), inputs)
        assert torch.equal(model.classify(model.features(inputs)), logits)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_parameter_belongs_to_one_stage_or_the_head(name: str) -> None:
    model = CLASSIFIERS[name][0]()
    owned = [id(value) for part in (*model.stages, model.head) for value in part.parameters()]
    assert sorted(owned) == sorted(id(value) for value in model.parameters())


@given(shape=st.tuples(*[st.integers(1, 5)] * 4), classes=st.integers(2, 4))
def test_images_are_mean_pooled_before_the_head(shape: tuple[int, int, int, int], classes: int) -> None:
    head = nn.Linear(shape[1], classes)
    features = torch.rand(shape)
    expected = torch.stack([head(torch.stack([channel.mean() for channel in maps])) for maps in features])
    torch.testing.assert_close(WithCamHead(nn.Identity(), head).classify(features), expected)


def test_a_body_that_is_not_sequential_is_one_stage() -> None:
    class Body(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs * 2

    model = WithCamHead(Body(), nn.Linear(3, 2))
    assert len(model.stages) == 1
    assert torch.equal(model.features(torch.ones(1, 3)), torch.full((1, 3), 2.0))


def test_the_cam_grid_of_the_small_resnet_is_a_quarter_of_the_side() -> None:
    model = SmallResNet(10, channels=3, mean=[0.5] * 3, std=[0.2] * 3).eval()
    assert model.features(torch.rand(2, 3, 32, 32)).shape == (2, 32, 8, 8)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert len(model.stages) == 4


def test_two_layers_are_a_hidden_layer_and_a_head() -> None:
    model = TwoLayerNet(6, 3, hidden=7).eval()
    inputs = torch.rand(4, 6)
    layer = model.hidden[1]
    hidden = (((inputs - 0.5) / 0.5) @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(model.features(inputs), hidden)
    torch.testing.assert_close(model(inputs), hidden @ model.head.weight.T + model.head.bias)


def test_standardising_is_per_channel_and_is_saved_with_the_model() -> None:
    inputs = torch.rand(2, 2, 3, 3)
    layer = Standardise([0.1, 0.2], [0.5, 2.0], trailing=2)
    torch.testing.assert_close(layer(inputs)[:, 0], (inputs[:, 0] - 0.1) / 0.5)
    torch.testing.assert_close(layer(inputs)[:, 1], (inputs[:, 1] - 0.2) / 2)
    assert set(layer.state_dict()) == {"mean", "std"}
    table = Standardise([0.1, 0.2], [0.5, 2.0], trailing=0)(torch.tensor([[0.6, 0.2]]))
    torch.testing.assert_close(table, torch.tensor([[1.0, 0.0]]))


class TestSplit:
    def test_nothing_frozen_takes_any_model(self) -> None:
        assert split(nn.Linear(2, 2), 0) == (None, 0)

    def test_frozen_stages_need_stages(self) -> None:
        with pytest.raises(InputError, match=r"wrap Linear in WithCamHead"):
            split(nn.Linear(2, 2), 1)

    def test_not_more_stages_than_there_are(self) -> None:
        model = tiny("table")
        assert split(model, 2) == (model, 2)
        with pytest.raises(InputError, match="has 2 stages"):
            split(model, 3)


def test_predict_gives_the_largest_logit_without_a_graph() -> None:
    model, inputs = tiny("table"), tiny_inputs("table", 5)
    assert isinstance(model, CamClassifier)
    predicted = predict(model, inputs)
    assert not predicted.requires_grad
    assert predicted.tolist() == [int(row.argmax()) for row in model(inputs)]
