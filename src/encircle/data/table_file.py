"""Tables in files (CSV, Parquet, SAS), turned into scaled features by a short schema."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from ..core import InputError, unknown_name
from ..threat import Column
from .base import DataSet, Samples, TensorSamples, split_rows

Missing = Literal["refuse", "drop", "median"]

MOST_CLASSES = 100
"""A label with more values than this is taken for a number that somebody wanted to predict."""

EMPTY = ("", " ", ".", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
"""Texts that stand for a missing value in CSV files; a lone point is SAS's."""


@final
@dataclass(frozen=True)
class Schema:
    """What the columns of a table are.

    Attributes:
        label: the column to be predicted; rows without it are left out.
        classes: names of its values in ascending order; empty takes the values themselves.
        features: columns to predict from; empty takes all that are neither the label nor dropped.
        dropped: columns that are not features, such as identifiers.
        categorical: columns without an order, such as codes or text: each value seen in the training part becomes a column of 0 and 1, which no
            poison changes (another category is a distance of 1 away, far beyond any sensible epsilon).
        integer: columns of whole numbers, which poison changes by whole numbers.
        immutable: columns that poison does not change.
        missing: what becomes of missing values: `"refuse"` the table, `"drop"` the rows, or put the training part's `"median"` in their place
            (in a categorical column they are a category of their own).
    """

    label: str
    classes: Sequence[str] = ()
    features: Sequence[str] = ()
    dropped: Sequence[str] = ()
    categorical: Sequence[str] = field(default_factory=tuple)
    integer: Sequence[str] = field(default_factory=tuple)
    immutable: Sequence[str] = field(default_factory=tuple)
    missing: Missing = "refuse"


def table_file(
    path: Path,
    schema: Schema,
    *,
    held_out: float = 0.1,
    pretrain: float = 0.0,
    seed: int = 0,
    encoding: str | None = None,
) -> DataSet:
    """The table as a data set: columns scaled to [0, 1] by minimum and maximum over everything but the held-out parts, which are cut to that range.

    Args:
        path: `.csv`, `.parquet`, `.xpt` or `.sas7bdat`.
        schema: what its columns are.
        held_out: share of the rows for the validation and test parts, in equal halves (paper: 0.1).
        pretrain: share of the training part set aside to learn starting weights from; it is never poisoned.
        seed: of the split.
        encoding: of the texts in a SAS file; None is what the file says.

    Raises:
        InputError: the file is missing or damaged, or does not fit the schema; it names the column.
    """
    frame = read_table(path, encoding)
    names = _features(frame, schema, path)
    if (nested := next((name for name in [schema.label, *names] if frame[name].dtype.is_nested()), None)) is not None:
        raise InputError(f"the column {nested!r} of {path} holds lists, not single values; list it under dropped.")
    frame = frame.filter(pl.Series([value is not None for value in _known(frame[schema.label])], dtype=pl.Boolean))
    if not frame.height:
        raise InputError(f"the label {schema.label!r} of {path} is empty; name another column, or give its values.")
    columns = {name: _values(frame, name, name in schema.categorical, path) for name in names}
    if schema.missing == "drop":
        whole = np.logical_and.reduce([~_absent(values) for values in columns.values()])
        if not whole.any():
            worst = max(columns, key=lambda name: int(_absent(columns[name]).sum()))
            raise InputError(
                f"no row of {path} has a value in every column; set missing to median, or drop columns such as {worst!r}."
            )
        frame, columns = frame.filter(pl.Series(whole)), {name: values[whole] for name, values in columns.items()}
    labels, classes = _labels(frame, schema, path)
    parts = split_rows(len(labels), seed, pretrain, held_out)
    seen = torch.cat([parts[0], parts[3]]).numpy()
    if len(parts[0]) < 2 or len(parts[2]) < 2:
        raise InputError(
            f"{path} has {len(labels)} usable rows, too few to split; fill in missing values or give more."
        )
    made = _Features(schema, seen, path)
    for name, values in columns.items():
        made.add(name, values)
    inputs = torch.from_numpy(np.stack(list(made.columns.values()), axis=1))

    def part(rows: torch.Tensor) -> Samples:
        return TensorSamples(inputs[rows], labels[rows])

    return DataSet(
        name=path.stem,
        kind="table",
        train=part(parts[0]),
        validation=part(parts[1]),
        test=part(parts[2]),
        pretrain=part(parts[3]) if len(parts[3]) else None,
        classes=classes,
        features=list(made.columns),
        columns=made.legal,
    )


@final
class _Features:
    """Columns scaled and encoded one by one.

    Args:
        schema: what they are.
        seen: rows that scales, medians and categories may be learnt from.
        path: for errors.
    """

    def __init__(self, schema: Schema, seen: NDArray[np.int64], path: Path) -> None:
        self.schema, self.seen, self.path = schema, seen, path
        self.columns: dict[str, NDArray[np.float32]] = {}
        self.legal: dict[str, Column] = {}

    def add(self, name: str, values: NDArray[Any]) -> None:
        absent = _absent(values)
        if absent.any() and self.schema.missing == "refuse":
            raise InputError(
                f"the column {name!r} of {self.path} lacks {int(absent.sum())} of {len(absent)} values; set missing to drop or median, or drop it."
            )
        if name in self.schema.categorical:
            self._one_hot(name, values, absent)
        else:
            self._scaled(name, values, absent)

    def _one_hot(self, name: str, values: NDArray[Any], absent: NDArray[np.bool_]) -> None:
        kinds = sorted(
            {values[row] for row in self.seen if not absent[row]}, key=lambda value: (str(type(value)), value)
        )
        if len(kinds) + bool(absent.any()) < 2:
            raise InputError(f"the column {name!r} of {self.path} has one value throughout; list it under dropped.")
        for kind in kinds:
            self._keep(f"{name}={_text(kind)}", (values == kind) & ~absent, Column("immutable"))
        if absent.any():
            self._keep(f"{name}=missing", absent, Column("immutable"))

    def _scaled(self, name: str, values: NDArray[np.float64], absent: NDArray[np.bool_]) -> None:
        known = values[self.seen][~absent[self.seen]]
        if not len(known) or known.min() == known.max():
            raise InputError(f"the column {name!r} of {self.path} has one value throughout; list it under dropped.")
        low, high = float(known.min()), float(known.max())
        middle, integer = float(np.median(known)), name in self.schema.integer
        if integer and (wrong := values[~absent][values[~absent] % 1 != 0]).size:
            raise InputError(
                f"the column {name!r} of {self.path} holds {wrong[0]:g}, which is no whole number; do not list it under integer."
            )
        filled = np.where(absent, np.floor(middle) if integer else middle, values)
        scaled = np.clip((filled - low) / (high - low), 0, 1)
        column = Column("integer", step=1 / (high - low)) if integer else None
        self._keep(name, scaled, Column("immutable") if name in self.schema.immutable else column)

    def _keep(self, name: str, values: NDArray[Any], legal: Column | None) -> None:
        if name in self.columns:
            raise InputError(f"two columns of {self.path} are called {name!r}; rename one.")
        self.columns[name] = values.astype(np.float32)
        if legal is not None:
            self.legal[name] = legal


def read_table(path: Path, encoding: str | None = None) -> pl.DataFrame:
    """The table as it stands.

    Args:
        path: `.csv`, `.parquet`, `.xpt` or `.sas7bdat`.
        encoding: of the texts in a SAS file.

    Raises:
        InputError: the file is missing, damaged, of another kind or of another encoding, or a SAS file cannot be read here.
    """
    readers: Mapping[str, Callable[[], pl.DataFrame]] = {
        ".csv": lambda: pl.read_csv(path, null_values=list(EMPTY), infer_schema_length=None),
        ".parquet": lambda: pl.read_parquet(path),
        ".xpt": lambda: _sas(path, "read_xport", encoding),
        ".sas7bdat": lambda: _sas(path, "read_sas7bdat", encoding),
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} is no table this reads; give one of: {', '.join(readers)}.")
    if not path.is_file():
        raise InputError(f"the table {path} does not exist; give an existing file.")
    try:
        frame = readers[path.suffix.lower()]()
    except InputError:
        raise
    except Exception as error:  # polars and pyreadstat have errors of their own for every kind of damage
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"the table {path} cannot be read ({reason}); give it whole.") from None
    if not frame.width or not frame.height:
        raise InputError(f"the table {path} is empty; give one with rows and columns.")
    return frame


def _sas(path: Path, reader: str, encoding: str | None) -> pl.DataFrame:
    try:
        import pyreadstat  # noqa: PLC0415 - in an extra
    except ImportError:
        raise InputError(f"{path} is a SAS file; install the extra for them: pip install 'encircle[sas]'.") from None
    read = getattr(pyreadstat, reader)
    try:
        columns = read(str(path), output_format="dict", encoding=encoding)[0]
    except (UnicodeDecodeError, pyreadstat.ReadstatError, pyreadstat.PyreadstatError) as error:
        if not isinstance(error, UnicodeDecodeError) and not re.search("convert|character set", str(error)):
            raise
        # Trying others in turn would read Eastern European letters as Western ones, and say nothing.
        claimed = "encoding that the file says" if encoding is None else f"encoding {encoding}"
        raise InputError(
            f"the texts of {path} are not in the {claimed}; set encoding to theirs, such as WINDOWS-1252 for Western European ones."
        ) from None
    return pl.DataFrame({name: pl.Series(name, list(values), strict=False) for name, values in columns.items()})


def _features(frame: pl.DataFrame, schema: Schema, path: Path) -> list[str]:
    """The names of the features, all of them checked."""
    for role in ("features", "dropped", "categorical", "integer", "immutable"):
        for name in getattr(schema, role):
            if name not in frame.columns:
                raise unknown_name(f"column under {role} of {path.name}", name, frame.columns)
    if schema.label not in frame.columns:
        raise unknown_name(f"label of {path.name}", schema.label, frame.columns)
    names = list(schema.features) or [
        name for name in frame.columns if name != schema.label and name not in schema.dropped
    ]
    if schema.label in names or set(names) & set(schema.dropped):
        twice = schema.label if schema.label in names else min(set(names) & set(schema.dropped))
        raise InputError(
            f"the column {twice!r} of {path} cannot be a feature and the label, or dropped, at once; list it once."
        )
    if not names:
        raise InputError(f"no column of {path} is left to predict from; drop fewer.")
    return names


def _values(frame: pl.DataFrame, name: str, categorical: bool, path: Path) -> NDArray[Any]:
    """A column as float64 with NaN where it is missing; as objects with None, for a categorical one."""
    column = frame[name]
    numbers = column.dtype == pl.Boolean or column.dtype.is_numeric() or column.dtype == pl.Null
    values: NDArray[Any]
    if numbers and not categorical:
        values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)
        values = np.where(np.isfinite(values), values, np.nan)
    else:
        values = np.array([*_known(column), None], dtype=object)[:-1]
    absent = _absent(values)
    if absent.all():
        raise InputError(f"the column {name!r} of {path} is empty; list it under dropped.")
    if numbers or categorical:
        return values
    texts = values[~absent].tolist()
    other = next((text for text in texts if not _is_number(text)), None)
    if other is None:  # perhaps codes, such as postal ones: what they are is for people to say
        raise InputError(
            f"the column {name!r} of {path} holds numbers as texts; list it under categorical or dropped, or write them as numbers."
        )
    raise InputError(
        f"the column {name!r} of {path} holds {str(other)[:40]!r}, no number; list it under categorical or dropped, or mend the file."
    )


def _is_number(text: Any) -> bool:
    try:
        return math.isfinite(float(text))
    except (TypeError, ValueError):
        return False


def _known(column: pl.Series) -> list[Any]:
    """A column's values, None for those that say nothing: SAS pads texts with blanks and knows no other missing text, Parquet has NaN beside null."""
    return [
        None if value is None or value != value or (isinstance(value, str) and not value.strip()) else value  # noqa: PLR0124 - NaN
        for value in column.to_list()
    ]


def _absent(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    missing: NDArray[np.bool_] = np.isnan(values)
    return missing


def _labels(frame: pl.DataFrame, schema: Schema, path: Path) -> tuple[torch.Tensor, list[str]]:
    column = frame[schema.label]
    kinds = sorted(set(column.to_list()), key=lambda value: (str(type(value)), value))
    if not 2 <= len(kinds) <= MOST_CLASSES:
        raise InputError(
            f"the label {schema.label!r} of {path} has {len(kinds)} different values; classes are 2 to {MOST_CLASSES}."
        )
    if schema.classes and len(schema.classes) != len(kinds):
        raise InputError(
            f"the label {schema.label!r} of {path} has {len(kinds)} values but {len(schema.classes)} class names; name each once."
        )
    places = {kind: place for place, kind in enumerate(kinds)}
    labels = torch.tensor([places[value] for value in column.to_list()], dtype=torch.int64)
    return labels, list(schema.classes) or [f"{schema.label} {_text(kind)}" for kind in kinds]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
