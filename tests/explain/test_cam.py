"""CAM's one identity: its mean over the grid (its sum over units) plus the bias is the logit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encircle.core import InputError
from encircle.explain import Cam
from encircle.models import WithCamHead
from tests.networks import tiny, tiny_inputs


@given(
    samples=st.integers(1, 3),
    channels=st.integers(1, 6),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)) | st.none(),
    classes=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_the_map_averages_to_the_logit_and_is_the_weighted_sum_of_channels(
    samples: int, channels: int, grid: tuple[int, int] | None, classes: int, seed: int
) -> None:
    torch.manual_seed(seed)
    features = torch.randn(samples, channels, *(grid or ()), dtype=torch.float64)
    model = WithCamHead(nn.Identity(), nn.Linear(channels, classes).double()).eval()
    target = torch.randint(classes, (samples,))
    maps = Cam().attribute(model, features, target)
    logits = model(features)
    for index in range(samples):
        c = int(target[index])
        pooled = maps[index].sum() if grid is None else maps[index].mean()
        torch.testing.assert_close(pooled + model.head.bias[c], logits[index, c])
        if grid is None:
            expected = torch.stack([model.head.weight[c, k] * features[index, k] for k in range(channels)])
        else:
            expected = sum(model.head.weight[c, k] * features[index, k] for k in range(channels))
        torch.testing.assert_close(maps[index], expected)


@pytest.mark.parametrize("kind", ["image", "table"])
def test_holds_for_whole_networks(kind: str) -> None:
    model, inputs, target = tiny(kind), tiny_inputs(kind, 3), torch.tensor([2, 0, 1])
    maps = Cam().attribute(model, inputs, target)
    pooled = maps.mean(dim=(1, 2)) if kind == "image" else maps.sum(dim=1)
    torch.testing.assert_close(pooled + model.head.bias[target], model(inputs)[range(3), target])


def test_is_signed() -> None:
    maps = Cam().attribute(tiny("image"), tiny_inputs("image", 8), torch.arange(8) % 3).detach()
    assert float(maps.min()) < 0 < float(maps.max())


def test_a_model_without_a_head_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"Linear has no CAM head; wrap its parts in WithCamHead"):
        Cam().attribute(nn.Linear(2, 2), torch.rand(1, 2), torch.tensor([0]))


def test_only_units_of_tables_need_a_shared_start() -> None:
    assert Cam().space((5,)) == "units"
    assert Cam().space((1, 8, 8)) == "grid"
