"""Files of a saved run or study, read back and checked: an error is one sentence with the remedy."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypeVar, Union, cast, final, get_args, get_origin, get_type_hints, is_typeddict

import polars as pl
import polars.selectors as cs
import yaml
from polars.exceptions import PolarsError
from safetensors import SafetensorError

from ..core import InputError
from .shapes import Columns

_T = TypeVar("_T")

_REMEDY = "run `encircle audit` on its case again to resume the run and write it anew."
_REMEDIES = {"study.json": "run `encircle study resume` on its folder to write it anew."}


@final
class DamagedError(InputError):
    """A saved file is damaged and cannot be drawn.

    Args:
        path: the file.
        trouble: the fault, as the end of a sentence that begins with the file's name.
        remedy: the remedy; by default the command that writes such a file anew.
    """

    def __init__(self, path: Path, trouble: str, remedy: str | None = None) -> None:
        super().__init__(f"{path} {trouble}; {remedy or _REMEDIES.get(path.name, _REMEDY)}")
        self.path, self.trouble = path, trouble


@final
class NewerError(InputError):
    """A saved run of a newer version of encircle: nothing is wrong with it, but this version cannot read it.

    Args:
        path: the file that says so.
        version: of the run folder.
    """

    def __init__(self, path: Path, version: int) -> None:
        super().__init__(
            f"{path} is of a newer version of encircle (run folders of version {version}); install that to read the run."
        )


def read_file(path: Path, reader: Callable[[Path], _T]) -> _T:
    """The value that a reader returns for a file.

    Raises:
        DamagedError: the file is missing, or the reader fails.
    """
    try:
        if path.is_file():
            return reader(path)
    except (ValueError, RecursionError, yaml.YAMLError, PolarsError, SafetensorError):
        raise DamagedError(path, "is damaged") from None
    except OSError as error:
        raise DamagedError(path, f"cannot be read ({error.strerror or error})") from None
    raise DamagedError(path, "is missing")


def read_checked(path: Path, shape: type[_T]) -> _T:
    """A JSON file of this shape, a `TypedDict`; entries outside the shape are not checked.

    Raises:
        DamagedError: it is missing, damaged, or of another shape.
    """
    value = read_file(path, lambda file: json.loads(file.read_text(encoding="utf-8")))
    check_shape(path, value, shape)
    return cast(_T, value)


def read_table(path: Path, columns: Columns | tuple[str, ...]) -> pl.DataFrame:
    """A Parquet file with these columns; NaN becomes null.

    Raises:
        DamagedError: it is missing, damaged, or lacks a column.
    """
    table = read_file(path, lambda file: pl.read_parquet(file.read_bytes()))
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        raise DamagedError(path, f"lacks the column {lacking[0]!r}")
    return table.with_columns(cs.float().fill_nan(None))


def check_shape(path: Path, value: Any, shape: Any, where: str = "") -> None:
    """Check that a value has a shape.

    Args:
        path: the value's file.
        value: of JSON.
        shape: a type, a union, a list, a dictionary or a `TypedDict`.
        where: the value's position in the file.

    Raises:
        DamagedError: it has another shape; names the file and the position.
    """
    if is_typeddict(shape):
        check_shape(path, value, dict, where)
        # Not by `__required_keys__`: it does not resolve annotations given as texts.
        for key, inner in get_type_hints(shape, include_extras=True).items():
            name, may_lack = f"{where}.{key}".lstrip("."), get_origin(inner) is NotRequired
            if key in value:
                check_shape(path, value[key], get_args(inner)[0] if may_lack else inner, name)
            elif not may_lack:
                raise DamagedError(path, f"lacks the entry {name!r}")
    elif get_origin(shape) is list:
        check_shape(path, value, list, where)
        for index, item in enumerate(value):
            check_shape(path, item, get_args(shape)[0], f"{where}[{index}]")
    elif get_origin(shape) is dict:
        check_shape(path, value, dict, where)
        for key, item in value.items():
            check_shape(path, item, get_args(shape)[1], f"{where}.{key}")
    elif get_origin(shape) in {Union, types.UnionType}:
        if value is not None or type(None) not in get_args(shape):
            (inner,) = [kind for kind in get_args(shape) if kind is not type(None)]
            check_shape(path, value, inner, where)
    elif shape is not Any and not isinstance(value, (int, float) if shape is float else shape):
        raise DamagedError(path, f"has an entry {where!r} of the wrong kind" if where else "is damaged")
