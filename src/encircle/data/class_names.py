"""Names of classes and columns: text in the order of the numbers that labels have, whatever container they come in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..core import InputError

_ORDER = "give a list in the order of the label numbers"


def class_names(names: object) -> tuple[str, ...]:
    """Class names as text, the name of class 0 first.

    Args:
        names: a sequence, array or index of texts or numbers, or a mapping between names and numbers such as `class_to_idx`.

    Raises:
        InputError: there is none, they have no order, a name is empty or there twice, or a mapping's numbers are not 0, 1, 2 and so on.
    """
    texts = _texts("class", names)
    if not texts:
        raise InputError("there are no class names; name at least two classes.")
    for text, times in Counter(text.strip() for text in texts).items():
        if times > 1:
            raise InputError(f"the class name {text!r} is there twice; give each class a name of its own.")
    return texts


def column_names(names: object) -> tuple[str, ...]:
    """Column names as text, in the order of the columns; there may be none.

    Args:
        names: as for `class_names`.

    Raises:
        InputError: they have no order, a name is empty, or a mapping's numbers are not 0, 1, 2 and so on.
    """
    return _texts("column", names)


def check_class_order(names: Sequence[str], dataset_classes: Sequence[str] | None) -> None:
    """Refuse names that contradict those of the data set itself: rows of one class would be reported under the name of another.

    Args:
        names: class names as `class_names` gives them.
        dataset_classes: the data set's own, as `DatasetSamples.classes` has them; None if it has none.

    Raises:
        InputError: a name is the data set's own name of another class. Case and blanks at the ends do not matter.
    """
    if dataset_classes is None:
        return
    own_numbers: dict[str, list[int]] = {}
    for number, name in enumerate(dataset_classes):
        own_numbers.setdefault(name.strip().casefold(), []).append(number)
    for number, name in enumerate(names):
        own = own_numbers.get(name.strip().casefold(), [number])
        if number not in own:
            raise InputError(
                f"you name class {number} {name!r}, but in your data set that is class {own[0]}; give the class names in its order: "
                f"{', '.join(dataset_classes)}."
            )


def _texts(kind: str, names: object) -> tuple[str, ...]:
    if isinstance(names, str | bytes):
        raise InputError(f"the {kind} names are one text, {names!r}; give a list with a name for each {kind}.")
    if isinstance(names, set | frozenset):
        raise InputError(f"the {kind} names are a set, which has no order; {_ORDER}.")
    if isinstance(names, Mapping):
        return _texts(kind, _by_number(kind, names))
    if not isinstance(names, Iterable) or isinstance(names, type) or getattr(names, "ndim", 1) == 0:
        raise InputError(
            f"the {kind} names are {names!r}, not a sequence; give a list with a name for each {kind}, such as list(range(10))."
        )
    return tuple(_text(kind, name) for name in names)


def _text(kind: str, name: object) -> str:
    """A name as text: 1.0 and `numpy.int64(1)` are called "1"."""
    scalar = plain_scalar(name)
    if isinstance(scalar, bool):
        return str(scalar)
    if (number := as_integer(scalar)) is not None:
        return str(number)
    if isinstance(scalar, float):
        if not math.isfinite(scalar):
            raise InputError(f"{scalar} cannot be a {kind} name; give each {kind} a name in letters or numbers.")
        return str(name) if isinstance(name, np.floating) else str(scalar)  # 0.1 has more digits as a wider float
    if not isinstance(name, str):
        raise InputError(
            f"the {kind} name {name!r} is of the type {type(name).__name__}, neither text nor a number; give its text."
        )
    if not name.strip():
        raise InputError(f"a {kind} name is empty; give each {kind} a name.")
    return str.__str__(name)  # not an enumeration's own `str`, which names its type


def _by_number(kind: str, names: Mapping[Any, Any]) -> list[object]:
    """The names in a mapping from names to numbers, or from numbers to names, ordered by the numbers."""
    readings: list[list[tuple[int, object]]] = []
    if None not in (by_value := [as_integer(value) for value in names.values()]):
        readings.append([(int(number or 0), name) for number, name in zip(by_value, names, strict=True)])
    # JSON has numbers as keys only as text; where the values are numbers, such keys are names.
    if all(as_integer(key) is not None or (not readings and _digits(key)) for key in names):
        readings.append([(int(key), name) for key, name in names.items()])
    if not readings:
        raise InputError(f"the {kind} names are a mapping without numbers; {_ORDER}.")
    ordered = [sorted(pairs, key=lambda pair: pair[0]) for pairs in readings]
    complete = [pairs for pairs in ordered if [number for number, _ in pairs] == list(range(len(pairs)))]
    if not complete:
        stated = ", ".join(str(number) for number, _ in ordered[0])
        raise InputError(
            f"the numbers of the {kind} names are {stated} and must be 0 to {len(names) - 1}, each once; correct the mapping."
        )
    if complete[0] != complete[-1]:
        raise InputError(f"the {kind} names map numbers to other numbers, which can be read both ways; {_ORDER}.")
    return [name for _, name in complete[0]]


def _digits(value: object) -> bool:
    return isinstance(value, str) and value.isdecimal() and value.isascii()


def plain_scalar(value: object) -> object:
    """A number of NumPy or torch as one of Python's; anything else as it is."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "biuf":
        return value  # NumPy turns dates into numbers
    return value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value


def as_integer(value: object) -> int | None:
    """A number without a fraction, such as 1, True, 1.0 or `numpy.int64(1)`; None for everything else."""
    scalar = plain_scalar(value)
    if isinstance(scalar, int):
        return int(scalar)
    return int(scalar) if isinstance(scalar, float) and scalar.is_integer() else None
