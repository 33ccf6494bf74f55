"""Where a data set comes from, as settings, and the folder that data sets are looked for in."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from ..core import InputError
from .base import DataSet

DATA_FOLDER = "ENCIRCLE_DATA"
"""The environment variable that names the folder of data sets; without it they are looked for in `data` in the working directory."""


class DataSource(ABC):
    """A data set that a case can name: its settings in the constructor.

    Attributes:
        kind: its name in cases.
        about: what it is, in a sentence or two for a report's glossary; empty is not shown.
    """

    kind: str
    about: ClassVar[str] = ""

    @abstractmethod
    def load(self, seed: int) -> DataSet:
        """The data set, split by this seed.

        Raises:
            InputError: it is not there, is damaged, or does not fit the settings.
        """


def data_folder() -> Path:
    """The folder that data sets are looked for in."""
    return Path(os.environ.get(DATA_FOLDER) or "data")


def dataset_path(name: str, remedy: str) -> Path:
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
