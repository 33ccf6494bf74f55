"""The input of a goal: the target and the attacker's own explanations, never a victim's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..core import InputError
from ..goals import GoalContext
from ..seeds import derive_seed, generator
from .audit import Audit


def goal_context(
    audit: Audit,
    row: int,
    shape: tuple[int, ...],
    explain: Callable[[Tensor, int], Tensor],
    positive_units: Tensor | None,
    device: torch.device | None = None,
) -> GoalContext:
    """The input of a goal for one target.

    Args:
        audit: gives data and seed.
        row: the target's row of the test set.
        shape: of a map.
        explain: returns the mean map of the attacker's own models for a sample and a class.
        positive_units: hidden units with a positive contribution to the class at the target, in all these models; None for other maps.
        device: of the target; by default the audit's.

    Raises:
        InputError: the goal asks for a class without training samples.
    """
    data, settings = audit.data, audit.settings

    def of_class(label: int) -> Tensor:
        pool = (data.train.labels == label).nonzero()[:, 0]
        if not len(pool):
            raise InputError(
                f"the goal names class {label}, of which there is no training sample; choose from 0..{len(data.classes) - 1}."
            )
        drawn = torch.randint(len(pool), (1,), generator=generator("goal-sample", settings.seed, row))
        return data.train.batch(pool[drawn])

    return GoalContext(
        shape=shape,
        explain=explain,
        target=data.test.batch(torch.tensor([row])).to(device or audit.device),
        label=int(data.test.labels[row]),
        positive_units=positive_units,
        features=data.features if shape == (len(data.features),) else (),
        box=data.boxes.get(row),
        of_class=of_class,
        draw=derive_seed("goal", settings.seed, row),
    )
