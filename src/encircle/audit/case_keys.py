"""Every key of a case, from the classes that hold its settings."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from .case import Case
from .kinds import KINDS, OfKind, PartOf


def keys_below(path: str) -> list[str]:
    """The names that may follow a dotted key, of all kinds if it has several.

    Args:
        path: such as `"budget"`, `"attack"` or `"attacker.recipe"`; empty for the case itself.
    """
    members: list[type] = [Case]
    for name in path.split(".") if path else ():
        members = [inner for member in members for inner in _classes_of(member, name)]
    return list(dict.fromkeys(name for member in members for name in _names(member)))


def all_keys() -> list[str]:
    """Every dotted key of a case."""
    return list(dict.fromkeys(_walk("")))


def sections() -> dict[str, type]:
    """The keys of a case whose value is one class of settings, and not one of several kinds."""
    pairs = ((name, [inner for inner in _classes_of(Case, name) if name not in KINDS]) for name in Case.model_fields)
    return {name: classes[0] for name, classes in pairs if classes}


def _walk(path: str) -> Iterator[str]:
    for name in keys_below(path):
        key = f"{path}.{name}" if path else name
        yield key
        yield from _walk(key)


def _names(member: type) -> list[str]:
    if member is Case:
        return list(Case.model_fields)
    return [field.name for field in dataclasses.fields(member)] if dataclasses.is_dataclass(member) else []


def _classes_of(member: type, name: str) -> list[type]:
    """The classes of settings that a field may hold."""
    if member is Case:
        field = Case.model_fields.get(name)
        if field is None:
            return []
        rows = [row for mark in field.metadata if isinstance(mark, OfKind) for row in KINDS[mark.key]().values()]
        return rows or list(_in(field.annotation))
    hints = typing.get_type_hints(member, include_extras=True)
    return list(_in(hints[name])) if name in hints else []


def _in(annotation: Any) -> Iterator[type]:
    """The dataclasses in an annotation such as `Ceiling | None`, or the rows of a kind."""
    marks = [mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, OfKind | PartOf)]
    for mark in marks:
        yield from KINDS[mark.key]().values() if isinstance(mark, OfKind) else (mark.settings,)
    if marks:
        return
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _in(inner)
