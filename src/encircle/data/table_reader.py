"""Reading tables from files (CSV, Parquet, SAS): what their columns hold, and which of their values are missing."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, final

import polars as pl

from ..core import InputError

EMPTY = ("", ".", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
"""Texts that usually stand for a missing value; a lone point is SAS's."""

_DOUBTFUL = ("na", "n/a", "#n/a", "<na>", "nan", "null", "none", ".")
"""Spellings, in small letters, of a label or category that may as well be a missing value; somebody has to say which."""

NUMBER = r"^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|(?i:inf|infinity))$"
_WHOLE = r"^[+-]?[0-9]+$"
_BOOLEAN = r"^(?i:true|false)$"
_LEADING_ZERO = r"^[+-]?0[0-9]"
_THREE_DECIMALS = r"^[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}$"
_UP_TO_THREE_DIGITS = r"^[+-]?[0-9]{1,3}$"

_EXACT_FLOATS = 2**53
"""Beyond this number neighbouring whole numbers are the same float."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}

_CHUNK = 50_000
"""So many rows of a CSV file are Python texts at a time."""

_BYTE_ORDER_MARKS = {  # UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

FORMATS = (".csv", ".parquet", ".xpt", ".sas7bdat")


@final
@dataclass(frozen=True)
class Table:
    """A table as its file has it.

    Attributes:
        path: of the file.
        frame: its columns; those of a CSV file are texts without the blanks around them.
        separator: of a CSV file, whose columns are typed when they are asked for; None for files that say their types.
        missing_values: the texts that stand for a missing value; None is the rule of `Schema.missing_values`.
    """

    path: Path
    frame: pl.DataFrame
    separator: str | None = None
    missing_values: Sequence[str] | None = None

    def column(self, name: str, *, exact: bool) -> pl.Series:
        """A column with its type, and null where a value is missing.

        Args:
            name: of the column.
            exact: its values are names and must stay apart (a label, categories), rather than numbers to calculate with.

        Raises:
            InputError: it holds lists, numbers that can be read in two ways, or texts that may or may not stand for a missing value.
        """
        column = self.frame[name]
        if column.dtype.is_nested():
            raise InputError(
                f"the column {name!r} of {self.path} holds lists, not single values; list it under dropped."
            )
        if self.separator is not None:
            column = self._typed(column, exact)
        if isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
            return self._without_missing_texts(column, exact)
        if column.dtype.is_float():
            if exact and column.dtype != pl.Float64:  # 0.1 of 32 bits is 0.1, not 0.10000000149
                column = column.cast(pl.String).cast(pl.Float64)
            column = column.fill_nan(None)
            return _nulled(column, column.cast(pl.Float64).is_in(self._missing_numbers()))
        if self.missing_values is not None and not (column.dtype.is_(pl.Binary) or column.dtype.is_(pl.Object)):
            column = _nulled(column, column.cast(pl.String).is_in(self._missing(EMPTY)))
        return column

    def _missing(self, usual: Iterable[str]) -> list[str]:
        return [text.strip() for text in (usual if self.missing_values is None else self.missing_values)]

    def _missing_numbers(self) -> list[float]:
        return [float(text) for text in self._missing(()) if is_number(text)]

    def _typed(self, texts: pl.Series, exact: bool) -> pl.Series:
        """Whole numbers, floats or booleans where all texts of a CSV column are such, else the texts."""
        numbers = _nulled(texts, texts.is_in(self._missing(EMPTY)))
        distinct = numbers.drop_nulls().unique()
        if distinct.is_empty():
            return numbers
        if distinct.str.contains(_BOOLEAN).all():
            return numbers.str.to_lowercase() == "true"
        if self.separator != ",":
            pointed = distinct.str.replace(",", ".", literal=True)
            if pointed.str.contains(NUMBER).all():
                self._refuse_ambiguous_marks(distinct)
                numbers, distinct = numbers.str.replace(",", ".", literal=True), pointed
        if not distinct.str.contains(NUMBER).all() or (exact and distinct.str.contains(_LEADING_ZERO).any()):
            return texts
        if distinct.str.contains(_WHOLE).all():
            for kind in (pl.Int64(), pl.Decimal(38, 0)) if exact else (pl.Int64(),):
                integers = numbers.cast(kind, strict=False)
                if integers.null_count() == numbers.null_count():
                    return integers
        floats = numbers.cast(pl.Float64)
        return texts if exact and _merges(distinct, floats) else floats

    def _refuse_ambiguous_marks(self, distinct: pl.Series) -> None:
        """Refuse numbers with decimal commas and points, or with marks that may part thousands."""
        examples = {mark: distinct.filter(distinct.str.contains(mark, literal=True)) for mark in ",."}
        if not examples[","].is_empty() and not examples["."].is_empty():
            raise InputError(
                f"the column {distinct.name!r} of {self.path} holds both {examples[','].min()!r} and {examples['.'].min()!r}; "
                "write its numbers with one decimal mark."
            )
        marked = pl.concat(examples.values())
        small = distinct.filter(distinct.str.contains(_UP_TO_THREE_DIGITS))
        if not marked.is_empty() and not small.is_empty() and marked.str.contains(_THREE_DECIMALS).all():
            raise InputError(
                f"the column {distinct.name!r} of {self.path} holds {marked.min()!r} beside {small.min()!r}, which may be a thousand times as much; "
                "write thousands without a mark, or all numbers with decimals."
            )

    def _without_missing_texts(self, column: pl.Series, exact: bool) -> pl.Series:
        """A column of texts, null where they stand for a missing value."""
        texts = column.cast(pl.String).str.strip_chars()
        names = texts.filter(~texts.is_in(EMPTY)).unique()
        numbers = bool((names.str.contains(NUMBER) | names.str.contains(_BOOLEAN)).all())
        usual = EMPTY if numbers or not exact else ("",)
        doubtful = texts.filter(texts.str.to_lowercase().is_in(_DOUBTFUL) & ~texts.is_in(usual))
        if self.missing_values is None and not doubtful.is_empty():
            counts = sorted(Counter(doubtful.to_list()).items())
            occurrences = " and ".join(f"{text!r} in {count} row{'s' * (count > 1)}" for text, count in counts)
            remedy = json.dumps(["", *(text for text, _ in counts)])
            raise InputError(
                f"the column {column.name!r} of {self.path} holds {occurrences}, a value or a missing one; "
                f'set missing_values to {remedy} to count it missing, or to [""] to keep it as a value.'
            )
        return _nulled(column, texts.is_in(self._missing(usual)))


def read_table(path: Path, encoding: str | None = None, missing_values: Sequence[str] | None = None) -> Table:
    """The table in a file.

    Args:
        path: `.csv`, `.parquet`, `.xpt` or `.sas7bdat`.
        encoding: of the texts in a CSV or SAS file; None is what its first bytes say, or UTF-8.
        missing_values: the texts that stand for a missing value; None is the rule of `Schema.missing_values`.

    Raises:
        InputError: the file is missing, damaged, of another kind or of another encoding, or a SAS file cannot be read here.
    """
    kind, separator = path.suffix.lower(), None
    if kind not in FORMATS:
        raise InputError(f"{path} is no table this reads; give one of: {', '.join(FORMATS)}.")
    if not path.is_file():
        raise InputError(f"the table {path} does not exist; give an existing file.")
    try:
        if kind == ".csv":
            frame, separator = _csv(path, encoding)
        elif kind == ".parquet":
            frame = pl.read_parquet(path, glob=False)
        else:
            frame = _sas(path, "read_xport" if kind == ".xpt" else "read_sas7bdat", encoding)
    except InputError:
        raise
    except Exception as error:  # polars and pyreadstat have errors of their own for every kind of damage
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"the table {path} cannot be read ({reason}); give it whole.") from None
    if not frame.width or not frame.height:
        raise InputError(f"the table {path} is empty; give one with rows and columns.")
    return Table(path, frame, separator, missing_values)


def is_number(text: str) -> bool:
    """Whether a text is a number, such as 12, -1.5 or 3e-5."""
    return re.fullmatch(NUMBER, text) is not None


def shortest_text(value: Any) -> str:
    """A value as text: of a float, the shortest that reads back as the same number, and 1 rather than 1.0."""
    return repr(value + 0.0).removesuffix(".0") if isinstance(value, float) else str(value)  # + 0.0: no -0


def _nulled(column: pl.Series, missing: pl.Series) -> pl.Series:
    """The column with null where a value is missing."""
    rows = pl.DataFrame({"column": column, "missing": missing.fill_null(True)})
    return rows.select(pl.when(~pl.col("missing")).then(pl.col("column"))).to_series().rename(column.name)


def _merges(codes: pl.Series, floats: pl.Series) -> bool:
    """Whether floats may be the same where codes differ, as 250.1 and 250.10 of ICD-9 would; 1 and 1.0 are no such codes."""
    if (floats.filter(floats.is_finite()).abs() >= _EXACT_FLOATS).any():
        return True
    return floats.drop_nulls().n_unique() < codes.str.replace(r"\.0$", "").n_unique()


def _csv(path: Path, encoding: str | None) -> tuple[pl.DataFrame, str]:
    """The columns of a CSV file as texts, and what separates them.

    One parser reads names and values alike and compares every row with the header, so that nothing is filled in or cut off in silence.
    """
    codec = _codec(path, encoding)
    try:
        separator = _separator(path, codec)
        records = _records(path, codec, separator)
        names = [name.strip() for _, header in islice(records, 1) for name in header]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise InputError(f"two columns of {path} are called {twice[0]!r}; rename one.")
        chunks, rows = [], []
        for line, row in records:
            if len(row) != len(names):
                raise InputError(
                    f"line {line} of {path} has {len(row)} field{'s' * (len(row) != 1)} where the header has {len(names)}; "
                    f"mend it, with quotes around values that hold {_SEPARATORS[separator]}."
                )
            rows.append(row)
            if len(rows) == _CHUNK:
                chunks.append(_texts(names, rows))
                rows = []
    except UnicodeError:
        _refuse_encoding(path, f"encoding {encoding or 'UTF-8'}")
    return pl.concat([*chunks, _texts(names, rows)]), separator


def _texts(names: Sequence[str], rows: Sequence[Sequence[str]]) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    texts = [pl.Series(name, list(column), dtype=pl.String) for name, column in zip(names, columns, strict=True)]
    return pl.DataFrame(texts).with_columns(pl.all().str.strip_chars())


def _records(path: Path, codec: str, separator: str) -> Generator[tuple[int, list[str]], None, None]:
    """The rows of a CSV file, the header first, and the line that each begins in; blank lines are none."""
    with path.open(encoding=codec, newline="") as stream:
        reader = csv.reader(_lines(stream), delimiter=separator, skipinitialspace=True, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise InputError(f"line {line} of {path} cannot be read ({error}); mend its quotes.") from None
            if row is None:
                return
            if len(row) > 1 or "".join(row).strip():
                yield line, row


def _lines(stream: Iterable[str]) -> Iterator[str]:
    for line in stream:
        if "\0" in line:
            raise UnicodeError("UTF-16 or UTF-32 without a mark")
        yield line


def _separator(path: Path, codec: str) -> str:
    """What separates the columns: it stands in the header outside quotes, and parts the first row alike."""
    header = ""
    with path.open(encoding=codec, newline="") as stream:
        for line in _lines(stream):
            header += line if header or line.strip() else ""
            if header and header.count('"') % 2 == 0:
                break
    bare = re.sub('"[^"]*"', "", header)
    candidates = [separator for separator in _SEPARATORS if separator in bare]
    if len(candidates) < 2:
        return (candidates or [","])[0]
    fitting = [separator for separator in candidates if _parts_alike(path, codec, separator)]
    if len(fitting) == 1:
        return fitting[0]
    marks = " and ".join(_SEPARATORS[separator] for separator in candidates)
    raise InputError(
        f"the header of {path} has {marks}, any of which may separate its columns; put quotes around names that hold them."
    )


def _parts_alike(path: Path, codec: str, separator: str) -> bool:
    """Whether the header and the first row have as many fields."""
    records = _records(path, codec, separator)
    try:
        return len(next(records)[1]) == len(next(records)[1])
    except (InputError, StopIteration):
        return False
    finally:
        records.close()


def _codec(path: Path, encoding: str | None) -> str:
    """The encoding of a CSV file, which a byte order mark at its beginning says too."""
    with path.open("rb") as stream:
        start = stream.read(4)
    marked = next((codec for mark, codec in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
    if marked is None:
        return "utf-8" if encoding is None else _encoding_name(encoding)
    family = marked.removesuffix("-sig")
    if encoding is not None and not _encoding_name(encoding).startswith(family):
        raise InputError(
            f"{path} begins with the mark of {family.upper()}, not of the encoding {encoding}; leave encoding out."
        )
    return marked


def _encoding_name(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise InputError(f"there is no encoding {encoding!r}; set encoding to one such as WINDOWS-1252.") from None


def _refuse_encoding(path: Path, claimed: str) -> NoReturn:
    """Trying others in turn would read Eastern European letters as Western ones, and say nothing."""
    raise InputError(
        f"the texts of {path} are not in the {claimed}; set encoding to theirs, such as WINDOWS-1252 for Western European ones."
    ) from None


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
        _refuse_encoding(path, "encoding that the file says" if encoding is None else f"encoding {encoding}")
    frame = pl.DataFrame({name: pl.Series(name, list(values), strict=False) for name, values in columns.items()})
    # SAS pads texts with blanks, and has no other missing text.
    return frame.with_columns(
        [_nulled(column, column.str.strip_chars() == "") for column in frame if column.dtype == pl.String]
    )
