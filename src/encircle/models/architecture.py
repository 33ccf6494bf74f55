"""A network that a case can name, as settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from ..core import InputError


class Architecture(ABC):
    """How a network is made for a data set: its settings in the constructor, the data's form in the call.

    Attributes:
        kind: its name in cases.
        about: what it is, in a sentence or two for a report's glossary; empty is not shown.
    """

    kind: str
    about: ClassVar[str] = ""

    @abstractmethod
    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network with fresh weights.

        Args:
            shape: of one input: `(c, h, w)` for images, `(columns,)` for rows of a table.
            classes: number of classes.

        Raises:
            InputError: the network is for data of another form.
        """


def check_form(kind: str, shape: tuple[int, ...], *, images: bool, other: str) -> None:
    """Refuse data of the wrong form for a network.

    Args:
        kind: the network's name in cases.
        shape: of one input.
        images: whether the network is for images; else for tables.
        other: the network to take instead.

    Raises:
        InputError: the data have the other form.
    """
    if images and len(shape) != 3:
        raise InputError(f"the model {kind} is for images and the data are rows of a table {shape}; use {other}.")
    if not images and len(shape) != 1:
        raise InputError(f"the model {kind} is for tables and the data are images {shape}; use {other}.")
