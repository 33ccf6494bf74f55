"""The examples in docstrings do what they say, and every pure public function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import encircle

SOURCE = Path(encircle.__file__).resolve().parent
PURE = ("encircle.scoring.", "encircle.goals.", "encircle.explain.", "encircle.threat")
"""Modules whose public functions depend on their arguments alone."""


def module_name(path: Path) -> str:
    return ".".join(("encircle", *path.relative_to(SOURCE).with_suffix("").parts))


NAMES = [module_name(path) for path in sorted(SOURCE.rglob("*.py")) if path.name not in ("__init__.py", "__main__.py")]
WITH_EXAMPLES = [
    name for name in NAMES if ">>> " in (SOURCE / Path(*name.split(".")[1:])).with_suffix(".py").read_text("utf-8")
]


def public_functions(module: ModuleType) -> Iterator[tuple[str, object, list[type]]]:
    """The public functions, methods and properties that a module defines, with the bases that a method may inherit its example from."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, value, []
        elif inspect.isclass(value):
            for method, content in vars(value).items():
                if not method.startswith("_") and (isinstance(content, property) or inspect.isfunction(content)):
                    yield f"{name}.{method}", content, list(value.__mro__[1:])


def has_example(name: str, function: object, bases: list[type]) -> bool:
    """Whether a function's docstring, or that of the method it overrides, shows it at work."""
    method = name.rpartition(".")[2]
    return any(
        ">>> " in (getattr(documented, "__doc__", None) or "")
        for documented in (function, *(getattr(base, method, None) for base in bases))
    )


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_do_what_they_say(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0, "the differences are printed above"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(PURE)])
def test_pure_functions_have_an_example(name: str) -> None:
    lacking = [
        function
        for function, *rest in public_functions(importlib.import_module(name))
        if not has_example(function, *rest)
    ]
    assert lacking == []
