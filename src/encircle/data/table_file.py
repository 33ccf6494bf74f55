"""Tables in files, turned into scaled features by a short schema."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn, final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED, InputError, unknown_name
from ..threat import Column
from .base import DataSet, Samples, TensorSamples, split_rows
from .source import DataSource, dataset_path
from .table_reader import Table, is_number, read_table, shortest_text

Missing = Literal["refuse", "drop", "median"]

MOST_CLASSES = 100
"""A label with more values than this is taken for a number that somebody wanted to predict."""


@dataclass(frozen=True, config=CONFIGURED)
class Schema:
    """What the columns of a table are.

    Args:
        label: the column to be predicted; rows without it are left out.
        classes: the label's own values in the order that classes are numbered in, or other names for them in ascending order (an ordered
            enum's own); empty takes the values themselves.
        features: columns to predict from; empty takes all that are neither the label nor dropped.
        dropped: columns that are not features, such as identifiers.
        categorical: columns without an order, such as codes or text: each value seen in the training part becomes a column of 0 and 1, which no
            poison changes (another category is a distance of 1 away, far beyond any sensible epsilon).
        integer: columns of whole numbers, which poison changes by whole numbers.
        immutable: columns that poison does not change.
        missing: what becomes of missing values: `"refuse"` the table, `"drop"` the rows, or put the training part's `"median"` in their place
            (in a categorical column they are a category of their own).
        missing_values: the texts that stand for a missing value, in all columns. None takes the usual ones (`table_reader.EMPTY`) where all
            other values are numbers or booleans. Among the texts of a label or categorical column only a blank one is missing, and the usual
            ones are refused. Null and NaN are missing whatever this says.
    """

    label: str
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    integer: tuple[str, ...] = ()
    immutable: tuple[str, ...] = ()
    missing: Missing = "refuse"
    missing_values: tuple[str, ...] | None = None


@final
@dataclass(frozen=True, config=CONFIGURED)
class TableFile(Schema, DataSource):
    """A table in a file (CSV, Parquet, SAS) and a short schema of its columns; see docs/data.md.

    Args:
        path: its place in the data folder (`$ENCIRCLE_DATA`): `.csv`, `.parquet`, `.xpt` or `.sas7bdat` (for SAS, install `encircle[sas]`).
        held_out: share of the rows for the validation and test parts, in equal halves (paper: 0.1).
        pretrain: share of the training part set aside to learn starting weights from, from 0 to below 1; it is never poisoned.
        encoding: of the texts in a CSV or SAS file; None is what its first bytes say, or UTF-8.
        source: what to get and from whom, for people who do not have the file: the error says it.
    """

    path: str = Field(kw_only=True)
    held_out: float = Field(default=0.1, gt=0, le=0.5, kw_only=True)
    pretrain: float = Field(default=0.0, ge=0, lt=1, kw_only=True)
    encoding: str | None = Field(default=None, kw_only=True)
    source: str = Field(default="put it there", kw_only=True)
    kind: Literal["table"] = Field(default="table", kw_only=True)
    about = "Rows of a table in a file. Numbers are scaled to [0, 1], and each category is a column of its own."

    def load(self, seed: int) -> DataSet:
        """The data set, split by this seed."""
        path = dataset_path(self.path, self.source)
        return table_file(path, self, held_out=self.held_out, pretrain=self.pretrain, seed=seed, encoding=self.encoding)


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
        encoding: of the texts in a CSV or SAS file; None is what its first bytes say, or UTF-8.

    Raises:
        InputError: the file is missing or damaged, or does not fit the schema; it names the column.
    """
    table = read_table(path, encoding, schema.missing_values)
    names = _feature_names(table, schema)
    label = table.column(schema.label, exact=True)
    labelled = label.is_not_null()
    if not labelled.any():
        raise InputError(f"the label {schema.label!r} of {path} is empty; name another column, or give its values.")
    notes = _omission_note(int((~labelled).sum()), len(label), f"no {schema.label}")
    table, label = replace(table, frame=table.frame.filter(labelled)), label.filter(labelled)
    columns = {name: _values(table, name, name in schema.categorical) for name in names}
    if schema.missing == "drop":
        worst = max(columns, key=lambda name: int(_absent(columns[name]).sum()))
        complete = np.logical_and.reduce([~_absent(values) for values in columns.values()])
        if not complete.any():
            raise InputError(
                f"no row of {path} has a value in every column; set missing to median, or drop columns such as {worst!r}."
            )
        notes += _omission_note(int((~complete).sum()), len(labelled), f"no value in some feature, most often {worst},")
        label, columns = label.filter(pl.Series(complete)), {name: columns[name][complete] for name in names}
    labels, classes = _labels(label, schema, path)
    train, validation, test, pretraining = split_rows(len(labels), seed, pretrain, held_out)
    if len(train) < 2 or len(test) < 2:
        raise InputError(
            f"{path} has {len(labels)} usable rows, too few to split; fill in missing values or give more."
        )
    features = _Features(schema, torch.cat([train, pretraining]).numpy(), path)
    for name, values in columns.items():
        features.add(name, values)
    inputs = torch.from_numpy(np.stack(list(features.columns.values()), axis=1))

    def part(rows: torch.Tensor) -> Samples:
        return TensorSamples(inputs[rows], labels[rows])

    return DataSet(
        name=path.stem,
        kind="table",
        train=part(train),
        validation=part(validation),
        test=part(test),
        pretrain=part(pretraining) if len(pretraining) else None,
        classes=classes,
        features=list(features.columns),
        columns=features.legal,
        notes=(*notes, *features.notes()),
    )


def _omission_note(count: int, total: int, lack: str) -> list[str]:
    """A note on rows that are left out, if there are any."""
    verbs = ("has", "is") if count == 1 else ("have", "are")
    return [f"{count} of {total} rows {verbs[0]} {lack} and {verbs[1]} left out."] if count else []


@final
class _Features:
    """Columns scaled and encoded one by one.

    Args:
        schema: what they are.
        known_rows: rows that scales, medians and categories may be learnt from.
        path: for errors.
    """

    def __init__(self, schema: Schema, known_rows: NDArray[np.int64], path: Path) -> None:
        self.schema, self.known_rows, self.path = schema, known_rows, path
        self.columns: dict[str, NDArray[np.float32]] = {}
        self.legal: dict[str, Column] = {}
        self.filled: dict[str, int] = {}

    def add(self, name: str, values: NDArray[Any]) -> None:
        absent = _absent(values)
        if absent.any() and self.schema.missing == "refuse":
            raise InputError(
                f"the column {name!r} of {self.path} lacks {int(absent.sum())} of {len(absent)} values; set missing to drop or median, or drop it."
            )
        if name in self.schema.categorical:
            self._add_categories(name, values, absent)
        else:
            self._add_numbers(name, values, absent)

    def notes(self) -> list[str]:
        """How many values were filled in."""
        if not self.filled:
            return []
        count, worst = sum(self.filled.values()), max(self.filled, key=lambda name: self.filled[name])
        subject = "1 missing value is" if count == 1 else f"{count} missing values are"
        return [f"{subject} filled with the training part's median, most often in {worst}."]

    def _add_categories(self, name: str, values: NDArray[Any], absent: NDArray[np.bool_]) -> None:
        categories = sorted(
            {values[row] for row in self.known_rows if not absent[row]}, key=lambda value: (str(type(value)), value)
        )
        if len(categories) + bool(absent.any()) < 2:
            raise InputError(f"the column {name!r} of {self.path} has one value throughout; list it under dropped.")
        for category in categories:
            self._keep(f"{name}={shortest_text(category)}", (values == category) & ~absent, Column("immutable"))
        if absent.any():
            self._keep(f"{name}=missing", absent, Column("immutable"))

    def _add_numbers(self, name: str, values: NDArray[np.float64], absent: NDArray[np.bool_]) -> None:
        known = values[self.known_rows][~absent[self.known_rows]]
        if not len(known) or known.min() == known.max():
            raise InputError(f"the column {name!r} of {self.path} has one value throughout; list it under dropped.")
        low, high = float(known.min()), float(known.max())
        middle, integer = float(np.median(known)), name in self.schema.integer
        if integer and (wrong := values[~absent][values[~absent] % 1 != 0]).size:
            raise InputError(
                f"the column {name!r} of {self.path} holds {wrong[0]:g}, which is no whole number; do not list it under integer."
            )
        if absent.any():
            self.filled[name] = int(absent.sum())
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


def _feature_names(table: Table, schema: Schema) -> list[str]:
    """The names of the features, and those of the other columns checked too."""
    path, known = table.path, table.frame.columns
    for role in ("features", "dropped", "categorical", "integer", "immutable"):
        for name in getattr(schema, role):
            if name not in known:
                raise unknown_name(f"column under {role} of {path.name}", name, known)
    if schema.label not in known:
        raise unknown_name(f"label of {path.name}", schema.label, known)
    names = list(schema.features) or [name for name in known if name != schema.label and name not in schema.dropped]
    if schema.label in names or set(names) & set(schema.dropped):
        twice = schema.label if schema.label in names else min(set(names) & set(schema.dropped))
        raise InputError(
            f"the column {twice!r} of {path} cannot be a feature and the label, or dropped, at once; list it once."
        )
    if not names:
        raise InputError(f"no column of {path} is left to predict from; drop fewer.")
    return names


def _values(table: Table, name: str, categorical: bool) -> NDArray[Any]:
    """A column as float64 with NaN where it is missing; as objects with None, for a categorical one."""
    column = table.column(name, exact=categorical)
    values: NDArray[Any]
    if categorical:
        values = np.array([*column.to_list(), None], dtype=object)[:-1]  # the None keeps numpy from guessing a type
    elif column.dtype == pl.Boolean or column.dtype.is_numeric() or column.null_count() == len(column):
        values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        values = np.where(np.isfinite(values), values, np.nan)
    else:
        _refuse_texts(column.drop_nulls(), table.path)
    if _absent(values).all():
        raise InputError(f"the column {name!r} of {table.path} is empty; list it under dropped.")
    return values


def _refuse_texts(column: pl.Series, path: Path) -> NoReturn:
    """Refuse a column that holds texts though it is not categorical."""
    texts = [str(value) for value in column.to_list()]
    other = next((text for text in texts if not is_number(text.strip())), None)
    if other is None:  # perhaps codes, such as postal ones: what they are is for people to say
        raise InputError(
            f"the column {column.name!r} of {path} holds numbers as texts; list it under categorical or dropped, or write them as numbers."
        )
    raise InputError(
        f"the column {column.name!r} of {path} holds {other[:40]!r}, no number; list it under categorical or dropped, or mend the file, "
        "or name all texts that count as missing under missing_values."
    )


def _absent(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    missing: NDArray[np.bool_] = np.isnan(values)
    return missing


def _labels(column: pl.Series, schema: Schema, path: Path) -> tuple[torch.Tensor, list[str]]:
    """The class numbers of a label, and the names of its classes."""
    present = set(column.to_list())
    if isinstance(column.dtype, pl.Enum):
        values = [value for value in column.dtype.categories if value in present]
    else:
        values = sorted(present, key=lambda value: (str(type(value)), value))
    if not 2 <= len(values) <= MOST_CLASSES:
        raise InputError(
            f"the label {schema.label!r} of {path} has {len(values)} different values; classes are 2 to {MOST_CLASSES}."
        )
    texts = [shortest_text(value) for value in values]
    if schema.classes:
        numbers, classes = _numbers_by_name(texts, schema, path), list(schema.classes)
    else:
        numbers, classes = list(range(len(values))), [f"{schema.label} {text}" for text in texts]
    number_of = dict(zip(values, numbers, strict=True))
    return torch.tensor([number_of[value] for value in column.to_list()], dtype=torch.int64), classes


def _numbers_by_name(texts: list[str], schema: Schema, path: Path) -> list[int]:
    """The class number of each of the label's values, which are in ascending order.

    Class names that are the values' own texts belong to those values; others go by the order.
    """
    names, label = list(schema.classes), f"the label {schema.label!r} of {path}"
    if len(names) != len(texts):
        raise InputError(f"{label} has {len(texts)} values but {len(names)} class names; name each once.")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two classes of {path} are called {twice!r}; give each value a name of its own.")
    if set(names) == {f"{schema.label} {text}" for text in texts}:  # as classes are called where nobody names them
        names = [name.removeprefix(f"{schema.label} ") for name in names]
    spellings = (str, str.casefold, _number_text)
    for spell in spellings:
        position_of = {spell(name): position for position, name in enumerate(names)}
        if len(position_of) == len(names) and set(position_of) == {spell(text) for text in texts}:
            return [position_of[spell(text)] for text in texts]
    for position, name in enumerate(names):
        others = [*texts[:position], *texts[position + 1 :]]
        if any(spell(name) in map(spell, others) for spell in spellings):
            raise InputError(
                f"the class name {name!r} would go to the value {texts[position]!r} of {label} but is another value's text; "
                "give the texts of all values in the order you want, or names that are none of them."
            )
    return list(range(len(texts)))


def _number_text(text: str) -> str:
    """A number as it is written shortest; true and false are 1 and 0."""
    text = {"true": "1", "false": "0"}.get(text.casefold(), text)
    return shortest_text(float(text)) if is_number(text) else text
