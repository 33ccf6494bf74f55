"""How often vague words name things: `python tools/words.py [FOLDER ...]` prints one row a folder and a total.

A name counts once for every place that binds it: a variable, a parameter, a field, a function or a class, of whose parts
between underscores one is a vague word. A name says what the thing is, not how it came about.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

VAGUE = frozenset(
    (
        "found",
        "told",
        "mine",
        "theirs",
        "seen",
        "whole",
        "place",
        "one",
        "each",
        "given",
        "left",
        "held",
        "some",
        "kept",
    )
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def bound_names(tree: ast.Module) -> Iterator[str]:
    """Every name that a module binds, once for every place that binds it."""
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def is_vague(name: str) -> bool:
    """Whether a name is a vague word, or has one among its parts."""
    return not VAGUE.isdisjoint(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r"_\1", name).lower()))


def count(path: Path) -> tuple[Counter[str], int]:
    """The vague names of a module, and how many functions it has."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return Counter(filter(is_vague, bound_names(tree))), sum(isinstance(node, FUNCTIONS) for node in ast.walk(tree))


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("src")])
    parser.add_argument("--names", action="store_true", help="list the names")
    arguments = parser.parse_args()
    rows: dict[str, tuple[Counter[str], int]] = {}
    for folder in arguments.folders:
        for path in sorted(folder.rglob("*.py")):
            names, functions = count(path)
            before, functions_before = rows.get(str(path.parent), (Counter(), 0))
            rows[str(path.parent)] = before + names, functions_before + functions
            if arguments.names and names:
                print(f"{path}: {', '.join(f'{name} {times}' for name, times in sorted(names.items()))}")  # noqa: T201
    total = sum((names for names, _ in rows.values()), Counter[str]()), sum(functions for _, functions in rows.values())
    for name, (names, functions) in [*rows.items(), ("all", total)]:
        rate = 1000 * names.total() / max(functions, 1)
        print(f"{name:40} {names.total():5} vague names, {functions:5} functions, {rate:6.0f} per 1,000")  # noqa: T201


if __name__ == "__main__":
    main()
