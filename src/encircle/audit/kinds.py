"""The kinds that a case can name: the rows of each folder's `ALL`, and those of installed packages."""

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
"""The entry-point group for kinds of other packages. An entry names a class or a list of classes."""


@final
@dataclass(frozen=True)
class Kinds:
    """One key of a case whose value is one of several kinds.

    Attributes:
        key: the key.
        base: their base class.
        module: its `ALL` lists them.
        plural: their name in `encircle list`.
    """

    key: str
    base: type
    module: str
    plural: str

    def __call__(self) -> dict[str, type]:
        """The classes by kind: the folder's own, then those of installed packages.

        Raises:
            InputError: an installed package's kind has the name of another kind.
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
    """The name of a class in cases: the default of its field `kind`.

    Raises:
        InputError: the field has no default.
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
    """The classes of installed packages."""
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
    """Annotation for a field of a case: the content's `kind` selects the row that it configures."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Looks rows up when a case is read, so that an entry in `ALL` is enough."""
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
    """Annotation for a field with some settings of a class, by name; the others keep their values."""

    settings: type
