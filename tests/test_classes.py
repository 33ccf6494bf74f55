"""Every class is abstract, a base of another one, or final: who reads it knows whether something derives from it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import encircle

SOURCE = Path(encircle.__file__).resolve().parent
ABSTRACT = {"ABC", "Protocol", "TypedDict"}
"""Bases of what is not made itself; a shape of a JSON file cannot be final."""


@dataclass(frozen=True)
class Class:
    """A class as its statement names it."""

    where: str
    name: str
    bases: frozenset[str]
    marks: frozenset[str]


def last_name(node: ast.expr) -> str:
    """The last name of `a.b[c](d)`, which is `b`."""
    if isinstance(node, ast.Call):
        node = node.func
    return ast.unparse(node).partition("[")[0].rpartition(".")[2]


def classes_in(text: str, where: str = "") -> Iterator[Class]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            bases, marks = (frozenset(map(last_name, nodes)) for nodes in (node.bases, node.decorator_list))
            yield Class(f"{where}:{node.lineno}", node.name, bases, marks)


def open_classes(classes: list[Class]) -> list[str]:
    """Classes that are neither abstract nor final, and from which nothing derives."""
    bases_of = {row.name: row.bases for row in classes}
    derived_from = {base for row in classes for base in row.bases}

    def is_shape(bases: frozenset[str]) -> bool:
        return "TypedDict" in bases or any(is_shape(bases_of.get(base, frozenset())) for base in bases)

    return [
        f"{row.where} {row.name}"
        for row in classes
        if "final" not in row.marks
        and row.name not in derived_from
        and not ABSTRACT & row.bases
        and not is_shape(row.bases)
    ]


def test_every_class_is_abstract_or_final() -> None:
    paths = sorted(SOURCE.rglob("*.py"))
    classes = [row for path in paths for row in classes_in(path.read_text("utf-8"), str(path.relative_to(SOURCE)))]
    assert len(classes) > 100
    assert open_classes(classes) == []


def test_open_classes_are_seen() -> None:
    text = """
class Base(ABC): ...
class Open(Base): ...
@typing.final
@dataclass(frozen=True)
class Closed(Base): ...
class Shape(TypedDict): ...
class LongerShape(Shape): ...
class Failure(Exception): ...
@final
class FailureOfNetwork(Failure): ...
"""
    assert open_classes(list(classes_in(text))) == [":3 Open"]
