"""Any ordinary network is trained to the same weights as by a plain loop, and differentiated as the plain network is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encircle.data import TensorSamples
from encircle.explain import Grad
from encircle.models import Adapter, feasible, second_derivatives, shares_weights, stacked
from encircle.seeds import derive_seed, generator
from encircle.training import CodePath, Recipe, Source
from encircle.training.batches import batches
from encircle.training.code_path import measured
from encircle.training.derivatives import gauss_newton, mixed_product
from encircle.training.fit import fit_on_features
from encircle.training.frozen import trainable
from encircle.training.learner import layer_noise

from ..any_networks import NETWORKS, NOT_AT_ONCE, RANDOM, Build

RECIPE = Recipe(epochs=2, lr=0.02, batch_size=16)
LABELS = torch.arange(40) % 2
IMAGES = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def source(build: Build) -> Source:
    return Source(Adapter(build, IMAGES[:4]))


def by_a_plain_loop(build: Build, seed: int) -> nn.Module:
    """Nothing of the library but its seeds."""
    torch.manual_seed(derive_seed("victim", "start", seed))
    model = build()
    if any(nn.parameter.is_lazy(value) for value in model.parameters()):
        model.eval()(IMAGES[:4])
    model.train()
    optimiser = torch.optim.SGD(
        [value for value in model.parameters() if value.requires_grad], lr=0.02, momentum=0.9, weight_decay=5e-4
    )
    shuffle = generator("victim", "order", seed)
    with layer_noise("victim", seed):
        for _ in range(2):
            for rows in batches(40, 16, shuffle):
                optimiser.zero_grad()
                F.cross_entropy(model(IMAGES[rows].clone()), LABELS[rows]).backward()
                optimiser.step()
    return model.eval()


def logits_of(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IMAGES[:8].clone())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [*NETWORKS, *RANDOM])
def test_training_equals_a_plain_loop(name: str) -> None:
    build = (NETWORKS | RANDOM)[name]
    samples = TensorSamples(IMAGES, LABELS)
    expected = [logits_of(by_a_plain_loop(build, seed)) for seed in (0, 1)]
    with second_derivatives():
        for way in ("loop", "vectorised"):
            if way == "vectorised" and name in {*RANDOM, *NOT_AT_ONCE}:
                continue
            models = fit_on_features(source(build), RECIPE, samples, "victim", [0, 1], way)  # type: ignore[arg-type]
            for model, logits in zip(models, expected, strict=True):
                assert torch.allclose(logits_of(model), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [*NETWORKS, *RANDOM])
def test_products_are_those_of_the_plain_network(name: str) -> None:
    """∇_X ⟨∇_θ L, v⟩ and Jᵀ H J v in every way there is, against twice the reverse of the network as its author wrote it."""
    build = (NETWORKS | RANDOM)[name]
    with second_derivatives():
        models = [source(build).model(RECIPE, "victim", seed) for seed in (0, 1)]
        own = copy.deepcopy(models)
        vectors = [
            [torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) for p in trainable(m)] for m in own
        ]
        rows, labels = IMAGES[:6], LABELS[:6]
        expected = torch.cat([_mixed(model, vector, rows, labels) for model, vector in zip(own, vectors, strict=True)])
        curved = [_curved(model, vector, rows) for model, vector in zip(own, vectors, strict=True)]
        for way in ("loop", "vectorised"):
            if way == "vectorised" and name in NOT_AT_ONCE:
                continue
            copies = copy.deepcopy(models)
            joined = stacked(copies, 0, feasible(copies, way)).eval()  # type: ignore[arg-type]
            direction = _spread(joined, copies, vectors)
            for product in ("reverse", "forward"):
                actual = mixed_product(joined, torch.cat([rows, rows]), labels.repeat(2), direction, 0, product)  # type: ignore[arg-type]
                assert torch.allclose(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
            curvature = gauss_newton(joined, torch.cat([rows, rows]), torch.ones(12), 0)(direction)
            wanted = _spread(joined, copies, curved)
            largest = max(float(part.abs().max()) for part in wanted)
            for part, reference in zip(curvature, wanted, strict=True):
                assert torch.allclose(part, reference, rtol=1e-3, atol=1e-5 * largest)


def _mixed(model: nn.Module, vector: list[Tensor], rows: Tensor, labels: Tensor) -> Tensor:
    leaf = rows.clone().requires_grad_()
    loss = F.cross_entropy(model(leaf * 1), labels, reduction="sum")
    slopes = torch.autograd.grad(loss, trainable(model), create_graph=True, materialize_grads=True)
    inner = sum((slope * part).sum() for slope, part in zip(slopes, vector, strict=True))
    return torch.autograd.grad(inner, leaf, materialize_grads=True)[0]  # type: ignore[arg-type]


def _curved(model: nn.Module, vector: list[Tensor], rows: Tensor) -> list[Tensor]:
    parameters = trainable(model)
    logits = model(rows.clone())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    likely = logits.detach().softmax(dim=1)
    for row in range(len(rows)):  # J written out, a logit at a time
        slopes = [
            torch.autograd.grad(logits[row, index], parameters, retain_graph=True, materialize_grads=True)
            for index in range(2)
        ]
        along = torch.stack([sum((s * v).sum() for s, v in zip(slope, vector, strict=True)) for slope in slopes])  # type: ignore[misc]
        hessian = torch.diag(likely[row]) - torch.outer(likely[row], likely[row])
        for weight, slope in zip(hessian @ along, slopes, strict=True):
            total = [before + weight * part for before, part in zip(total, slope, strict=True)]
    return total


def _spread(joined: nn.Module, members: list[nn.Module], vectors: list[list[Tensor]]) -> list[Tensor]:
    """Vectors of the members as one of what they are together: a parameter of the stack holds, or is, a parameter of a member."""
    by_address = {
        parameter.data_ptr(): part
        for member, vector in zip(members, vectors, strict=True)
        for parameter, part in zip(trainable(member), vector, strict=True)
    }
    spread = []
    for parameter in trainable(joined):
        if parameter.data_ptr() in by_address and by_address[parameter.data_ptr()].shape == parameter.shape:
            spread.append(by_address[parameter.data_ptr()])
        else:
            spread.append(torch.stack([by_address[index.data_ptr()] for index in parameter.detach()]))
    return spread


@pytest.mark.parametrize("name", [*NETWORKS, *RANDOM])
def test_maps_are_those_of_the_plain_network(name: str) -> None:
    build = (NETWORKS | RANDOM)[name]
    made = source(build).model(RECIPE, "victim", 0)
    torch.manual_seed(derive_seed("victim", "start", 0))
    own = build().eval()
    own(IMAGES[:4].clone())
    leaf = IMAGES[:3].clone().requires_grad_()
    own(leaf * 1).softmax(dim=1)[:, 1].sum().backward()
    expected = leaf.grad.abs().amax(dim=1)  # type: ignore[union-attr]
    maps = Grad(grid=None).attribute(made, IMAGES[:3], torch.ones(3, dtype=torch.int64))
    assert torch.allclose(maps, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("name", [*NETWORKS, *RANDOM])
def test_a_measured_path_is_one_that_works(name: str) -> None:
    with second_derivatives():
        models = [source((NETWORKS | RANDOM)[name]).model(RECIPE, "victim", seed) for seed in range(2)]
        path = measured(models, IMAGES[:8], LABELS[:8], 0)
    assert isinstance(path, CodePath)
    if shares_weights(models[0]) or name in NOT_AT_ONCE:
        assert path.members == "loop"


def test_weights_under_several_names_are_noticed() -> None:
    sharing = {name for name, build in NETWORKS.items() if shares_weights(source(build).model(RECIPE, "victim", 0))}
    assert sharing == {"tied stages", "tied parameter", "tied to the head"}
