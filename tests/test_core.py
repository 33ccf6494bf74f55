"""Errors name their remedy; digests are the same everywhere."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encircle.core import EncircleError, InputError, StorageError, digest, number_text, printable, unknown_name

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(("error", "code"), [(EncircleError, 3), (InputError, 2), (StorageError, 3)])
def test_each_kind_of_error_has_its_exit_code(error: type[EncircleError], code: int) -> None:
    assert issubclass(error, EncircleError)
    assert error("no space").exit_code == code


def test_an_unknown_name_offers_the_nearest_spelling() -> None:
    error = unknown_name("region", "mid-lefd", ["mid-right", "mid-left", "top"])
    assert isinstance(error, InputError)
    assert str(error) == "unknown region 'mid-lefd'; did you mean 'mid-left'?"


def test_an_unknown_name_like_no_other_lists_them_all() -> None:
    assert str(unknown_name("region", "zzz", ["top", "left"])) == "unknown region 'zzz'; choose one of: left, top."


@pytest.mark.parametrize(
    ("value", "text", "percent"),
    [
        (0.1, "0.1", "10"),
        (0.07, "0.07", "7"),
        (0.29, "0.29", "29"),
        (0.1234567, "0.1234567", "12.34567"),
        (1e-7, "1e-07", "1e-05"),
        (1.234567891e-9, "1.234567891e-09", "0.0000001234567891"),
        (3, "3", "300"),
        (10**7, "1e+07", "1e+09"),
        (123456789, "123456789", "12345678900"),
        (10**400 + 1, f"1{'0' * 399}1", None),
        (-0.5, "-0.5", "-50"),
        (math.inf, "inf", "inf"),
        (math.nan, "nan", "nan"),
    ],
)
def test_a_number_is_as_short_as_reads_back_the_same(value: float, text: str, percent: str | None) -> None:
    assert number_text(value) == text
    if percent is not None:
        assert number_text(value, percent=True) == percent


@given(st.floats(allow_nan=False) | st.integers(-(2**53), 2**53))
def test_a_number_s_text_reads_back_the_same(value: float) -> None:
    assert float(number_text(value)) == value
    assert Decimal(number_text(value, percent=True)) == Decimal(repr(value)) * 100


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ÄßЖ 漢 🐕 −0.1 [bold]", "plain ÄßЖ 漢 🐕 −0.1 [bold]"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("PASS\rFAIL\n\u2028next\tcell", "PASS FAIL  next cell"),
        ("\x9b31m\x07\x7f", r"\x9b31m\x07\x7f"),
        ("abc\u202edef\ud800", r"abc\u202edef\ud800"),
        ("family 👨\u200d👩", "family 👨\u200d👩"),
    ],
)
def test_a_terminal_does_nothing_but_show_what_is_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_what_is_printable_is_one_line_without_control_characters(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown)
    assert printable(shown) == shown


def test_a_digest_is_sha256_of_canonical_json() -> None:
    assert digest({"b": 1, "a": [None, "ä"]}) == hashlib.sha256(b'{"a":[null,"\\u00e4"],"b":1}').hexdigest()


@given(st.dictionaries(st.text(), JSON, min_size=2))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_a_digest_is_the_same_in_another_process() -> None:
    code = "from encircle.core import digest; print(digest({'b': [1.5, 'x'], 'a': None}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest({"a": None, "b": [1.5, "x"]})


def test_core_needs_no_torch() -> None:
    code = "import sys, encircle.core, encircle.storage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
