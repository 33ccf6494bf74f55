"""A case: everything that decides an audit's scores, as a file people can read and write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from ..attacks import Attack, Ceiling, Influence
from ..core import CONFIGURED
from ..data import DataSource, Digits
from ..explain import Cam, Explainer
from ..goals import Goal, Region
from ..models import Architecture, SmallResNetModel
from ..scoring.thresholds import BENT_EFFECT, LABEL_KEPT, MINIMUM_TARGETS
from ..threat import Budget
from ..training import CodePath, Recipe
from .kinds import OfKind, PartOf


@final
@dataclass(frozen=True, config=CONFIGURED)
class Judging:
    """What a verdict needs.

    Args:
        threshold: a change of the Jaccard score against clean, beyond the seed null, from which an explanation counts as bent.
        label_kept: share of victims that must keep the target's class for an attack to count.
        minimum_targets: with fewer targets, or a single victim, no interval is claimed and the run is a demonstration.
    """

    threshold: float = Field(default=BENT_EFFECT, gt=0, le=1)
    label_kept: float = Field(default=LABEL_KEPT, gt=0, le=1)
    minimum_targets: int = Field(default=MINIMUM_TARGETS, ge=2)


@final
@dataclass(frozen=True, config=CONFIGURED)
class Attacker:
    """What the attacker supposes of the victims otherwise than it is; all else is known (§3.2).

    Args:
        model: the network that poison is crafted on: does it transfer to the victims'?
        recipe: keys of the victims' recipe that are supposed otherwise, as in `{epochs: 3, lr: 0.05}`. With `{start: scratch, frozen_stages: 0}` the attacker
            does without the weights that victims start from, and no two surrogates see alike; with `{starts: 8}` it learns eight of its own.
    """

    model: Annotated[Architecture, OfKind("model")] | None = None
    recipe: Annotated[dict[str, Any], PartOf(Recipe)] = Field(default_factory=dict)


@final
class Case(BaseModel):
    """One audit: data, model, recipe, explainer, desired map, attack, budget and the amount of evidence.

    Args:
        title: what it is called in reports.
        data: the data set.
        model: the network.
        recipe: how victims learn; the attacker knows it, but not the victims' seeds.
        pretraining: how a checkpoint is learnt on the pre-training part of the data; for recipes that start from one.
        checkpoint: or a file of weights (`.safetensors`, or `.pt` of plain tensors).
        explainer: what explanations come from.
        goal: the desired map.
        attack: what is audited; the controls always run beside it.
        budget: how much poison, how far from its bases.
        attacker: what the attacker supposes of the victims otherwise than it is; null knows network and recipe.
        ceiling: estimates how far the explanation could be bent at all, by changing the model itself, to see the attack beside; null does not.
        targets: how many targets are drawn from the test set by the seeded rule, or which of its rows.
        victims: victims per target and arm, each of another seed.
        references: the attacker's own clean models, for choosing bases and resolving goals.
        seed: of everything.
        threads: CPU threads; results are bit for bit the same only for the same number.
        code_path: how models are computed; by default it is measured once which way is fastest, and kept with the run. Results are bit for
            bit the same only for the same path: name it for scores that are to be compared bit for bit.
        judging: what a verdict needs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = "Audit"
    data: Annotated[DataSource, OfKind("data")] = Field(default_factory=Digits)
    model: Annotated[Architecture, OfKind("model")] = Field(default_factory=SmallResNetModel)
    recipe: Recipe = Field(default_factory=Recipe)
    pretraining: Recipe | None = None
    checkpoint: Path | None = None
    explainer: Annotated[Explainer, OfKind("explainer")] = Field(default_factory=Cam)
    goal: Annotated[Goal, OfKind("goal")] = Field(default_factory=Region)
    attack: Annotated[Attack, OfKind("attack")] = Field(default_factory=Influence)
    budget: Budget = Field(default_factory=lambda: Budget(fraction=0.1))
    attacker: Attacker | None = None
    ceiling: Ceiling | None = None
    targets: int | tuple[int, ...] = 10
    victims: int = Field(default=3, ge=1)
    references: int = Field(default=2, ge=1)
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    code_path: CodePath | None = None
    judging: Judging = Field(default_factory=Judging)

    @model_validator(mode="after")
    def _consistent(self) -> Case:
        starts = (self.pretraining is not None) + (self.checkpoint is not None)
        if self.recipe.start == "checkpoint" and starts != 1:
            raise ValueError("a recipe that starts from a checkpoint needs either pretraining or checkpoint")
        if self.recipe.start == "scratch" and starts:
            raise ValueError("pretraining and checkpoint are only used by a recipe with start: checkpoint")
        unknown = set(self.attacker.recipe) - set(Recipe.__dataclass_fields__) if self.attacker else set[str]()
        if unknown:
            raise ValueError(f"attacker.recipe: {min(unknown)!r} is no key of a recipe")
        count = self.targets if isinstance(self.targets, int) else len(self.targets)
        if count < 1:
            raise ValueError("targets must be at least 1")
        try:
            _ = self.supposed()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"attacker.{where}: {message}" if where else f"attacker: {message}") from None
        return self

    def supposed(self) -> Case | None:
        """The case as the attacker supposes it to be; None where that is as it is."""
        if self.attacker is None:
            return None
        content = self.model_dump(mode="json") | {"attacker": None}
        if self.attacker.model is not None:
            content["model"] = self.model_dump(mode="json")["attacker"]["model"]
        recipe = content["recipe"] | self.attacker.recipe
        if recipe["start"] == "scratch":  # an attacker who lacks the weights that victims start from
            content |= {"checkpoint": None, "pretraining": None}
        return Case.model_validate(content | {"recipe": recipe})
