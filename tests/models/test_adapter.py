"""A network that is made ready computes what its author wrote."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from encircle.core import InputError
from encircle.models import Adapter, called_with, copied, feasible, stacked
from encircle.models.adapter import layout_of, second_derivatives

from ..any_networks import NETWORKS, RANDOM, KeepsItsLastPass, OneLayerTwice, Views, conv, more, plain, with_head

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*NETWORKS, *RANDOM])
@pytest.mark.parametrize("training", [False, True])
def test_it_computes_what_its_author_wrote(name: str, training: bool) -> None:
    build, results = (NETWORKS | RANDOM)[name], []
    adapter = Adapter(build, IMAGES[:4])
    adapter()  # the first one is also looked at
    for make in (adapter, build):
        torch.manual_seed(3)
        model = make()
        if make is build and any(nn.parameter.is_lazy(value) for value in model.parameters()):
            model.eval()(IMAGES[:4])
        torch.manual_seed(4)
        results.append(model.train(training)(IMAGES.clone()))
    assert torch.equal(*results)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_it_is_given_stays_as_it_was(name: str) -> None:
    model, inputs = Adapter(NETWORKS[name], IMAGES[:4])(), IMAGES.clone().requires_grad_()
    model.eval()(inputs).sum().backward()  # a leaf must not be written to
    assert inputs.grad is not None
    assert torch.equal(inputs, IMAGES)


def test_layers_in_place_are_set_out_of_place_and_own_ones_get_copies() -> None:
    model = Adapter(NETWORKS["in place in the body"], IMAGES[:4])()
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    model = Adapter(NETWORKS["in place, own layers"], IMAGES[:4])()
    assert sorted(name for name, module in model.named_modules() if module._forward_pre_hooks) == ["body.0", "body.2"]
    assert not any(module._forward_pre_hooks for module in Adapter(NETWORKS["batch norm"], IMAGES[:4])().modules())


def test_a_network_that_relies_on_writing_in_a_container_is_named_by_its_innermost_module() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.inner, self.head = conv(), nn.Sequential(nn.ReLU(inplace=True)), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            self.inner(x)
            return self.head(x.mean(dim=(2, 3)))

    with pytest.raises(InputError, match=r"relies on its module 'inner.0' \(ReLU\)"):
        Adapter(Outer, IMAGES[:4])()


def test_a_layout_that_breaks_a_network_is_not_taken() -> None:
    adapter, usual = Adapter(Views, IMAGES[:4]), Adapter(NETWORKS["batch norm"], IMAGES[:4])
    assert adapter.layout(adapter()) is torch.contiguous_format
    assert usual.layout(usual()) is torch.channels_last
    assert layout_of(nn.Sequential(nn.Conv2d(4, 8, 1, stride=2))) is torch.contiguous_format


def test_running_statistics_are_those_of_the_start() -> None:
    model = Adapter(NETWORKS["batch norm"], IMAGES[:4])()
    (layer,) = (module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert torch.equal(layer.running_mean, torch.zeros(8))  # type: ignore[arg-type]
    assert int(layer.num_batches_tracked) == 0  # type: ignore[arg-type]


def test_a_module_that_keeps_its_last_pass_can_be_copied() -> None:
    model = KeepsItsLastPass()
    expected = model(IMAGES)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    twin = copied(model)
    assert torch.equal(twin(IMAGES), expected)
    assert twin.conv.weight is not model.conv.weight
    container = copied({"models": [model]}, [model])
    assert torch.equal(container["models"][0].last, model.last)
    assert container["models"][0].last.grad_fn is None


@pytest.mark.parametrize("name", ["tied stages", "tied parameter", "tied to the head", "batch norm"])
def test_other_parameters_take_their_place_everywhere_and_leave_no_trace(name: str) -> None:
    torch.manual_seed(0)
    model, other = NETWORKS[name]().eval(), NETWORKS[name]().eval()
    names = [name for name, _ in model.named_parameters()]
    before = model(IMAGES)
    actual = called_with(model, dict(other.named_parameters()), (IMAGES,))
    assert torch.allclose(actual, other(IMAGES), atol=1e-6)
    assert torch.equal(model(IMAGES), before)
    assert [name for name, _ in model.named_parameters()] == names
    assert all(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("name", ["tied stages", "tied parameter", "tied to the head", "weight norm in the head"])
def test_what_would_come_apart_is_computed_in_turn(name: str) -> None:
    models = [Adapter(NETWORKS[name], IMAGES[:4])() for _ in range(2)]
    assert feasible(models, "vectorised") == "loop"
    assert feasible(models, "loop") == "loop"
    joined = stacked(models, 0, feasible(models, "vectorised")).eval()
    rows = joined(torch.cat([IMAGES, IMAGES]))
    assert torch.allclose(rows, torch.cat([model.eval()(IMAGES) for model in models]), atol=1e-6)


def test_hooks_count_where_models_are_computed_at_once() -> None:
    models = [with_head(conv, more)() for _ in range(2)]
    for model in models:
        model.body.register_forward_hook(lambda module, inputs, output: 2 * output)
    joined = stacked(models, 0, "vectorised").eval()
    expected = torch.cat([model.eval()(IMAGES) for model in models])
    assert torch.allclose(joined(torch.cat([IMAGES, IMAGES])), expected, atol=1e-5)


def test_attention_can_be_differentiated_twice() -> None:
    query = torch.rand(1, 1, 4, 8, requires_grad=True)
    with second_derivatives():
        out = nn.functional.scaled_dot_product_attention(query, query, query)
        (slope,) = torch.autograd.grad(out.square().sum(), query, create_graph=True)
        (curved,) = torch.autograd.grad(slope.sum(), query)
    assert bool(curved.isfinite().all())


def test_a_layer_used_twice_in_one_forward_is_one_name() -> None:
    model = Adapter(OneLayerTwice, IMAGES[:4])()
    assert feasible([model, model], "vectorised") == "vectorised"


def test_what_is_no_network_or_fails_is_said_to_be_so() -> None:
    with pytest.raises(InputError, match=r"build gives a Tensor; it must give a torch\.nn\.Module"):
        Adapter(lambda: torch.zeros(1), IMAGES)()  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match=r"build fails \(ZeroDivisionError: division by zero\)"):
        Adapter(lambda: 1 / 0, IMAGES)()  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match=r"while its lazy layers are completed in its module '1' \(Conv2d\)"):
        Adapter(plain(lambda: nn.LazyConv2d(4, 3), conv), IMAGES)()
