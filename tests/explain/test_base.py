"""What all explainers share: pooling, the graph to the parameters, and independence within a batch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from encircle.core import InputError
from encircle.explain import Attribution, Cam, Explainer, Grad, pooled
from tests.networks import tiny, tiny_inputs

EXPLAINERS: list[Explainer] = [
    Grad(),
    Grad(of="logit"),
    Grad(of="log-probability", channels="sum", grid=None),
    Grad(grid=(2, 4)),
    Cam(),
]
KINDS = ["image", "table"]


def loops(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Each cell is the mean of the pixels it touches."""
    out = torch.empty(len(maps), *grid, dtype=maps.dtype)
    height, width = maps.shape[1:]
    for number, single in enumerate(maps):
        for i in range(grid[0]):
            for j in range(grid[1]):
                total, count = 0.0, 0
                for row in range(math.floor(i * height / grid[0]), math.ceil((i + 1) * height / grid[0])):
                    for column in range(math.floor(j * width / grid[1]), math.ceil((j + 1) * width / grid[1])):
                        total, count = total + single[row, column], count + 1
                out[number, i, j] = total / count
    return out


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda shape: st.tuples(
            st.just(shape), st.tuples(st.integers(1, shape[1]), st.integers(1, shape[2])), st.integers(0, 99)
        )
    )
)
def test_pooling_equals_the_plain_loop(drawn: tuple[tuple[int, int, int], tuple[int, int], int]) -> None:
    shape, grid, seed = drawn
    maps = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(pooled(maps, grid), loops(maps, grid))


@pytest.mark.parametrize("grid", [(5, 1), (1, 5)])
def test_a_grid_finer_than_the_map_is_refused(grid: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="finer than the map"):
        pooled(torch.rand(1, 4, 4), grid)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("explainer", EXPLAINERS, ids=repr)
class TestEveryExplainer:
    def test_maps_reach_every_parameter_and_the_head(self, explainer: Explainer, kind: str) -> None:
        model = tiny(kind)
        maps = explainer.explain(model, tiny_inputs(kind, 2), torch.tensor([0, 1]), graph=True).maps
        weights = torch.rand(maps.shape, dtype=maps.dtype, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad((maps * weights).sum(), list(model.parameters()), allow_unused=True)
        named = dict(zip(dict(model.named_parameters()), gradients, strict=True))
        additive = {"head.bias"} if isinstance(explainer, Cam) or explainer == Grad(of="logit") else set()
        for name, gradient in named.items():
            if name not in additive:  # a logit's gradient and a CAM do not see the head's bias
                assert gradient is not None, name
                assert bool((gradient != 0).any()), name

    def test_works_where_the_caller_has_turned_gradients_off(self, explainer: Explainer, kind: str) -> None:
        model, inputs, target = tiny(kind), tiny_inputs(kind, 2), torch.tensor([0, 1])
        expected = explainer.attribute(model, inputs, target)
        with torch.no_grad():
            torch.testing.assert_close(explainer.attribute(model, inputs, target), expected)

    def test_a_sample_s_map_does_not_depend_on_its_batch(self, explainer: Explainer, kind: str) -> None:
        model, inputs, target = tiny(kind), tiny_inputs(kind, 4), torch.tensor([0, 1, 2, 1])
        together = explainer.attribute(model, inputs, target)
        for index in range(4):
            alone = explainer.attribute(model, inputs[index : index + 1], target[index : index + 1])
            torch.testing.assert_close(alone[0], together[index])

    def test_leaves_the_model_and_the_inputs_as_they_were(self, explainer: Explainer, kind: str) -> None:
        model, inputs = tiny(kind), tiny_inputs(kind, 2)
        before, copy = {name: value.clone() for name, value in model.state_dict().items()}, inputs.clone()
        explainer.attribute(model, inputs, torch.tensor([0, 1]))
        assert torch.equal(inputs, copy)
        assert not inputs.requires_grad
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(value.grad is None for value in model.parameters())

    def test_scored_maps_are_pooled_pictures(self, explainer: Explainer, kind: str) -> None:
        model, inputs, target = tiny(kind), tiny_inputs(kind, 2), torch.tensor([0, 1])
        scored, picture = explainer.attribute(model, inputs, target), explainer.explain(model, inputs, target).pictures
        if scored.shape == picture.shape:
            torch.testing.assert_close(scored, picture)
        else:
            torch.testing.assert_close(scored.detach(), loops(picture.detach(), tuple(scored.shape[1:])))

    def test_a_graph_is_there_only_where_it_is_asked_for_and_changes_no_value(
        self, explainer: Explainer, kind: str
    ) -> None:
        model, inputs, target = tiny(kind), tiny_inputs(kind, 2), torch.tensor([0, 1])
        plain, graphed = (explainer.explain(model, inputs, target, graph=graph) for graph in (False, True))
        for name, value in plain._asdict().items():
            assert not value.requires_grad, name
            assert torch.equal(value, getattr(graphed, name)), name
        assert graphed.maps.requires_grad
        assert torch.equal(plain.maps, explainer.attribute(model, inputs, target))

    def test_logits_are_those_of_the_model(self, explainer: Explainer, kind: str) -> None:
        model, inputs = tiny(kind), tiny_inputs(kind, 3)
        passes: list[int] = []
        model.stages[0].register_forward_hook(lambda *_: passes.append(1))
        logits = explainer.explain(model, inputs, torch.tensor([0, 1, 2])).logits
        assert len(passes) == 1
        with torch.no_grad():
            assert torch.equal(logits, model(inputs))


class Drawing(Explainer):
    """An explainer that draws."""

    kind = "drawing"
    title = "drawing"

    def _attribute(
        self, model: nn.Module, inputs: Tensor, target: Tensor, graph: bool, random: torch.Generator
    ) -> Attribution:
        return Attribution(inputs + torch.rand(inputs.shape, generator=random, dtype=inputs.dtype))


def test_an_explainer_that_draws_repeats_itself_and_follows_a_generator() -> None:
    model, inputs, target = tiny("table"), tiny_inputs("table", 2), torch.tensor([0, 1])
    explainer, before = Drawing(), torch.get_rng_state()
    assert torch.equal(explainer.attribute(model, inputs, target), explainer.attribute(model, inputs, target))
    first, second = (
        explainer.explain(model, inputs, target, random=torch.Generator().manual_seed(seed)).maps for seed in (1, 2)
    )
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_spaces() -> None:
    assert Grad().space((3, 8, 8)) == Cam().space((1, 8, 8)) == "grid"
    assert Grad().space((5,)) == "columns"
    assert Cam().space((5,)) == "units"
