"""What an audit shows a goal: the target and the attacker's own explanations, never a victim's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..core import InputError, digest
from ..goals import Away, GoalContext
from ..seeds import derive_seed, generator
from ..training import Source
from ..training.self_test import ROWS, SelfTest
from .audit import Audit


def rehearse(audit: Audit, tried: set[str] | None = None) -> None:
    """Try the network on one batch, and the goal on a made-up map, to refuse what does not fit before anything is trained.

    The goal is resolved for the named targets, or a test sample.

    Args:
        audit: what is to be done.
        tried: what networks and ways to use them are known by that passed before; they are not tried again, and new ones are added.

    Raises:
        InputError: as `SelfTest` and `Goal.resolve`.
    """
    if tried is None:
        _try_network(audit)
    elif (known := _network_key(audit)) not in tried:
        _try_network(audit)
        tried.add(known)
    named = [0] if isinstance(audit.targets, int) else audit.targets
    for row in named:
        if not 0 <= row < len(audit.data.test):
            raise InputError(
                f"target {row} is not a row of the test set (0..{len(audit.data.test) - 1}); choose another."
            )
    if isinstance(audit.targets, int) and isinstance(audit.goal, Away) and audit.goal.box is None:
        boxless = [row for row in range(len(audit.data.test)) if row not in audit.data.boxes]
        if boxless:
            raise InputError(
                f"the goal 'away' needs every test sample's box and {audit.data.name} lacks that of {len(boxless)}, row {boxless[0]} among them; give "
                "box=(top, left, bottom, right), or name targets that have one."
            )
    target, label = audit.data.test.batch(torch.tensor([named[0]])), int(audit.data.test.labels[named[0]])
    shape = tuple(audit.explainer.attribute(audit.fresh(), target, torch.tensor([label])).shape[1:])
    ramp = torch.arange(math.prod(shape)).reshape(shape).float()  # stands for explanations that nobody has trained yet
    for row in named:
        audit.goal.resolve(goal_context(audit, row, shape, lambda sample, of: ramp, None))


def _network_key(audit: Audit) -> str:
    """What decides how a network is used."""
    settings = [audit.recipe, audit.explainer, audit.code_path, audit.attack.needs_gradient]
    described = {name: audit.describe()[name] for name in ("model", "attacker")}
    return digest([described, audit.data.shape, len(audit.data.classes), repr(settings), sorted(audit.digests.items())])


def _try_network(audit: Audit) -> None:
    """The victims' network, and the attacker's where it is another; what of the attacker's is wrong is said to be so."""
    train = audit.data.train
    rows = torch.arange(min(ROWS, len(train)))
    inputs, labels = train.batch(rows), train.labels[rows]
    for owner in (audit, audit.attacker):
        if owner is None:
            continue
        recipe = owner.recipe
        # Weights that are learnt first are not there yet: any of the same shapes will do.
        start = owner.checkpoint or (owner.fresh().state_dict() if recipe.start == "checkpoint" else None)
        test = SelfTest(
            Source(owner.build, start, owner.device),
            recipe,
            audit.explainer,
            len(audit.data.classes),
            path=owner.code_path,
            attacked=audit.attack.needs_gradient,
        )
        try:
            test(inputs, labels)
        except InputError as error:
            if owner is audit:
                raise
            raise InputError(f"as the attacker supposes: {error}") from error


def goal_context(
    audit: Audit,
    row: int,
    shape: tuple[int, ...],
    explain: Callable[[Tensor, int], Tensor],
    positive_units: Tensor | None,
) -> GoalContext:
    """What a goal may look at for a target."""
    data = audit.data

    def of_class(label: int) -> Tensor:
        pool = (data.train.labels == label).nonzero()[:, 0]
        if not len(pool):
            raise InputError(
                f"the goal names class {label}, of which there is no training sample; choose from 0..{len(data.classes) - 1}."
            )
        place = torch.randint(len(pool), (1,), generator=generator("goal-sample", audit.seed, row))
        return data.train.batch(pool[place])

    return GoalContext(
        shape=shape,
        explain=explain,
        target=data.test.batch(torch.tensor([row])).to(audit.device),
        label=int(data.test.labels[row]),
        positive_units=positive_units,
        features=data.features if shape == (len(data.features),) else (),
        box=data.boxes.get(row),
        of_class=of_class,
        draw=derive_seed("goal", audit.seed, row),
    )
