"""Case files: read, overridden, kept inside their folder, with errors that name the key."""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..core import InputError
from .case import Case
from .case_keys import keys_below
from .kinds import KINDS
from .settings import AuditSettings, OwnSettings
from .yaml_text import load, read_text

FILES = ("checkpoint", "goal.path", "goal.mask")
"""The keys of a case that name files."""

_LARGEST_FILE = 1_000_000


def embedded_cases() -> dict[str, str]:
    """The cases that come with the package, as YAML by name."""
    folder = resources.files("encircle") / "cases"
    return {entry.name.removesuffix(".yaml"): entry.read_text("utf-8") for entry in sorted(folder.iterdir(), key=str)}


def read_case(
    text: str, overrides: Sequence[str], origin: str, *, folder: Path | None = None, outside: bool = False
) -> Case:
    """A case from YAML and `key=value` overrides with dotted keys (`budget.fraction=0.05`).

    Args:
        text: the YAML.
        overrides: these win. Their files may lie anywhere, because the user names them.
        origin: the text's name in errors.
        folder: the text's folder, in which its files are looked for. None: the working directory.
        outside: whether they may lie outside of that folder.

    Raises:
        InputError: not YAML, an unknown key (with the nearest right spelling), a value out of range, a file elsewhere.
    """
    content = read_yaml(text, origin)
    if folder is not None:
        rename_files(content, beside(folder, origin, outside=outside))
    for override in overrides:
        assign_text(content, override)
    return case_of(content, origin)


def named_case(name: str, overrides: Sequence[str], *, outside: bool = False) -> Case:
    """The case of a file, or an embedded one.

    Args:
        name: the file's path, or the embedded case's name.
        overrides: as for `read_case`.
        outside: as for `read_case`.

    Raises:
        InputError: there is no such case, or as for `read_case`.
    """
    path, embedded = Path(name), embedded_cases()
    if path.is_file():
        return read_case(read_text(path), overrides, str(path), folder=path.parent, outside=outside)
    if name in embedded:
        return read_case(embedded[name], overrides, name)
    raise InputError(
        f"there is no case file {name}; write one with `encircle init`, or name one of: {', '.join(embedded)}."
    )


def read_yaml(text: str, origin: str) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        InputError: the text is not a mapping in YAML (`yaml_text.load`).
    """
    if len(text) > _LARGEST_FILE:
        raise InputError(f"{origin} has {len(text)} letters, more than any case or study needs; give another file.")
    content = load(text, origin)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise InputError(f"{origin} must hold keys and values; `encircle init` writes an example.")
    if (strange := _strange_key(content, set())) is not None:
        raise InputError(f"{origin} has the key {strange}, which is no text; put it in quotes.")
    return content


def _strange_key(content: Any, visited: set[int]) -> str | None:
    """The first key that is not text, at any depth; aliases are visited once."""
    if id(content) in visited or not isinstance(content, dict | list):
        return None
    visited.add(id(content))
    if isinstance(content, dict):
        for key in content:
            if not isinstance(key, str):
                return reprlib.repr(key)
    inner = content.values() if isinstance(content, dict) else content
    return next((key for item in inner if (key := _strange_key(item, visited)) is not None), None)


def case_of(content: dict[str, Any], origin: str) -> Case:
    """A case from keys and values.

    Raises:
        InputError: an unknown key, a value out of range, or true or false for a number.
    """
    try:
        case = Case.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{origin}: {_explained(error)}") from None
    refuse_boolean_numbers(content, case.model_dump(), origin)
    if case.supposed is not None and case.attacker is not None:  # keys of a recipe, not yet validated there
        recipe = {"recipe": case.attacker.recipe}
        refuse_boolean_numbers({"attacker": recipe}, {"attacker": case.supposed.model_dump()}, origin)
    return case


def own_settings(values: Mapping[str, Any]) -> OwnSettings:
    """The settings of an audit whose network and data are given in Python.

    Args:
        values: settings by name (`AuditSettings`).

    Raises:
        InputError: an unknown name, a value out of range or of the wrong type, or true or false for a number.
    """
    try:
        return OwnSettings.model_validate(dict(values), strict=True)
    except ValidationError as error:
        raise InputError(_explained(error, OwnSettings)) from None


def refuse_boolean_numbers(content: Any, validated: Any, origin: str) -> None:
    """Refuse true and false where a number is meant; validation takes them for 1 and 0.

    Args:
        content: keys and values as written.
        validated: the same after validation.
        origin: their name in errors.

    Raises:
        InputError: there is a boolean for a number; names its key.
    """
    if (key := _boolean_number(content, validated)) is not None:
        *_, value = key
        raise InputError(f"{origin}: {'.'.join(key[:-1])} needs a number, not {value}; correct it.")


def _boolean_number(content: Any, validated: Any) -> tuple[str, ...] | None:
    """The path to a boolean that became a number, and the boolean in YAML."""
    if isinstance(content, bool):
        became_number = isinstance(validated, int | float) and not isinstance(validated, bool)
        return (str(content).lower(),) if became_number else None
    pairs: Iterable[tuple[str, Any, Any]] = ()
    if isinstance(content, Mapping) and isinstance(validated, Mapping):
        values = {str(key): value for key, value in validated.items()}
        pairs = [(str(key), value, values[str(key)]) for key, value in content.items() if str(key) in values]
    elif isinstance(content, list | tuple) and isinstance(validated, list | tuple):
        both = enumerate(zip(content, validated, strict=False))
        pairs = [(str(index), value, after) for index, (value, after) in both]
    paths = ((name, *path) for name, value, after in pairs if (path := _boolean_number(value, after)) is not None)
    return next(paths, None)


def rename_files(content: dict[str, Any], rename: Callable[[str], str]) -> None:
    """Rename every file that the keys and values of a case name."""
    for key in FILES:
        first, _, rest = key.partition(".")
        owner = content.get(first) if rest else content
        name = rest or first
        if isinstance(owner, dict) and isinstance(owner.get(name), str):
            owner[name] = rename(owner[name])


def beside(folder: Path, origin: str, *, outside: bool) -> Callable[[str], str]:
    """Finds a file's files in its own folder, or elsewhere if allowed.

    Args:
        folder: the folder to search.
        origin: the naming file's name in errors.
        outside: whether they may lie elsewhere.

    Returns:
        A function from name to path; it raises `InputError` for a path elsewhere.
    """

    def path_of(name: str) -> str:
        path = folder / name
        if not outside and not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{origin} names {name}, which lies outside of its own folder; move it there, or allow it with --allow-outside."
            )
        return str(path)

    return path_of


def assign_text(content: dict[str, Any], override: str, option: str = "--set") -> None:
    """Apply `key=value`, the value being YAML.

    Args:
        content: changed here.
        override: the text.
        option: the override's name in errors.

    Raises:
        InputError: it is not of that form.
    """
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(f"{option} {override!r} is not of the form key=value.")
    assign(content, key, load(value, f"{option} {key!r}"))


def assign(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; a new `kind` drops the settings of the former kind.

    Args:
        content: keys and values of a case; changed here.
        key: such as `budget.fraction`.
        value: its new value.

    Raises:
        InputError: the text before a dot names a value, not keys.
    """
    *path, last = key.split(".")
    for name in path:
        content = content.setdefault(name, {})
        if not isinstance(content, dict):
            raise InputError(f"--set {key!r}: {name!r} holds a value, not keys.")
    if last == "kind" and content.get("kind", value) != value:
        content.clear()
    content[last] = value


_TYPES = ("int", "tuple[int, ...]")
"""The suffix that validation adds to the name of a key of several types."""


def _explained(error: ValidationError, settings: type[AuditSettings] = Case) -> str:
    """The first problem of a validation in one sentence."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if not _is_kind(part) and part not in _TYPES)
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        name = str(first["loc"][-1])
        near = get_close_matches(name, _keys_at(first["loc"][:-1], settings), n=1)
        return f"unknown key {where!r}" + (
            f"; did you mean {near[0]!r}?" if near else "; see `encircle init` for the keys."
        )
    if first["type"] == "union_tag_invalid":
        tag, known = str(first["ctx"]["tag"]), re.findall(r"'([^']+)'", first["ctx"]["expected_tags"])
        near = get_close_matches(tag, known, n=1)
        return f"unknown {where} kind {tag!r}; " + (
            f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(known)}."
        )
    if first["type"] in {"union_tag_not_found", "model_attributes_type"}:  # keys without a kind; a value without keys
        known = list(KINDS[where.rpartition(".")[2]]())
        near = get_close_matches(str(first["input"]), known, n=1)
        return f"{where} needs its kind, as in {where}.kind={(near or known)[0]}."
    if first["type"] == "dataclass_type":
        return (
            f"{where} needs keys ({', '.join(_keys_at(first['loc'], settings))}), not {reprlib.repr(first['input'])}."
        )
    message = first["msg"].removeprefix("Value error, ").removesuffix(".")
    shown = (
        ""
        if isinstance(first["input"], dict) or first["type"] == "value_error"
        else f" (given: {reprlib.repr(first['input'])})"
    )
    return f"{where + ': ' if where else ''}{message[0].lower() + message[1:]}{shown}; correct it."


def _keys_at(location: tuple[int | str, ...], settings: type[AuditSettings]) -> list[str]:
    """The keys allowed where a validation went wrong, of the kind named there, if any."""
    row = next(
        (rows[str(location[-1])] for kinds in KINDS.values() if location and location[-1] in (rows := kinds())), None
    )
    if row is not None:
        return [field.name for field in dataclasses.fields(row)]
    if not location:
        return list(settings.model_fields)
    return keys_below(".".join(str(part) for part in location if not _is_kind(part)))


def _is_kind(part: int | str) -> bool:
    """Whether a part of a location is not a key but the kind of a value."""
    return any(part in kinds() for kinds in KINDS.values())
