"""The networks and problems that are measured: random data of the right size, since only time and memory matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from encircle.attacks import Problem
from encircle.data import TensorSamples
from encircle.explain import Cam, Explainer, Grad
from encircle.goals import DesiredMap
from encircle.models import ResNet13, SmallResNet, TwoLayerNet
from encircle.threat import Legal
from encircle.training import CodePath, Ensemble, Learner, Recipe, Source
from encircle.training.code_path import measured
from encircle.training.frozen import frozen_forward, frozen_samples

EXPLAINERS: dict[str, Explainer] = {"CAM": Cam(), "GRAD": Grad()}
CLASSES = 10


@dataclass(frozen=True)
class Size:
    """A network at a size: inputs, frozen stages, samples a batch and poison samples."""

    title: str
    network: str
    shape: tuple[int, ...]
    frozen: int
    batch: int
    poisons: int
    widths: tuple[int, int, int] = (16, 24, 32)


SIZES = {
    "table": Size("two-layer network, 30 columns", "two-layer", (30,), 0, 64, 64),
    "small-32": Size("small residual network, 32 px", "small-resnet", (1, 32, 32), 0, 64, 64),
    "small-32-frozen": Size("small residual network, 32 px, 3 stages frozen", "small-resnet", (1, 32, 32), 3, 64, 64),
    "resnet13-64": Size("resnet13, 64 px", "resnet13", (3, 64, 64), 0, 32, 32),
    "resnet13-64-frozen": Size("resnet13, 64 px, conv1 to layer2 frozen", "resnet13", (3, 64, 64), 3, 32, 32),
    "resnet13-112": Size("resnet13, 112 px", "resnet13", (3, 112, 112), 0, 16, 16),
    "resnet13-112-frozen": Size("resnet13, 112 px, conv1 to layer2 frozen", "resnet13", (3, 112, 112), 3, 16, 16),
}


def build(size: Size) -> nn.Module:
    """A fresh network."""
    if size.network == "two-layer":
        return TwoLayerNet(size.shape[0], CLASSES)
    if size.network == "small-resnet":
        return SmallResNet(CLASSES, channels=size.shape[0], widths=size.widths)
    return ResNet13(CLASSES, channels=size.shape[0])


def source_of(size: Size, device: str = "cpu") -> Source:
    """Where models start: one set of random weights, so that stages can be frozen."""
    torch.manual_seed(0)
    return Source(lambda: build(size), dict(build(size).state_dict()), device)


def samples_of(size: Size, count: int) -> TensorSamples:
    """Random samples of random classes."""
    random = torch.Generator().manual_seed(1)
    return TensorSamples(
        torch.rand(count, *size.shape, generator=random), torch.randint(CLASSES, (count,), generator=random)
    )


def recipe_of(size: Size, **changes: Any) -> Recipe:
    """The recipe that is measured: its rate keeps random labels from diverging."""
    settings = {
        "start": "checkpoint",
        "frozen_stages": size.frozen,
        "epochs": 1000,
        "batch_size": size.batch,
        "lr": 1e-3,
    }
    return Recipe(**{**settings, **changes})


def ensemble_of(source: Source, recipe: Recipe, members: int, path: CodePath | None = None) -> Ensemble:
    """K models that differ, not trained for long.

    Args:
        source: gives their starts.
        recipe: how they learn.
        members: K.
        path: how they are computed; None for the obvious way.
    """
    learners = []
    for member in range(members):
        model = source.model(recipe, "surrogate", member)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
        learners.append(Learner(model, recipe, 1000))
    return Ensemble(source, recipe, learners, 10**9, 0, path)


def problem_of(
    size: Size, explainer: str, *, clean: int = 256, path: CodePath | None = None, device: str = "cpu", **recipe: Any
) -> Problem:
    """A problem of this size.

    Args:
        size: of the network and its data.
        explainer: one of `EXPLAINERS`.
        clean: number of clean samples.
        path: how models are computed; None for the obvious way.
        device: of the models.
        recipe: changes of the recipe.
    """
    source, how, samples = source_of(size, device), recipe_of(size, **recipe), samples_of(size, clean)
    target = samples.inputs[:1].to(device)
    reference = source.model(how, "reference", 0)
    maps = EXPLAINERS[explainer].attribute(reference, target, torch.tensor([0], device=device))[0]
    wish = torch.rand(maps.shape, generator=torch.Generator().manual_seed(2))
    samples.labels[: size.poisons] = 0  # enough bases of the target's class
    return Problem(
        clean=samples,
        target=target,
        label=0,
        desired=DesiredMap(wish, None, "anything"),
        explainer=EXPLAINERS[explainer],
        ensemble=lambda members, staggered: ensemble_of(source, how, members, path),
        recipe=how,
        references=[reference],
        legal=Legal(levels=255) if len(size.shape) == 3 else Legal(),
        frozen_features=frozen_samples(reference, samples, size.frozen),
    )


def path_of(size: Size, members: int, device: str = "cpu") -> CodePath:
    """The path that an audit of this network would measure and take.

    Args:
        size: of the network and its data.
        members: number of models.
        device: of the models.
    """
    source, how, samples = source_of(size, device), recipe_of(size), samples_of(size, size.batch)
    models = [source.model(how, "measured", member) for member in range(members)]
    with torch.no_grad():
        frozen_features = frozen_forward(models[0], samples.inputs.to(device), size.frozen)
    return measured(models, frozen_features, samples.labels.to(device), size.frozen)
