"""Settings that an audit refuses before training: they do not fit together, or the verdict would mean nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from torch import Tensor

from ..attacks.bases import check_pools
from ..core import InputError, unknown_name
from ..data.poison import RESERVED
from ..models import module_errors, split
from ..threat import Budget
from ..training import Recipe
from .users_code import users_errors

if TYPE_CHECKING:
    from .audit import Audit

TRIED = 256
"""Number of evenly spaced table rows on which a budget is tried. In images all pixels move alike."""


def check_settings(audit: Audit) -> None:
    """Refuse settings at once that would fail, or mean nothing, after hours of training.

    Raises:
        InputError: settings that do not fit together, or not with data or network.
    """
    settings = audit.settings
    if isinstance(settings.targets, int) and settings.targets > len(audit.data.test):
        raise InputError(
            f"{settings.targets} targets are more than the {len(audit.data.test)} test samples; ask for fewer."
        )
    starts = (settings.pretraining is not None) + (audit.checkpoint is not None)
    if starts != (settings.recipe.start == "checkpoint"):
        raise InputError(
            "a recipe with start='checkpoint' needs either pretraining or a checkpoint, and one with start='scratch' neither."
        )
    if settings.recipe.starts > 1 and settings.pretraining is None:
        raise InputError("several starts are learnt by a pretraining recipe; give one, or set starts to 1.")
    if settings.recipe.starts > 1 and settings.code_path is not None and settings.code_path.members != "loop":
        raise InputError(
            "models of several starts share no frozen stages, so they cannot be computed at once; set code_path.members: loop or leave it out."
        )
    _check_class_weights(audit, settings.recipe)
    if settings.pretraining is not None and audit.data.pretrain is None:
        raise InputError(
            f"{audit.data.name} has no pre-training part; set its pretrain share above 0, or give a checkpoint."
        )
    _check_data(audit)
    _check_budget(audit)
    _check_augmentation(audit)
    _check_network(audit)
    _check_attacker(audit)
    _check_defence(audit)


def _check_class_weights(audit: Audit, recipe: Recipe) -> None:
    weights, classes = recipe.class_weights, len(audit.data.classes)
    if isinstance(weights, tuple) and len(weights) != classes:
        raise InputError(f"{len(weights)} class weights for {classes} classes; give one a class.")


def _check_data(audit: Audit) -> None:
    shape = audit.data.shape
    if len(shape) not in {1, 3}:
        raise InputError(
            f"inputs of shape {shape} are neither images (c, h, w) nor rows of a table (columns,); reshape them."
        )
    if audit.data.kind == "image" and shape[0] not in {1, 3}:
        raise InputError(f"images of {shape[0]} channels cannot be exported as PNG; use 1 or 3 channels.")
    if len(audit.data.classes) < 2:
        raise InputError("with one class there is nothing to classify; name at least two.")
    if audit.data.kind == "table" and len(audit.data.features) != shape[0]:
        raise InputError(f"{len(audit.data.features)} feature names for {shape[0]} columns; name each column once.")
    for name, times in Counter(audit.data.features if audit.data.kind == "table" else ()).items():
        if name in RESERVED or times > 1:
            raise InputError(
                f"the column {name!r} cannot be exported beside {' and '.join(map(repr, RESERVED))}, or is there twice; give each column a name of its own."
            )
    for name in audit.data.columns:
        if name not in audit.data.features:
            raise unknown_name("column", name, audit.data.features)


def _check_budget(audit: Audit) -> None:
    """Refuse a budget under which no sample changes: its verdict would be about nothing."""
    settings = audit.settings
    budget, train = settings.budget, audit.data.train
    if (count := budget.size(len(train))) == 0:
        raise InputError(
            f"a budget of {budget.fraction:.3g} of {len(train)} training samples comes to none, so that there is nothing to judge; raise budget.fraction."
            if budget.fraction is not None
            else "a budget of 0 samples leaves nothing to judge; raise budget.count."
        )
    ball = budget if settings.attack.bounded else replace(budget, norm="linf", epsilon=1.0)
    rows = torch.linspace(0, len(train) - 1, min(TRIED if audit.data.kind == "table" else 1, len(train))).long()
    if not bool(ball.movable(audit.legal.quantised(train.batch(rows)), audit.legal).any()):
        raise InputError(_nothing_moves(audit, ball))
    for attack in (arm.attack for arm in audit.arms):
        if hasattr(attack, "target_share"):
            for label in _target_classes(audit):
                shares = {name: getattr(attack, name) for name in ("target_share", "other_share", "repeats")}
                check_pools(train.labels, label, budget, count, order=getattr(attack, "bases", "nearest"), **shares)


def _target_classes(audit: Audit) -> list[int]:
    """Classes that are allowed for targets and have training samples."""
    settings = audit.settings
    labels = audit.data.test.labels
    if not isinstance(settings.targets, int):
        labels = labels[[row for row in settings.targets if 0 <= row < len(labels)]]
    learnt = set(audit.data.train.labels.tolist())
    return [label for label in sorted(set(labels.tolist())) if label in learnt]


def _nothing_moves(audit: Audit, ball: Budget) -> str:
    columns = audit.legal.columns or {}
    if (
        columns
        and len(columns) == len(audit.data.features)
        and all(column.kind == "immutable" for column in columns.values())
    ):
        return "no column may change: all are immutable, or categories written out; let poison change at least one."
    step = (
        f"one level of an 8-bit file ({1 / audit.legal.levels:.2g})" if audit.legal.levels else "a step of any column"
    )
    return f"an {ball.norm} epsilon of {ball.epsilon:.3g} is less than {step} once all entries move, so nothing would be left of the poison; raise epsilon."


def _check_augmentation(audit: Audit) -> None:
    settings = audit.settings
    augmented = {
        "recipe.augmentation": settings.recipe.augmentation is not None,
        "pretraining.augmentation": settings.pretraining is not None and settings.pretraining.augmentation is not None,
        "attack.augmented": getattr(settings.attack, "augmented", False),
    }
    for key, asked in augmented.items():
        if asked and audit.data.kind != "image":
            raise InputError(f"rows of a table cannot be mirrored or shifted; leave {key} out.")
    if augmented["recipe.augmentation"] and settings.code_path is not None and settings.code_path.members != "loop":
        raise InputError(
            "augmentation draws for each model by itself, so models cannot be computed at once; set code_path.members: loop or leave it out."
        )


def _check_network(audit: Audit) -> None:
    settings = audit.settings
    apart = settings.recipe.start == "scratch" or settings.recipe.starts > 1
    if apart and settings.explainer.space(audit.data.shape) == "units":
        raise InputError(
            "CAM over hidden units compares units between networks, and units of separately initialised networks do not "
            "correspond; use a recipe with start: checkpoint and starts: 1, or the explainer grad."
        )
    network = audit.fresh()
    settings.explainer.check(network)
    split(network, settings.recipe.frozen_stages)
    probe = audit.data.train.batch(torch.arange(min(2, len(audit.data.train))))
    with torch.no_grad(), module_errors(network, f"for {tuple(probe.shape)} float32 inputs"):
        logits = network(probe)
    if not isinstance(logits, Tensor) or logits.shape != (len(probe), len(audit.data.classes)):
        form = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"the network gives {form} for {len(probe)} inputs and {len(audit.data.classes)} classes; it must give logits (n, classes)."
        )
    settings.attack.check(network if audit.attacker is None else audit.attacker.fresh())
    if settings.attack.needs_gradient and not settings.explainer.differentiable:
        raise InputError(
            f"{settings.attack.title} differentiates through the explainer and {type(settings.explainer).__name__} is not differentiable; choose another "
            "explainer or the attack watermark."
        )


def _check_attacker(audit: Audit) -> None:
    settings = audit.settings
    if audit.attacker is None:
        return
    if audit.attacker.data is not audit.data:
        raise InputError(
            "the attacker's audit has other data; give it the very same data set, which the attacker knows."
        )
    networks = audit.fresh(), audit.attacker.fresh()
    if settings.explainer.space(audit.data.shape) == "units" and str(networks[0]) != str(networks[1]):
        raise InputError(
            "CAM over hidden units compares units between networks, and an attacker of another network has other units; use the explainer grad."
        )
    probe, label = audit.data.train.batch(torch.tensor([0])), torch.tensor([0])
    shapes = [tuple(settings.explainer.attribute(network, probe, label).shape[1:]) for network in networks]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"the attacker's network gives maps of {shapes[1]} and the victims' of {shapes[0]}, so that no desired map fits both; choose a network "
            "of the same grid."
        )


def _check_defence(audit: Audit) -> None:
    """Refuse a defence whose victims start elsewhere, cannot learn as it asks, or whose maps no desired map fits."""
    settings, defence = audit.settings, audit.settings.defence
    with users_errors():
        try:
            recipe, explainer = defence.recipe(settings.recipe), defence.explainer(settings.explainer)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"the defence {defence.kind} makes settings that cannot be: {reason}; mend it.") from None
    if (recipe.start, recipe.starts) != (settings.recipe.start, settings.recipe.starts):
        raise InputError(
            f"the defence {defence.kind} changes where victims start; set recipe.start and recipe.starts in the case itself."
        )
    if recipe.augmentation is not None and audit.data.kind != "image":
        raise InputError(
            f"rows of a table cannot be mirrored or shifted, as the defence {defence.kind} asks; choose another."
        )
    network = audit.fresh()
    try:
        _check_class_weights(audit, recipe)
        split(network, recipe.frozen_stages)
        explainer.check(network)
    except InputError as error:
        raise InputError(f"under the defence {defence.kind}: {error}") from error
    probe, label = audit.data.train.batch(torch.tensor([0])), torch.tensor([0])
    shapes = [tuple(way.attribute(network, probe, label).shape[1:]) for way in (settings.explainer, explainer)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"under the defence {defence.kind} maps are of {shapes[1]} and without it of {shapes[0]}, so that no desired map fits both; choose another."
        )
