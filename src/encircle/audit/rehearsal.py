"""Tests before training: the network on one batch, and the goal on a made-up map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..core import InputError, digest
from ..explain import Explainer
from ..goals import Away
from ..training import Recipe, Source
from ..training.self_test import ROWS, SelfTest
from .audit import Audit
from .goal_context import goal_context


def rehearse(audit: Audit, tried: set[str] | None = None, *, device: torch.device | None = None) -> None:
    """Test the network on one batch and the goal on a made-up map, before anything is trained.

    The goal is resolved for the named targets, or for a test sample.

    Args:
        audit: the audit.
        tried: keys of networks and uses that passed before. They are not tested again; new ones are added.
        device: of the test; by default the audit's. A machine that plans for others may lack that one.

    Raises:
        InputError: as `SelfTest` and `Goal.resolve`.
    """
    settings, device = audit.settings, device or audit.device
    if tried is None:
        _try_network(audit, device)
    elif (key := _network_key(audit)) not in tried:
        _try_network(audit, device)
        tried.add(key)
    named = [0] if isinstance(settings.targets, int) else settings.targets
    for row in named:
        if not 0 <= row < len(audit.data.test):
            raise InputError(
                f"target {row} is not a row of the test set (0..{len(audit.data.test) - 1}); choose another."
            )
    if isinstance(settings.targets, int) and isinstance(settings.goal, Away) and settings.goal.box is None:
        boxless = [row for row in range(len(audit.data.test)) if row not in audit.data.boxes]
        if boxless:
            raise InputError(
                f"the goal 'away' needs every test sample's box and {audit.data.name} lacks that of {len(boxless)}, row {boxless[0]} among them; give "
                "box=(top, left, bottom, right), or name targets that have one."
            )
    target, label = audit.data.test.batch(torch.tensor([named[0]])), int(audit.data.test.labels[named[0]])
    shape = tuple(settings.explainer.attribute(audit.fresh(), target, torch.tensor([label])).shape[1:])
    ramp = torch.arange(math.prod(shape)).reshape(shape).float()  # in place of explanations, which need trained models
    for row in named:
        settings.goal.resolve(goal_context(audit, row, shape, lambda sample, of: ramp, None, device))


def _network_key(audit: Audit) -> str:
    """The settings that decide how a network is used."""
    settings = audit.settings
    usage = [settings.recipe, settings.explainer, settings.code_path, settings.attack.needs_gradient, settings.defence]
    described = {name: audit.describe()[name] for name in ("model", "attacker")}
    return digest([described, audit.data.shape, len(audit.data.classes), repr(usage), sorted(audit.digests.items())])


def _try_network(audit: Audit, device: torch.device) -> None:
    """Test the victims' network, the attacker's if it differs, and the victims' under the defence; errors name which."""
    settings, defence, attacked = audit.settings, audit.settings.defence, audit.settings.attack.needs_gradient
    defended = defence.recipe(settings.recipe), defence.explainer(settings.explainer)
    _self_test(audit, audit, settings.recipe, settings.explainer, device, attacked=attacked)
    if audit.attacker is not None:
        with _said_first("as the attacker supposes"):
            recipe = audit.attacker.settings.recipe
            _self_test(audit, audit.attacker, recipe, settings.explainer, device, attacked=attacked)
    if defended != (settings.recipe, settings.explainer):
        with _said_first(f"under {defence.title}"):
            _self_test(audit, audit, *defended, device, attacked=False)


@contextmanager
def _said_first(words: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{words}: {error}") from error


def _self_test(
    audit: Audit, owner: Audit, recipe: Recipe, explainer: Explainer, device: torch.device, *, attacked: bool
) -> None:
    train = audit.data.train
    rows = torch.arange(min(ROWS, len(train)))
    # The starting weights are not learnt yet: any of the same shapes will do.
    start = owner.checkpoint or (owner.fresh().state_dict() if recipe.start == "checkpoint" else None)
    source, path = Source(owner.build, start, device), owner.settings.code_path
    test = SelfTest(source, recipe, explainer, len(audit.data.classes), path=path, attacked=attacked)
    test(train.batch(rows), train.labels[rows])
