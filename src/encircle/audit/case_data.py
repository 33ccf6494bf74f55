"""The data sets that a case may name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, final

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED, InputError
from ..data import DataSet, Missing, Schema, breast_cancer, digits, stanford_dogs, table_file

DATA_FOLDER = "ENCIRCLE_DATA"
"""The environment variable that names the folder of data sets; without it they are looked for in `data` in the working directory."""


def data_folder() -> Path:
    """The folder that data sets are looked for in."""
    return Path(os.environ.get(DATA_FOLDER) or "data")


def found(name: str, remedy: str) -> Path:
    """A data set's file or folder.

    Args:
        name: its place in the data folder, from which it cannot lead out: a case may come from somebody else.
        remedy: what to get, from whom.

    Raises:
        InputError: it is not there, or lies elsewhere.
    """
    path = data_folder() / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(
            f"data is named by its place in the data folder, not as {name}; set {DATA_FOLDER} to the folder that holds it."
        )
    if not path.exists():
        raise InputError(
            f"there is no {name} in the data folder {data_folder()}; {remedy}, or set {DATA_FOLDER} to the folder that holds it."
        )
    return path


@final
@dataclass(frozen=True, config=CONFIGURED)
class Digits:
    """scikit-learn's handwritten digits, enlarged to `side` pixels; see `encircle.data.digits`.

    Args:
        side: pixels of the enlarged side, a multiple of 4 from 16.
        pretrain: share of the training part set aside to learn starting weights from, from 0 to below 1; it is never poisoned.
    """

    side: int = Field(default=32, ge=16, multiple_of=4)
    pretrain: float = Field(default=0.5, ge=0, lt=1)
    kind: Literal["digits"] = Field(default="digits", kw_only=True)

    def load(self, seed: int) -> DataSet:
        """The data set, split by this seed."""
        return digits(side=self.side, pretrain=self.pretrain, seed=seed)


@final
@dataclass(frozen=True, config=CONFIGURED)
class BreastCancer:
    """scikit-learn's breast-cancer table; see `encircle.data.breast_cancer`.

    Args:
        pretrain: share of the training part set aside to learn starting weights from, from 0 to below 1; it is never poisoned.
    """

    pretrain: float = Field(default=0.3, ge=0, lt=1)
    kind: Literal["breast-cancer"] = Field(default="breast-cancer", kw_only=True)

    def load(self, seed: int) -> DataSet:
        """The data set, split by this seed."""
        return breast_cancer(pretrain=self.pretrain, seed=seed)


@final
@dataclass(frozen=True, config=CONFIGURED)
class StanfordDogs:
    """Stanford Dogs in its official layout, read from disk as it is needed; see `encircle.data.stanford_dogs` and docs/data.md.

    Args:
        folder: its place in the data folder (`$ENCIRCLE_DATA`).
        breeds: how many, from the first on, or which, by their names; None is all 120.
        side: pixels of the cropped square's side (paper: 224).
        split: the official one, or the paper's random 90/5/5.
        pretrain: share of the training part set aside to learn starting weights from, from 0 to below 1; it is never poisoned.
    """

    folder: str = "stanford-dogs"
    breeds: int | tuple[str, ...] | None = None
    side: int = Field(default=112, ge=16, le=1024)
    split: Literal["official", "random"] = "official"
    pretrain: float = Field(default=0.0, ge=0, lt=1)
    kind: Literal["stanford-dogs"] = Field(default="stanford-dogs", kw_only=True)

    def load(self, seed: int) -> DataSet:
        """The data set, split by this seed where the split is not the official one."""
        remedy = (
            "get Stanford Dogs from its authors (vision.stanford.edu/aditya86/ImageNetDogs) and unpack Images/, lists/ and Annotation/ "
            "into a folder of that name there"
        )
        folder = found(self.folder, remedy)
        return stanford_dogs(
            folder, breeds=self.breeds, side=self.side, split=self.split, pretrain=self.pretrain, seed=seed
        )


@final
@dataclass(frozen=True, config=CONFIGURED)
class TableFile:
    """A table in a file (CSV, Parquet, SAS) and a short schema of its columns; see `encircle.data.table_file` and docs/data.md.

    Args:
        path: its place in the data folder (`$ENCIRCLE_DATA`): `.csv`, `.parquet`, `.xpt` or `.sas7bdat` (for SAS, install `encircle[sas]`).
        label: the column to be predicted.
        classes: the label's own values in the order that classes are numbered in, or other names for them in ascending order; empty takes the
            values themselves.
        features: columns to predict from; empty takes all that are neither the label nor dropped.
        dropped: columns that are not features, such as identifiers.
        categorical: columns without an order: each of their values becomes a column of 0 and 1 that poison does not change.
        integer: columns of whole numbers, which poison changes by whole numbers.
        immutable: columns that poison does not change.
        missing: what becomes of missing values: refuse the table, drop the rows, or put the training part's median in their place.
        missing_values: the texts that stand for a missing value, such as `["", "NA"]`; None takes the usual ones in columns of numbers, and only
            blank ones among texts (see docs/data.md).
        held_out: share of the rows for the validation and test parts, in equal halves (paper: 0.1).
        pretrain: share of the training part set aside to learn starting weights from, from 0 to below 1; it is never poisoned.
        encoding: of the texts in a CSV or SAS file; None is what its first bytes say, or UTF-8.
        source: what to get and from whom, for people who do not have the file: the error says it.
    """

    path: str
    label: str
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    integer: tuple[str, ...] = ()
    immutable: tuple[str, ...] = ()
    missing: Missing = "refuse"
    missing_values: tuple[str, ...] | None = None
    held_out: float = Field(default=0.1, gt=0, le=0.5)
    pretrain: float = Field(default=0.0, ge=0, lt=1)
    encoding: str | None = None
    source: str = "put it there"
    kind: Literal["table"] = Field(default="table", kw_only=True)

    def load(self, seed: int) -> DataSet:
        """The data set, split by this seed."""
        schema = Schema(
            label=self.label,
            classes=self.classes,
            features=self.features,
            dropped=self.dropped,
            categorical=self.categorical,
            integer=self.integer,
            immutable=self.immutable,
            missing=self.missing,
            missing_values=self.missing_values,
        )
        path = found(self.path, self.source)
        return table_file(
            path, schema, held_out=self.held_out, pretrain=self.pretrain, seed=seed, encoding=self.encoding
        )


AnyData = Annotated[Digits | BreastCancer | StanfordDogs | TableFile, Field(discriminator="kind")]
