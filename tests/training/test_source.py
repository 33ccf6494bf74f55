"""Models start from seeds or from checkpoints, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from encircle.core import InputError
from encircle.training import Source, fit
from tests.networks import tiny
from tests.training.problems import recipe, same, samples, source, weights

KINDS = ["image", "table"]


@pytest.mark.parametrize("kind", KINDS)
def test_victims_from_scratch_start_differently_and_from_a_checkpoint_alike(kind: Any) -> None:
    start = source(kind)
    assert start.checkpoint is not None
    fresh = [weights(start.model(recipe(), "victim", seed)) for seed in (0, 1)]
    begun = [weights(start.model(recipe(start="checkpoint"), "victim", seed)) for seed in (0, 1)]
    assert not same(*fresh)
    assert same(*begun)
    assert same(begun[0], start.checkpoint)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_a_model_of_several_starts_is_what_it_would_be_if_its_own_were_the_only_one(kind: Any, frozen: int) -> None:
    data, checkpoints = samples(kind), [dict(tiny(kind, seed=seed).state_dict()) for seed in (1, 2, 3)]
    many = Source(source(kind).build, checkpoints[0], others=checkpoints[1:])
    how = recipe(start="checkpoint", frozen_stages=frozen)
    for seed, index in ((0, 0), (4, 1), (5, 2)):
        alone = Source(many.build, checkpoints[index])
        assert same(weights(many.model(replace(how, starts=3), "victim", seed)), checkpoints[index])
        actual = fit(many, replace(how, starts=3), data, "victim", seed)
        for name, value in weights(fit(alone, how, data, "victim", seed)).items():
            torch.testing.assert_close(weights(actual)[name], value)


class TestSource:
    def test_a_recipe_from_a_checkpoint_needs_one(self) -> None:
        with pytest.raises(InputError, match="there is none"):
            Source(lambda: tiny("table")).model(recipe(start="checkpoint"), "victim", 0)

    @pytest.mark.parametrize("change", ["missing", "shape"])
    def test_a_checkpoint_that_does_not_fit_is_refused(self, change: str) -> None:
        state = dict(tiny("table").state_dict())
        if change == "missing":
            del state["head.bias"]
        else:
            state["head.bias"] = torch.zeros(4)
        with pytest.raises(InputError, match="does not fit the model"):
            Source(lambda: tiny("table"), state).model(recipe(start="checkpoint"), "victim", 0)

    def test_too_many_frozen_stages_are_refused(self) -> None:
        with pytest.raises(InputError, match="has 2 stages"):
            source("table").model(recipe(start="checkpoint", frozen_stages=3), "victim", 0)

    def test_frozen_stages_need_stages(self) -> None:
        start = Source(lambda: nn.Linear(2, 2), dict(nn.Linear(2, 2).state_dict()))
        with pytest.raises(InputError, match="wrap Linear"):
            start.model(recipe(start="checkpoint", frozen_stages=1), "victim", 0)


def test_a_trunk_alone_will_do_and_heads_differ_by_seed() -> None:
    start = source("image")
    assert start.checkpoint is not None
    trunk = {name: value for name, value in start.checkpoint.items() if not name.startswith("head")}
    alone = Source(start.build, trunk)
    first, second = (weights(alone.model(recipe(start="checkpoint"), "victim", seed)) for seed in (0, 1))
    assert not torch.equal(first["head.weight"], second["head.weight"])
    assert all(torch.equal(first[name], second[name]) for name in trunk)


@pytest.mark.parametrize(
    ("channels", "stride", "groups", "plain"),
    [(4, 2, 1, True), (7, 3, 1, True), (16, 2, 4, True), (8, 2, 1, False), (4, 1, 1, False)],
)
def test_networks_that_channels_last_would_crash_are_laid_out_plainly(
    channels: int, stride: int, groups: int, plain: bool
) -> None:
    """A narrow 1x1 convolution with a stride corrupts memory in that layout on some CPUs; other networks are faster in it."""

    def build() -> nn.Module:
        narrow = nn.Conv2d(channels, 8, 1, stride, groups=groups)
        return nn.Sequential(nn.Conv2d(3, channels, 3), narrow, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    model = Source(build).model(recipe(), "victim", 0)
    first = model.get_parameter("0.weight")
    assert first.is_contiguous() is plain
    assert first.is_contiguous(memory_format=torch.channels_last) is not plain
    F.cross_entropy(model(torch.rand(6, 3, 12, 12)), torch.arange(6) % 2).backward()
