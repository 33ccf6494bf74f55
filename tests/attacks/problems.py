"""Small problems for attacks: images or tables, with everything that an attacker knows."""

from __future__ import annotations

from typing import Any, Literal

import torch

from encircle.attacks import Attack, Problem, Watch
from encircle.explain import Cam, Explainer, Grad
from encircle.goals import DesiredMap
from encircle.threat import Budget, Column, Legal
from encircle.training import Ensemble, Recipe, fit
from tests.networks import Activation, tiny_inputs
from tests.training.problems import recipe, samples, source

Kind = Literal["image", "table"]
EXPLAINERS: dict[str, Explainer] = {"grad": Grad(), "cam": Cam()}
COLUMNS = {
    0: Column("immutable"),
    1: Column("integer", step=1 / 50),
    2: Column("categorical", values=(0.0, 0.25, 0.5, 0.75, 1.0)),
}
ENTRIES = {("image", "grad"): (4, 4), ("image", "cam"): (4, 4), ("table", "grad"): (5,), ("table", "cam"): (4,)}


def desired(kind: Kind, explainer: str, *, mask: bool = False) -> DesiredMap:
    """A generic map, and a mask that leaves three quarters of it."""
    shape = ENTRIES[kind, explainer]
    random = torch.Generator().manual_seed(7)
    values = torch.rand(shape, generator=random)
    keep = torch.ones(shape, dtype=torch.bool)
    keep.view(-1)[::4] = False
    return DesiredMap(values, keep if mask else None, "anything")


def problem(
    kind: Kind,
    explainer: str = "grad",
    *,
    dtype: torch.dtype = torch.float32,
    activation: Activation = "softplus",
    how: Recipe | None = None,
    clean: int = 21,
    mask: bool = False,
    legal: Legal | None = None,
    **changes: Any,
) -> Problem:
    """A problem whose data are 8-bit images or tables with column types, unless `legal` says otherwise."""
    if legal is None:
        legal = Legal(levels=255) if kind == "image" else Legal(columns=COLUMNS)
    how = how or recipe(start="checkpoint")
    start, data = source(kind, dtype=dtype, activation=activation), samples(kind, clean, dtype=dtype)
    target = tiny_inputs(kind, 1, seed=99, dtype=dtype)
    if kind == "table":  # rows of a real table: the integer is a multiple of its step, the category one of its values
        for rows in (data.inputs, target):
            rows[:, 1] = (rows[:, 1] * 50).round() / 50
            rows[:, 2] = (rows[:, 2] * 4).round() / 4
    settings: dict[str, Any] = {
        "clean": data,
        "target": target,
        "label": 1,
        "desired": desired(kind, explainer, mask=mask),
        "explainer": EXPLAINERS[explainer],
        "ensemble": lambda members, staggered: Ensemble.pretrained(
            start, how, data, members=members, staggered=staggered, seed=0
        ),
        "recipe": how,
        "references": [fit(start, how, data, "reference", 0)],
        "legal": legal,
    }
    return Problem(**{**settings, **changes})


NO_CLEAN = (torch.zeros(0), torch.zeros(0, dtype=torch.int64))
"""The clean part of a mini-batch, for directions that do not look at it."""


def distance_at_the_end(attack: Attack, explainer: str = "cam") -> float:
    """Mean distance of the attacker's own maps from the desired one in the last iterations of a crafting."""
    asked = problem("image", explainer, clean=20, how=Recipe(start="checkpoint", epochs=2, batch_size=10, lr=0.05))
    watch = Watch()
    attack(asked, Budget(count=15, epsilon=0.5), torch.Generator().manual_seed(0), watch)
    last = [row["distance"] for row in watch.history[-20:]]
    return float(sum(last) / len(last))


def first_time(*, compare: bool = False) -> dict[str, Any]:
    """What a direction is told besides, in a first iteration."""
    return {"sizes": (12, 6), "compare": compare, "memory": {}}
