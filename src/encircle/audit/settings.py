"""The settings of every audit, from a case file or from Python."""

from __future__ import annotations

import operator
from abc import ABC
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass

from ..attacks import Attack, Ceiling, Influence
from ..core import CONFIGURED
from ..defences import Defence, NoDefence
from ..explain import Cam, Explainer
from ..goals import Goal, Region
from ..scoring.thresholds import BENT_EFFECT, LABEL_KEPT, MINIMUM_TARGETS
from ..threat import Budget
from ..training import CodePath, Recipe
from .kinds import OfKind


@final
@dataclass(frozen=True, config=CONFIGURED)
class Judging:
    """The requirements of a verdict.

    Args:
        threshold: the effect on the Jaccard score from which an explanation counts as bent.
        label_kept: share of victims that must keep the target's class for an attack to count.
        minimum_targets: with fewer targets, or a single victim, no interval is claimed and the run is a demonstration.
    """

    threshold: float = Field(default=BENT_EFFECT, gt=0, le=1)
    label_kept: float = Field(default=LABEL_KEPT, gt=0, le=1)
    minimum_targets: int = Field(default=MINIMUM_TARGETS, ge=2)


def _integer(value: Any) -> Any:
    """NumPy's and torch's integers as Python's; anything else as it is."""
    if not isinstance(value, bool) and "bool" not in str(getattr(value, "dtype", "")):
        with suppress(TypeError):
            return operator.index(value)
    return value


def _integers(value: Any) -> Any:
    """The rows of an array, a tensor or a sequence of any integers as a tuple; a number as itself."""
    rows = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(rows, Iterable) and not isinstance(rows, str | Mapping):
        return tuple(_integer(row) for row in rows)
    return _integer(rows)


Count = Annotated[int, BeforeValidator(_integer), Field(ge=1)]


class AuditSettings(BaseModel, ABC):
    """Everything that decides an audit's scores besides network, data and starting weights.

    The two subclasses are `Case` and `OwnSettings`.

    Args:
        title: its name in reports.
        recipe: how victims learn; the attacker knows it, but not the victims' seeds.
        pretraining: the recipe for a checkpoint learnt on the pre-training part of the data, for recipes that start from one.
        explainer: makes the explanations.
        goal: the desired map.
        attack: the audited attack; the controls always run beside it.
        defence: changes how victims learn or are explained; the undefended arms always run beside it.
        budget: how much poison, and how far from its bases.
        ceiling: estimates how far any attack could bend the explanation, by changing the model itself; null makes no estimate.
        targets: number of targets that the seeded rule draws from the test set, or a list of its rows.
        victims: victims per target and arm, all of different seeds.
        references: the attacker's own clean models, for choosing bases and resolving goals.
        seed: of all random draws.
        threads: CPU threads; results are bit for bit the same only for the same number.
        code_path: how models are computed. By default the fastest way is measured once and saved with the run. Results are bit for bit the
            same only for the same path: name it for scores that are to be compared bit for bit.
        judging: the requirements of a verdict.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = "Audit"
    recipe: Recipe = Field(default_factory=Recipe)
    pretraining: Recipe | None = None
    explainer: Annotated[Explainer, OfKind("explainer")] = Field(default_factory=Cam)
    goal: Annotated[Goal, OfKind("goal")] = Field(default_factory=Region)
    attack: Annotated[Attack, OfKind("attack")] = Field(default_factory=Influence)
    defence: Annotated[Defence, OfKind("defence")] = Field(default_factory=NoDefence)
    budget: Budget = Field(default_factory=lambda: Budget(fraction=0.1))
    ceiling: Ceiling | None = None
    targets: Annotated[int | tuple[int, ...], BeforeValidator(_integers)] = 10
    victims: Count = 3
    references: Count = 2
    seed: Annotated[int, BeforeValidator(_integer), Field(ge=0)] = 0
    threads: Count = 1
    code_path: CodePath | None = None
    judging: Judging = Field(default_factory=Judging)

    @model_validator(mode="after")
    def _named(self) -> AuditSettings:
        for key in ("attack", "defence"):  # files are called after them
            if getattr(getattr(self, key), "kind", None) is None:
                raise ValueError(f"{key}: {type(getattr(self, key)).__name__} has no kind; give its class a short name")
        return self

    @model_validator(mode="after")
    def _has_targets(self) -> AuditSettings:
        if self.target_count < 1:
            raise ValueError("targets must be at least 1")
        return self

    @model_serializer(mode="wrap")
    def _content(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The settings: title, data and model first, for people.

        The defence is listed only if there is one, so that undefended audits keep their id.
        """
        content: dict[str, Any] = handler(self)
        if isinstance(self.defence, NoDefence):
            content.pop("defence", None)
        return {name: content[name] for name in ("title", "data", "model") if name in content} | content

    @property
    def target_count(self) -> int:
        """The number of targets."""
        return self.targets if isinstance(self.targets, int) else len(self.targets)


@final
class OwnSettings(AuditSettings):
    """Settings of an audit whose network and data are given in Python."""
