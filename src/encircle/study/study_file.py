"""Study files: read, completed with their cases and files, and written out again."""

from __future__ import annotations

import copy
import hashlib
import reprlib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..audit import Case, embedded_cases
from ..audit.case_file import FILES, assign_text, beside, read_yaml, refuse_boolean_numbers, rename_files
from ..audit.yaml_text import dump, read_text
from ..core import InputError, unknown_name
from ..storage import write_bytes

CASE = "case"
"""The key of complete cases, in a study and in its grid."""


@final
class StudyFile(BaseModel):
    """The content of a study file (docs/study.md).

    Args:
        title: its name in reports.
        case: the base of every run: an embedded case, a case file beside the study, or a case written out.
        settings: under the name `set`, keys of a case, dotted, for every run.
        grid: the values to try for keys of a case, as a list or by name; or, under a name of its own, several keys by name.
        exclude: combinations to leave out, by value or name; each may name some of the grid's keys.
        limit: minutes after which a task counts as hung and is ended.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    title: str = "Study"
    case: str | dict[str, Any] = "digits-cam"
    settings: dict[str, Any] = Field(default_factory=dict, alias="set")
    grid: dict[str, list[Any] | dict[str, Any]] = Field(default_factory=dict)
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    limit: float = Field(default=120.0, gt=0)

    def as_text(self) -> str:
        """The file as YAML."""
        return dump(self.model_dump(by_alias=True, mode="json"))

    def rename_files(self, rename: Callable[[str], str]) -> None:
        """Rename every file that the study names, in any of its keys."""
        if isinstance(self.case, dict):
            rename_files(self.case, rename)
        _rename_files(self.settings, rename)
        for name, values in self.grid.items():
            if isinstance(values, list):
                for index, value in enumerate(values):
                    holder = {name: value}
                    _rename_files(holder, rename)
                    values[index] = holder[name]
                continue
            for label, value in values.items():
                if name == CASE and isinstance(value, dict):
                    rename_files(value, rename)
                elif name in Case.model_fields or "." in name:
                    holder = {name: value}
                    _rename_files(holder, rename)
                    values[label] = holder[name]
                elif isinstance(value, dict):  # several keys under a name of their own
                    _rename_files(value, rename)


def embedded_studies() -> dict[str, str]:
    """The studies that come with the package, as YAML by name."""
    folder = resources.files("encircle") / "studies"
    return {entry.name.removesuffix(".yaml"): entry.read_text("utf-8") for entry in sorted(folder.iterdir(), key=str)}


def parse_study_file(text: str, origin: str) -> StudyFile:
    """A study file, unchanged.

    Args:
        text: the YAML.
        origin: its name in errors.

    Raises:
        InputError: not a study, or an unknown key (with the nearest right spelling).
    """
    content = read_yaml(text, origin)
    try:
        file = StudyFile.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "extra_forbidden":
            known = [field.alias or name for name, field in StudyFile.model_fields.items()]
            raise unknown_name("key of a study", str(first["loc"][0]), known) from None
        where = ".".join(str(part) for part in first["loc"][:2])
        raise InputError(f"{origin}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}; correct it.") from None
    refuse_boolean_numbers(content, file.model_dump(by_alias=True), origin)
    return file


def read_study_file(
    text: str, origin: str, *, overrides: Sequence[str] = (), folder: Path | None = None, outside: bool = False
) -> StudyFile:
    """A study file with its cases written out and the paths of its files.

    Args:
        text: the YAML.
        origin: its name in errors.
        overrides: `key=value` for every run. They win over the file's `set`, and their files may lie anywhere.
        folder: the text's folder, in which its files are looked for. None: the working directory.
        outside: whether they may lie outside of that folder.

    Raises:
        InputError: as `parse_study_file`; a missing case, or a file elsewhere.
    """
    file = parse_study_file(text, origin)
    rename = beside(folder, origin, outside=outside) if folder is not None else str
    file.rename_files(rename)
    file.case = _written_out(file.case, rename, origin)
    if CASE in file.grid:
        file.grid[CASE] = _by_name(file.grid[CASE], rename, origin)
    for override in overrides:
        key, _, _ = override.partition("=")
        nested: dict[str, Any] = {}
        assign_text(nested, override)
        for part in key.split("."):
            nested = nested[part]
        file.settings[key] = nested
    return file


def named_study_file(name: str, overrides: Sequence[str], *, outside: bool = False) -> StudyFile:
    """The study of a file, or an embedded one.

    Args:
        name: the file's path, or the embedded study's name.
        overrides: as for `read_study_file`.
        outside: as for `read_study_file`.

    Raises:
        InputError: there is no such study, or as for `read_study_file`.
    """
    path, embedded = Path(name), embedded_studies()
    if path.is_file():
        return read_study_file(read_text(path), name, overrides=overrides, folder=path.parent, outside=outside)
    if name in embedded:
        return read_study_file(embedded[name], name, overrides=overrides)
    raise InputError(
        f"there is no study file {name}; write one with `encircle study init`, or name one of: {', '.join(embedded)}."
    )


def gather_files(file: StudyFile, root: Path) -> StudyFile:
    """A copy of the study with its files in `root/files`, named after their content: the folder is complete.

    Raises:
        InputError: a file cannot be read.
        StorageError: it cannot be copied.
    """

    def take(name: str) -> str:
        try:
            content = Path(name).read_bytes()
        except OSError:
            raise InputError(f"{name} cannot be read; give an existing file.") from None
        copy_name = Path("files") / f"{hashlib.sha256(content).hexdigest()[:16]}{Path(name).suffix}"
        if not (root / copy_name).is_file():
            write_bytes(root / copy_name, content)
        return copy_name.as_posix()

    settled = file.model_copy(deep=True)
    settled.rename_files(take)
    return settled


def _rename_files(changes: dict[str, Any], rename: Callable[[str], str]) -> None:
    """Rename files among values by dotted key."""
    for key, value in changes.items():
        if key in FILES and isinstance(value, str):
            changes[key] = rename(value)
        elif isinstance(value, dict):
            rename_files({key: value}, rename)


def _written_out(case: str | dict[str, Any], rename: Callable[[str], str], origin: str) -> dict[str, Any]:
    """The keys and values of a case."""
    if isinstance(case, dict):
        return copy.deepcopy(case)  # the paths of its files were resolved with the study's own
    if case in (embedded := embedded_cases()):
        return read_yaml(embedded[case], case)
    path = Path(rename(case))
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{origin}: there is no case file {path}; name one that exists, or one of: {', '.join(embedded)}."
        ) from None
    inner = Path(case).parent
    rename_files(content, lambda name: rename(str(inner / name)))
    return content


def _by_name(cases: list[Any] | dict[str, Any], rename: Callable[[str], str], origin: str) -> dict[str, Any]:
    """Complete cases by name."""
    wrong = next(
        (case for case in (cases.values() if isinstance(cases, dict) else ()) if not isinstance(case, str | dict)), None
    )
    if wrong is not None:
        raise InputError(
            f"{origin}: grid.case holds {reprlib.repr(wrong)}, which is neither a name nor a case written out; correct it."
        )
    if isinstance(cases, dict):
        return {str(label): _written_out(case, rename, origin) for label, case in cases.items()}
    if not all(isinstance(case, str) for case in cases):
        raise InputError(f"{origin}: grid.case must list names of cases, or give each a name; correct it.")
    names = [Path(case).stem for case in cases]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{origin}: grid.case holds {twice!r} twice; drop one, or give each case a name of its own.")
    return {name: _written_out(case, rename, origin) for name, case in zip(names, cases, strict=True)}
