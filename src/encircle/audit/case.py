"""A case: everything that decides an audit's scores, as a file people can read and write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, final

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED
from ..data import DataSource, Digits
from ..models import Architecture, SmallResNetModel
from ..training import Recipe
from .kinds import KINDS, OfKind, PartOf
from .settings import AuditSettings


@final
@dataclass(frozen=True, config=CONFIGURED)
class Attacker:
    """The attacker's wrong suppositions about the victims; all else is known (§3.2).

    Args:
        model: the network on which poison is crafted: does it transfer to the victims' network?
        recipe: keys of the victims' recipe with other values, as in `{epochs: 3, lr: 0.05}`. With `{start: scratch, frozen_stages: 0}` the attacker lacks
            the weights from which victims start, and surrogates share no frozen features. With `{starts: 8}` it learns eight starts of its own.
    """

    model: Annotated[Architecture, OfKind("model")] | None = None
    recipe: Annotated[dict[str, Any], PartOf(Recipe)] = Field(default_factory=dict)


@final
class Case(AuditSettings):
    """One audit: data, model, recipe, explainer, desired map, attack, budget and the amount of evidence.

    Args:
        data: the data set.
        model: the network.
        checkpoint: a file of weights that models start from (`.safetensors`, or `.pt` of plain tensors), in place of `pretraining`.
        attacker: the attacker's wrong suppositions about the victims; null: the attacker knows network and recipe.
    """

    data: Annotated[DataSource, OfKind("data")] = Field(default_factory=Digits)
    model: Annotated[Architecture, OfKind("model")] = Field(default_factory=SmallResNetModel)
    checkpoint: Path | None = None
    attacker: Attacker | None = None
    _supposed: Case | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _consistent(self) -> Case:
        for key in KINDS:
            if not hasattr(type(getattr(self, key)), "__pydantic_fields__"):
                raise ValueError(
                    f"{key}: {type(getattr(self, key)).__name__} cannot be written as text, as a case is; use Audit.of, or make it a pydantic dataclass"
                )
        starts = (self.pretraining is not None) + (self.checkpoint is not None)
        if self.recipe.start == "checkpoint" and starts != 1:
            raise ValueError("a recipe that starts from a checkpoint needs either pretraining or checkpoint")
        if self.recipe.start == "scratch" and starts:
            raise ValueError("pretraining and checkpoint are only used by a recipe with start: checkpoint")
        unknown = set(self.attacker.recipe) - set(Recipe.__dataclass_fields__) if self.attacker else set[str]()
        if unknown:
            raise ValueError(f"attacker.recipe: {min(unknown)!r} is no key of a recipe")
        try:
            self._supposed = self._as_supposed()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"attacker.{where}: {message}" if where else f"attacker: {message}") from None
        return self

    @property
    def supposed(self) -> Case | None:
        """The case that the attacker supposes; None where it is the true one."""
        return self._supposed

    def _as_supposed(self) -> Case | None:
        if self.attacker is None:
            return None
        content = self.model_dump(mode="json") | {"attacker": None}
        if self.attacker.model is not None:
            content["model"] = self.model_dump(mode="json")["attacker"]["model"]
        recipe = content["recipe"] | self.attacker.recipe
        if recipe["start"] == "scratch":  # an attacker who lacks the weights that victims start from
            content |= {"checkpoint": None, "pretraining": None}
        return Case.model_validate(content | {"recipe": recipe})

    @property
    def files(self) -> list[str]:
        """The names of all files that the case names."""
        goal = [value for value in vars(self.goal).values() if isinstance(value, Path)]
        return [str(path) for path in (self.checkpoint, *goal) if path is not None]

    def with_files(self, path_of: Callable[[str], Path]) -> Case:
        """The same case with its files elsewhere; it is not validated anew.

        Args:
            path_of: returns a file's path for its name in this case.
        """
        moved = {name: path_of(str(path)) for name, path in vars(self.goal).items() if isinstance(path, Path)}
        update: dict[str, Any] = {"goal": replace(self.goal, **moved)} if moved else {}  # type: ignore[type-var]
        if self.checkpoint is not None:
            update["checkpoint"] = path_of(str(self.checkpoint))
        case = self.model_copy(update=update)
        case._supposed = None if self._supposed is None else self._supposed.with_files(path_of)
        return case
