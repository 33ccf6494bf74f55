"""What is committed about strength: results by kind and name, and the commands that they came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from encircle.core import InputError
from encircle.strength.gates import Facts

COMMANDS = {"reach": "reach", "budget": "budget", "ablation": "ablate"}
"""Which command results of a kind are of."""

Drawn = TypeVar("Drawn")


def results_of(results: Path, kind: str) -> dict[str, Facts]:
    """The results of one command by name: `reach`, `budget` or `ablation`; none where there is no file.

    Raises:
        InputError: the file is damaged.
    """
    path = results / f"{kind}.json"
    if not path.is_file():
        return {}
    with damage_of(path, remedy(kind)):
        return dict(json.loads(path.read_text("utf-8")).items())


def drawn(results: Path, kind: str, draw: Callable[[str, Facts, str], Drawn]) -> list[Drawn]:
    """What is drawn of each result of a kind.

    Args:
        results: the folder of the committed results.
        kind: of the results.
        draw: is given a result's name, the result, and a paragraph with the command that it came from (empty where that is not known).

    Raises:
        InputError: a file or a result is damaged.
    """
    commands, parts = commands_of(results).get(kind, {}), []
    for name, result in results_of(results, kind).items():
        command = commands.get(name)
        with damage_of(f"{name} in {results / kind}.json", remedy(kind)):
            parts.append(draw(name, result, f"\n\n`{command}`" if command else ""))
    return parts


def commands_of(results: Path) -> dict[str, dict[str, str]]:
    """The commands that results came from, by kind and name.

    Raises:
        InputError: `commands.yaml` is damaged.
    """
    with _commands(results) as content:
        return {
            kind: {name: f"encircle {COMMANDS[kind]} {arguments}" for name, arguments in commands.items()}
            for kind, commands in content.items()
            if kind != "selection"
        }


def selections_of(results: Path) -> dict[str, int]:
    """Which of its selections a reach reports, by its name, where it is not the first.

    Raises:
        InputError: `commands.yaml` is damaged.
    """
    with _commands(results) as content:
        return {name: int(number) for name, number in content.get("selection", {}).items()}


@contextmanager
def _commands(results: Path) -> Iterator[Mapping[str, Any]]:
    """The content of `commands.yaml`; what goes wrong with it is reported as damage of it."""
    path = results / "commands.yaml"
    with damage_of(path, "give it the arguments of commands by kind and name."):
        yield yaml.safe_load(path.read_text("utf-8")) if path.is_file() else {}


def remedy(kind: str) -> str:
    """What to do about a damaged result of a kind."""
    return f"run `encircle {COMMANDS[kind]}` again and keep what it wrote anew."


@contextmanager
def damage_of(path: object, advice: str) -> Iterator[None]:
    """Say what is damaged and what to do, whatever goes wrong with it."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        raise InputError(f"{path} is damaged; {advice}") from None
