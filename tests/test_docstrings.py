"""Docstrings name what a caller has to know: arguments and fields where there are several, and the errors that a function raises itself."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import encircle

SOURCE = Path(encircle.__file__).resolve().parent
NOT_CHECKED = {"report", "jobs", "cli"}
"""What is called by the commands alone."""

MANY = 3
"""From so many parameters on a docstring has a line for each."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
CONSTRUCTORS = {"__init__", "__post_init__"}
"""What they take and raise is said by the docstring of their class."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A public function, with the docstrings that may speak of it: its own, its class's for a constructor, and those it inherits."""

    where: str
    node: Function
    is_method: bool
    docstrings: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> list[str]:
        """Its parameters, without self or cls."""
        arguments = self.node.args
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
        static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in self.node.decorator_list)
        names = names[1:] if self.is_method and not static else names
        stars = [star.arg for star in (arguments.vararg, arguments.kwarg) if star is not None]
        return [*names, *(argument.arg for argument in arguments.kwonlyargs), *stars]


def section(docstring: str, title: str) -> set[str]:
    """The names that a section of a docstring has a line for."""
    match = re.search(rf"^( *){title}:\n((?:\1 +.*\n|\s*\n)*)", f"{docstring}\n", re.M)
    if match is None:
        return set()
    return set(re.findall(rf"^{match[1]}    \*{{0,2}}(\w+)(?: \([^)]*\))?:", match[2], re.M))


class Package:
    """Every module of the package, parsed."""

    def __init__(self) -> None:
        self.modules = {
            path: ast.parse(path.read_text("utf-8"))
            for path in sorted(SOURCE.rglob("*.py"))
            if path.relative_to(SOURCE).parts[0] not in NOT_CHECKED
        }
        nodes = [node for tree in self.modules.values() for node in ast.walk(tree)]
        self.classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
        self.makes = {  # functions that make an error, by what they say that they return
            node.name: ast.unparse(node.returns)
            for node in nodes
            if isinstance(node, FUNCTIONS) and node.returns is not None
        }

    def ancestors(self, name: str) -> Iterator[str]:
        """A class's name and those of its bases, of the package or Python's own."""
        yield name
        if name in self.classes:
            for base in self.classes[name].bases:
                yield from self.ancestors(ast.unparse(base).partition("[")[0].rpartition(".")[2])
        elif isinstance(own := getattr(builtins, name, None), type):
            yield from (base.__name__ for base in own.__mro__[1:])

    def functions(self) -> Iterator[Documented]:
        """Every public function and method, and the constructors of public classes."""
        for path, tree in self.modules.items():
            yield from self._below(tree, path.relative_to(SOURCE).with_suffix("").as_posix(), None)

    def _below(self, tree: ast.AST, where: str, owner: ast.ClassDef | None) -> Iterator[Documented]:
        for node in ast.iter_child_nodes(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from self._below(node, f"{where}.{node.name}", node)
            elif isinstance(node, FUNCTIONS):
                constructs = owner is not None and node.name in CONSTRUCTORS
                if constructs or node.name == "__call__" or not node.name.startswith("_"):
                    docstrings = [ast.get_docstring(node) or ""]
                    if owner is not None:
                        docstrings += [ast.get_docstring(owner) or ""] if constructs else self._inherited(owner, node)
                    yield Documented(f"{where}.{node.name}", node, owner is not None, docstrings)

    def _inherited(self, owner: ast.ClassDef, method: Function) -> list[str]:
        """The docstrings of the methods that a method overrides."""
        bases = [self.classes[name] for name in list(self.ancestors(owner.name))[1:] if name in self.classes]
        return [
            ast.get_docstring(node) or ""
            for base in bases
            for node in base.body
            if isinstance(node, FUNCTIONS) and node.name == method.name
        ]

    def raised(self, node: ast.AST) -> Iterator[str]:
        """The classes of the errors that a function raises itself, without what is raised anew."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
                continue
            if isinstance(child, ast.Raise) and child.exc is not None:
                made = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
                name = ast.unparse(made).rpartition(".")[2]
                if isinstance(child.exc, ast.Call) and name not in self.classes and not hasattr(builtins, name):
                    name = self.makes.get(name, name)
                if isinstance(child.exc, ast.Call) or name[:1].isupper():
                    yield name
            yield from self.raised(child)


PACKAGE = Package()
ALL = list(PACKAGE.functions())
SHAPES = [
    node for node in ast.walk(PACKAGE.modules[SOURCE / "run_folder" / "shapes.py"]) if isinstance(node, ast.ClassDef)
]


def without_arguments(function: Documented) -> list[str]:
    """The parameters that no docstring has a line for, where there are many."""
    parameters = function.parameters
    named = {name for text in function.docstrings for title in ("Args", "Attributes") for name in section(text, title)}
    return [name for name in parameters if name not in named] if len(parameters) >= MANY else []


def without_errors(function: Documented) -> list[str]:
    """The errors that a function raises and no docstring names."""
    named = {name for text in function.docstrings for name in section(text, "Raises")}
    raised = dict.fromkeys(PACKAGE.raised(function.node))
    return [name for name in raised if named.isdisjoint(PACKAGE.ancestors(name))]


def test_arguments_are_documented() -> None:
    lacks = {function.where: without_arguments(function) for function in ALL}
    assert {where: names for where, names in lacks.items() if names} == {}


def fields_without_line(node: ast.ClassDef) -> list[str]:
    """The public fields of a class that its docstring has no line for, where there are many; `kind` is the same for every plug-in."""
    fields = [
        member.target.id
        for member in node.body
        if isinstance(member, ast.AnnAssign)
        and isinstance(member.target, ast.Name)
        and not member.target.id.startswith("_")
        and not ast.unparse(member.annotation).startswith("ClassVar")
    ]
    named = {name for title in ("Args", "Attributes") for name in section(ast.get_docstring(node) or "", title)}
    return [name for name in fields if name not in named | {"kind"}] if len(fields) >= MANY else []


def is_shape(node: ast.ClassDef) -> bool:
    """Whether a class is the shape of a JSON file, whose entries docs/run-folder.md describes."""
    names = {base.id for base in node.bases if isinstance(base, ast.Name)}
    return "TypedDict" in names or any(is_shape(base) for base in SHAPES if base.name in names)


def test_fields_are_documented() -> None:
    lacks = {
        f"{path.relative_to(SOURCE)}: {node.name}": fields_without_line(node)
        for path, tree in PACKAGE.modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not is_shape(node)
    }
    assert {where: names for where, names in lacks.items() if names} == {}


def test_errors_are_documented() -> None:
    lacks = {function.where: without_errors(function) for function in ALL}
    assert {where: names for where, names in lacks.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            '"""Sum.\n\nArgs:\n    one: first.\n    two: second,\n        going on: here.\n\nRaises:\n    InputError: no.\n"""',
            {"one", "two"},
        ),
        ('"""Sum.\n\nArgs:\n    *rest (int): all.\n"""', {"rest"}),
        ('"""Sum."""', set()),
    ],
)
def test_sections_are_read(text: str, named: set[str]) -> None:
    assert section(ast.literal_eval(text), "Args") == named


def test_functions_that_lack_something_are_seen() -> None:
    code = '''
def f(a, b, *, c):
    """Lacks all."""
    if a:
        raise InputError("a")
    try:
        b()
    except ValueError as error:
        raise unknown_name("b", b, ()) from error
    def inner():
        raise TypeError
    raise
'''
    node = ast.parse(code).body[0]
    assert isinstance(node, ast.FunctionDef)
    function = Documented("f", node, False, [ast.get_docstring(node) or ""])
    assert without_arguments(function) == ["a", "b", "c"]
    assert without_errors(function) == ["InputError"]
