"""YAML that is read as it looks: nothing dropped, nothing taken for another value, and what is written comes back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from encircle.audit.yaml_text import dump, load
from encircle.core import InputError

LOOKALIKES = (
    "1e-2 1E5 .5e1 -.5 010 08 0_7 1:30 190:20:30.15 0:30 0x1f 0b1 1_000 yes No on OFF y n true False null ~ = << .inf .NaN "
    "2020-01-01 2020-13-45 0o17 -0 +1 1. . - '' # a:b"
)
TEXTS = st.text(max_size=12) | st.sampled_from(LOOKALIKES.split()) | st.text("0123456789eE.+-_:", max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-2", 0.01),
        ("1E5", 100000.0),
        (".5e1", 5.0),
        ("-.5", -0.5),
        ("+1.5e+3", 1500.0),
        ("2.", 2.0),
        ("1_000", 1000),
        ("-7", -7),
        ("0", 0),
        ("0x1F", 31),
        ("0b11", 3),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("Off", "Off"),
        ("on", "on"),
        ("=", "="),
        ("~", None),
        ("", None),
        ("e5", "e5"),
        ("1e", "1e"),
        ("0:30", "0:30"),
        ("08", "08"),
        ("1.2.3", "1.2.3"),
        ('"010"', "010"),
        ("'1e-2'", "1e-2"),
    ],
)
def test_values_mean_what_they_look_like(text: str, value: object) -> None:
    assert load(text, "x") == value
    assert type(load(text, "x")) is type(value)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("seed: 010", 'x has 010 in line 1, which not every reader of YAML takes for the same; write 10 or "010".'),
        (
            "a: 1\nb: [-007]",
            'has -007 in line 2, which not every reader of YAML takes for the same; write -7 or "-007".',
        ),
        ("1:30", 'write 90 or "1:30".'),
        ("-1:00:30.5", 'write -3630.5 or "-1:00:30.5".'),
        ("010: 3", 'write 10 or "010".'),
    ],
)
def test_numbers_that_readers_of_yaml_understand_differently_are_refused(text: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        load(text, "x")
    assert str(caught.value).endswith(remedy)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", "x has the key 'a' twice, in lines 1 and 3; drop one of them."),
        ("a: {b: 1, c: 2, b: 3}", "x has the key 'b' twice, in line 1; drop one of them."),
        ("- a:\n    b: 1\n    'b': 1\n", "x has the key 'b' twice, in lines 2 and 3; drop one of them."),
        ("a: &a {b: 1, b: 2}\nc: *a", "x has the key 'b' twice, in line 1; drop one of them."),
        ("? {a: 1, a: 2}\n: 3", "x has the key 'a' twice, in line 1; drop one of them."),
        ("1: a\n1: b", "x has the key '1' twice, in lines 1 and 2; drop one of them."),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_lines(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load(text, "x")
    assert str(caught.value) == sentence


def test_merge_keys_and_aliases_are_no_second_keys() -> None:
    text = """
a: &a {x: 1, y: 2}
b: &b {<<: *a, y: 3}
c: {<<: *b, x: 4}
d: {<<: [*a, *b], z: 5}
e: {y: 6, <<: *b}
f: *a
"""
    content = load(text, "x")
    assert content["c"] == {"x": 4, "y": 3}
    assert content["d"] == {"x": 1, "y": 2, "z": 5}
    assert content["e"] == {"x": 1, "y": 6}
    assert content["f"] == content["a"]


@pytest.mark.parametrize(
    "text", ["a: [", "!!python/object/apply:os.system ['true']", "a\0b", "9" * 5000, "{}\n---\n{}"]
)
def test_what_is_no_document_of_plain_values_is_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"^x is not YAML: ") as caught:
        load(text, "x")
    assert "\n" not in str(caught.value)


@given(VALUES)
@example("a\x85b")
@example("a\u2028b c")
@example({"1e5": "1e5", "y": "n"})
def test_what_is_written_comes_back_here_and_in_readers_of_yaml_1_1(value: Any) -> None:
    assert load(dump(value), "x") == value
    assert yaml.safe_load(dump(value)) == value
    assert load(dump(value, flow=True), "x") == value


@given(TEXTS)
def test_a_text_comes_back_as_a_text(text: str) -> None:
    assert type(load(dump([text]), "x")[0]) is str
    assert type(load(dump({text: 1}), "x").popitem()[0]) is str


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text("abcdef ÄßЖ.,:-#'\"\n", max_size=100),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdef_", max_size=20), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_had_one_meaning_is_written_as_ever(value: Any) -> None:
    assert dump(value) == yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def test_one_line_is_one_line() -> None:
    assert dump({"b": ["long words " * 30, 1e-05], "a": "yes"}, flow=True) == (
        "{a: 'yes', b: ['" + "long words " * 30 + "', 1.0e-05]}"
    )
    assert dump(3, flow=True) == "3"
