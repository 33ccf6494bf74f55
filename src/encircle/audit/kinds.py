"""What a case can name: the rows of each folder's `ALL`, and what installed packages add to them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any, Final, final

from pydantic import GetCoreSchemaHandler, TypeAdapter
from pydantic_core import SchemaValidator, core_schema

from ..attacks import Attack
from ..core import InputError
from ..data import DataSource
from ..defences import Defence
from ..explain import Explainer
from ..goals import Goal
from ..models import Architecture

GROUP = "encircle.plugins"
"""The entry points by which a package adds its own: each names a class, or a list of classes."""


@final
@dataclass(frozen=True)
class Kinds:
    """One key of a case whose value is one of several kinds.

    Attributes:
        key: the key.
        base: what all of them are.
        module: whose `ALL` lists them.
        plural: what `encircle list` calls them.
    """

    key: str
    base: type
    module: str
    plural: str

    def __call__(self) -> dict[str, type]:
        """The classes by the names that cases call them by: the folder's own, then those of installed packages.

        Raises:
            InputError: an installed package's kind has the name of another.
        """
        known = {kind_name(row): row for row in importlib.import_module(self.module).ALL}
        for row in _installed():
            if issubclass(row, self.base):
                if kind_name(row) in known:
                    raise InputError(
                        f"an installed package brings the {self.key} {kind_name(row)!r}, which is there already; rename it in {row.__module__}."
                    )
                known[kind_name(row)] = row
        return known


KINDS: Final = {
    kinds.key: kinds
    for kinds in (
        Kinds("data", DataSource, "encircle.data", "datasets"),
        Kinds("model", Architecture, "encircle.models", "models"),
        Kinds("explainer", Explainer, "encircle.explain", "explainers"),
        Kinds("goal", Goal, "encircle.goals", "goals"),
        Kinds("attack", Attack, "encircle.attacks", "attacks"),
        Kinds("defence", Defence, "encircle.defences", "defences"),
    )
}
"""The keys of a case that name a kind."""


def kind_name(row: type) -> str:
    """What cases call a class: the default of its field `kind`.

    Raises:
        InputError: it has none.
    """
    field = getattr(row, "__dataclass_fields__", {}).get("kind")
    default = getattr(getattr(field, "default", None), "default", None)
    if not isinstance(default, str):
        raise InputError(
            f"{row.__module__}.{row.__qualname__} has no field kind with a name as its default; add kind: Literal[...] = Field(default=..., kw_only=True)."
        )
    return default


def summary_of(row: type) -> str:
    """The first line of a class's docstring."""
    return (row.__doc__ or "").strip().partition("\n")[0]


@lru_cache(maxsize=1)
def _installed() -> tuple[type, ...]:
    """The classes that installed packages bring."""
    rows: list[type] = []
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        try:
            value = point.load()
        except Exception as error:
            raise InputError(
                f"the plug-in {point.name!r} ({point.value}) cannot be loaded ({type(error).__name__}: {error}); mend or uninstall its package."
            ) from error
        classes = list(value) if isinstance(value, Iterable) else [value]
        if not all(isinstance(row, type) for row in classes):
            raise InputError(
                f"the plug-in {point.name!r} ({point.value}) is neither a class nor a list of classes; mend or uninstall its package."
            )
        rows += classes
    return tuple(rows)


@final
@dataclass(frozen=True)
class OfKind:
    """Annotation of a field of a case: its content says by `kind` which of the rows it configures."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Looks rows up when a case is read, so that a row needs nothing but to stand in its `ALL`."""
        return core_schema.no_info_plain_validator_function(
            self._validated,
            serialization=core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True),
        )

    def _validated(self, value: Any) -> Any:
        if isinstance(value, KINDS[self.key].base):
            return value
        return _validator(tuple(KINDS[self.key]().items())).validate_python(value)


@lru_cache(maxsize=64)
def _validator(rows: tuple[tuple[str, type], ...]) -> SchemaValidator:
    choices = {name: TypeAdapter(row).core_schema for name, row in rows}
    return SchemaValidator(core_schema.tagged_union_schema(choices, discriminator="kind"))


def _dumped(value: Any, info: core_schema.SerializationInfo) -> Any:
    return TypeAdapter(type(value)).dump_python(value, mode="json" if info.mode == "json" else "python")


@final
@dataclass(frozen=True)
class PartOf:
    """Annotation of a field that holds some settings of a class by name, and leaves the others as they are elsewhere."""

    settings: type
