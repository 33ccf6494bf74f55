"""Class names: one order whatever the container; numbers become texts; what has no order or contradicts the data is refused."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encircle.core import InputError
from encircle.data.class_names import as_integer, check_class_order, class_names, column_names


class Index:
    """Like pandas', which is no sequence of Python's."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)


class Animal(enum.StrEnum):
    CAT = "cat"
    DOG = "dog"


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "dog"],
        ("cat", "dog"),
        np.array(["cat", "dog"]),
        np.array(["cat", "dog"], dtype=object),
        Index("cat", "dog"),
        [Animal.CAT, Animal.DOG],
        {"cat": 0, "dog": 1}.keys(),
        {"dog": 1, "cat": 0},
        {"dog": np.int64(1), "cat": np.int64(0)},
        {"dog": torch.tensor(1), "cat": torch.tensor(0)},
        {"dog": 1.0, "cat": 0.0},
        {1: "dog", 0: "cat"},
        {"1": "dog", "0": "cat"},
        {np.int64(1): "dog", np.int64(0): "cat"},
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_container_with_an_order_is_taken(names: Any) -> None:
    assert class_names(names) == column_names(names) == ("cat", "dog")
    assert all(type(name) is str for name in class_names(names))


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        (range(3), ("0", "1", "2")),
        (np.arange(3), ("0", "1", "2")),
        (torch.arange(3), ("0", "1", "2")),
        ([0.0, 1.5, -2], ("0", "1.5", "-2")),
        ([np.float32(0.1), np.float64(3)], ("0.1", "3")),
        ([False, np.True_], ("False", "True")),
        ({10: 0, 20: 1}, ("10", "20")),
        ({0: 0, 1: 1}, ("0", "1")),
        ({0: 1, 1: 0}, ("1", "0")),
        ({0: 10, 1: 20}, ("10", "20")),
        ({"1": 0, "0": 1}, ("1", "0")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_become_their_texts(names: Any, texts: tuple[str, ...]) -> None:
    assert class_names(names) == texts


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, unique_by=str.strip), st.randoms())
def test_a_mapping_is_read_by_its_numbers_either_way(names: list[str], random: Any) -> None:
    pairs = list(enumerate(names))
    random.shuffle(pairs)
    assert class_names({name: number for number, name in pairs}) == tuple(names)
    assert class_names(dict(pairs)) == tuple(names)
    assert class_names(class_names(names)) == tuple(names)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("cat", "the class names are one text, 'cat'; give a list"),
        (b"cat", "are one text"),
        ({"cat", "dog"}, "the class names are a set, which has no order"),
        (frozenset("ab"), "are a set"),
        (10, "the class names are 10, not a sequence"),
        (None, "are None, not a sequence"),
        (np.array(3), "not a sequence"),
        (Animal, "not a sequence"),
        ([], "there are no class names; name at least two"),
        ({}, "there are no class names"),
        (["a", "b", "a"], "the class name 'a' is there twice"),
        (["a", " a"], "the class name 'a' is there twice"),
        ([1, 1.0], "the class name '1' is there twice"),
        (["1", 1], "the class name '1' is there twice"),
        (["a", ""], "a class name is empty"),
        (["a", " "], "a class name is empty"),
        (["a", None], "the class name None is of the type NoneType, neither text nor a number"),
        ([["a"], ["b"]], "of the type list"),
        (np.zeros((2, 2)), "of the type ndarray"),
        (["a", math.nan], "nan cannot be a class name"),
        ([np.datetime64(7, "ns")], "of the type datetime64"),
        ({"a": 0, "b": 2}, "the numbers of the class names are 0, 2 and must be 0 to 1, each once"),
        ({"a": 1, "b": 2}, "are 1, 2 and must be 0 to 1"),
        ({"a": 0, "b": 0}, "are 0, 0 and must be 0 to 1"),
        ({0: "a", 2: "b"}, "are 0, 2 and must be 0 to 1"),
        ({"a": "b"}, "a mapping without numbers"),
        ({"a": 0.5}, "a mapping without numbers"),
        ({0: 1, 1: 2, 2: 0}, "can be read both ways"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused_in_a_sentence(names: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        class_names(names)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_may_be_none_and_are_called_columns() -> None:
    assert column_names(()) == ()
    with pytest.raises(InputError, match="a column name is empty"):
        column_names(["a", ""])


OWN = ("high", "low", "medium")


@pytest.mark.parametrize("names", [OWN, ("High", " low", "medium"), ("a", "b", "c"), ("high", "b", "c")])
def test_names_may_be_the_data_set_s_own_or_others(names: tuple[str, ...]) -> None:
    check_class_order(names, OWN)
    check_class_order(names, None)


@pytest.mark.parametrize("names", [("low", "medium", "high"), ("Low", "Medium", "High"), ("high", "medium", "x")])
def test_names_of_other_classes_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(
        InputError, match=r"but in your data set that is class [12]; .* in its order: high, low, medium"
    ):
        check_class_order(names, OWN)


def test_whole_numbers() -> None:
    for value in (1, True, 1.0, np.int8(1), np.float16(1), np.array(1), torch.tensor(1.0)):
        assert as_integer(value) == 1
    for value in (1.5, math.inf, math.nan, "1", None, 1j, np.array([1]), np.datetime64(1, "ns")):
        assert as_integer(value) is None
