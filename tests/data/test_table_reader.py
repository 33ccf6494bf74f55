"""Tables as their files have them: nothing is merged, filled in or lost without a word."""

from __future__ import annotations

import builtins
import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyreadstat
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from encircle.core import InputError
from encircle.data.table_reader import EMPTY, Table, read_table, shortest_text

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.just(0), st.just(1.0))


def csv_table(folder: Path, content: str | bytes, encoding: str | None = None, **settings: Any) -> Table:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, encoding, **settings)


def transport_file(folder: Path, **columns: Sequence[str]) -> Path:
    path = folder / "table.xpt"
    pyreadstat.write_xport(pl.DataFrame(columns), str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@given(st.data(), st.integers(2, 4), st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]))
def test_quoted_texts_come_back(folder: Path, data: st.DataObject, width: int, separator: str, end: str) -> None:
    """Whatever is in them: separators, line ends, quotes."""
    rows = data.draw(st.lists(st.lists(TEXTS, min_size=width, max_size=width), min_size=1, max_size=8))
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerows([[f"c{separator}{index}" for index in range(width)], *rows])
    table = csv_table(folder, stream.getvalue())
    assert table.separator == separator
    assert table.frame.columns == [f"c{separator}{index}" for index in range(width)]
    stripped = pl.Series([text for row in rows for text in row]).str.strip_chars().to_list()
    assert [text for row in table.frame.rows() for text in row] == stripped


@given(st.lists(st.lists(st.sampled_from(["1", "x", ""]), min_size=3, max_size=3), min_size=1, max_size=6), st.data())
def test_a_row_with_too_few_or_too_many_fields_is_named(
    folder: Path, rows: list[list[str]], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    change = data.draw(st.sampled_from([["1"], ["1", "x"], ["1", "x", "", ""], ["1"] * 5]))
    lines = [",".join(row) for row in [["a", "b", "c"], *rows]]
    assert csv_table(folder, "\n".join(lines)).frame.height == len(rows)
    lines[index + 1] = ",".join(change)
    end = data.draw(st.sampled_from(["", "\n"]))
    with pytest.raises(
        InputError, match=rf"line {index + 2} of .* has {len(change)} fields? where the header has 3; mend"
    ):
        csv_table(folder, "\n".join(lines) + end)


def test_lines_are_counted_over_quoted_line_ends_and_blank_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 7 of .* has 1 field where"):
        csv_table(tmp_path, '\na,b\n"1\n2",3\n\n  \n4\n')
    table = csv_table(tmp_path, '\n\r\n a , "b, c" \n1,"x\ny"\n\n   \n 2 , z\n'.replace('" \n', '"\n'))
    assert table.frame.to_dict(as_series=False) == {"a": ["1", "2"], "b, c": ["x\ny", "z"]}


@pytest.mark.parametrize("content", ['a,b\n1,"x\n2,y\n', 'a,b\n1,"x"y\n', '"a,b\n1,2\n'])
def test_quotes_that_do_not_close_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"line \d of .* cannot be read .*; mend its quotes"):
        csv_table(tmp_path, content)


@pytest.mark.parametrize("header", ["a,b,a", "a, a ,b", ",,b", '"a",b,a'])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match=r"two columns of .* are called '(a|)'; rename one"):
        csv_table(tmp_path, f"{header}\n1,2,3\n")


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("a,b\n1,2\n", ["a", "b"]),
        ("a;b\n1,5;2,5\n", ["a", "b"]),
        ("a\tb\n1,5\tx;y\n", ["a", "b"]),
        ('"a;x",b\n1,2\n', ["a;x", "b"]),
        ("a (k; yearly),b\n1,2\n", ["a (k; yearly)", "b"]),
        ("size, cm;weight\n1;2\n", ["size, cm", "weight"]),
        ("a\n1\n", ["a"]),
    ],
)
def test_the_header_says_what_separates(tmp_path: Path, content: str, columns: list[str]) -> None:
    assert csv_table(tmp_path, content).frame.columns == columns


@pytest.mark.parametrize("content", ["size, cm;weight\n1,5;2\n", "a,b;c\n1\n", "a,b\tc\n"])
def test_an_unclear_separator_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"the header of .* has commas and .*; put quotes around names that hold them"):
        csv_table(tmp_path, content)


@pytest.mark.parametrize(
    ("written", "setting"),
    [
        ("utf-8", None), ("utf-8-sig", None), ("utf-8-sig", "UTF-8"), ("utf-16", None), ("utf-16", "utf-16"),
        ("utf-32", None), ("latin-1", "latin-1"), ("cp1250", "WINDOWS-1250"), ("utf-16-be", "utf-16-be"),
    ],
)  # fmt: skip
def test_csv_files_of_many_encodings(tmp_path: Path, written: str, setting: str | None) -> None:
    table = csv_table(tmp_path, "größe,b\nä,2\n".encode(written), setting)
    assert table.frame.to_dict(as_series=False) == {"größe": ["ä"], "b": ["2"]}


@pytest.mark.parametrize("content", ["größe,b\n1,2\n", "a,b\nä,2\n"])
@pytest.mark.parametrize(("written", "setting"), [("latin-1", None), ("latin-1", "UTF-8"), ("utf-16-le", None)])
def test_csv_files_of_another_encoding_name_the_remedy(
    tmp_path: Path, content: str, written: str, setting: str | None
) -> None:
    with pytest.raises(InputError, match="are not in the encoding UTF-8; set encoding to theirs, such as"):
        csv_table(tmp_path, content.encode(written), setting)


def test_an_encoding_that_is_none_or_that_the_file_denies(tmp_path: Path) -> None:
    for content in (b"a,b\n1,2\n", b"\xef\xbb\xbfa,b\n1,2\n"):
        with pytest.raises(InputError, match="there is no encoding 'KLINGON'"):
            csv_table(tmp_path, content, "KLINGON")
    with pytest.raises(
        InputError, match="begins with the mark of UTF-8, not of the encoding latin-1; leave encoding out"
    ):
        csv_table(tmp_path, "a,b\n1,ä\n".encode("utf-8-sig"), "latin-1")


@given(st.lists(st.one_of(NUMBERS, st.sampled_from(["", *EMPTY])), min_size=1, max_size=12), st.booleans())
def test_numbers_are_what_polars_infers(folder: Path, values: list[Any], exact: bool) -> None:
    """For files that polars reads well, the columns are those that it reads."""
    assume(not exact or all(abs(value) < 2**53 or math.isinf(value) for value in values if isinstance(value, float)))
    assume(not exact or not any(isinstance(value, int) and abs(value) > 2**53 for value in values))
    content = "a,b\n" + "".join(f"{value},1\n" for value in values)
    column = csv_table(folder, content).column("a", exact=exact)
    expected = pl.read_csv(io.StringIO(content), null_values=list(EMPTY), infer_schema_length=None)["a"]
    assert column.null_count() == expected.null_count()
    if column.null_count() < len(column):
        assert column.to_list() == expected.to_list()
        assert column.dtype == expected.dtype


@given(st.lists(st.one_of(st.integers(), st.floats(allow_nan=False)), min_size=1, max_size=6, unique=True))
def test_codes_stay_apart(folder: Path, values: list[float]) -> None:
    """However many digits they have, and whether or not something else made them floats."""
    content = "a,b\n" + "".join(f"{value},1\n" for value in values)
    codes = csv_table(folder, content).column("a", exact=True)
    assert len({shortest_text(code) for code in codes.to_list()}) == len(set(values))


@given(st.floats(allow_nan=False))
def test_the_shortest_text_reads_back(value: float) -> None:
    assert float(shortest_text(value)) == value
    assert not shortest_text(value).endswith(".0")


def test_texts_of_numbers() -> None:
    values = [1.0, -0.0, 0.1, 1234567.0, 1e-5, 2, True, "x"]
    assert [shortest_text(value) for value in values] == ["1", "0", "0.1", "1234567", "1e-05", "2", "True", "x"]


@pytest.mark.parametrize(
    ("texts", "numbers", "codes"),
    [
        (["007", "10"], [7, 10], ["007", "10"]),
        (["1", "1.0", "2"], [1.0, 1.0, 2.0], [1.0, 1.0, 2.0]),
        (["250.1", "250.10"], [250.1, 250.1], ["250.1", "250.10"]),
        (["250", "250.00", "250.0"], [250.0] * 3, ["250", "250.00", "250.0"]),
        (["1", "1.0", "inf"],) + ([1.0, 1.0, math.inf],) * 2,
        (["1.50", "2.25"], [1.5, 2.25], [1.5, 2.25]),
        (["9007199254740993", "9007199254740992"],) + ([9007199254740993, 9007199254740992],) * 2,
        (["9007199254740993.0", "1.5"], [9007199254740992.0, 1.5], ["9007199254740993.0", "1.5"]),
        (["+5", "-.5", "1e3", "2."],) + ([5.0, -0.5, 1000.0, 2.0],) * 2,
        (["TRUE", "false"],) + ([True, False],) * 2,
        (["true", "1"],) + (["true", "1"],) * 2,
        (["1_000", "5"],) + (["1_000", "5"],) * 2,
        (["", "NA"],) + ([None, None],) * 2,
    ],
)
def test_columns_of_a_csv_file_are_typed(
    tmp_path: Path, texts: list[str], numbers: list[Any], codes: list[Any]
) -> None:
    table = csv_table(tmp_path, "a,b\n" + "".join(f"{text},1\n" for text in texts))
    assert table.column("a", exact=False).to_list() == numbers
    assert table.column("a", exact=True).to_list() == codes


def test_whole_numbers_of_any_length_are_told_apart_and_ordered(tmp_path: Path) -> None:
    texts = [str(10**30 + 1), str(2**64), str(10**30)]
    table = csv_table(tmp_path, "a,b\n" + "".join(f"{text},1\n" for text in texts))
    assert [shortest_text(code) for code in sorted(table.column("a", exact=True))] == sorted(texts, key=int)
    assert table.column("a", exact=False).to_list() == [float(text) for text in texts]
    longest = csv_table(tmp_path, f"a,b\n{10**50},1\n{10**50 + 1},2\n").column("a", exact=True)
    assert longest.to_list() == [str(10**50), str(10**50 + 1)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8), st.sampled_from(";\t"), st.booleans())
def test_decimal_commas(folder: Path, values: list[float], separator: str, exact: bool) -> None:
    numbers = [math.trunc(value * 100) / 100 for value in values]
    content = f"a{separator}b\n" + "".join(f"{number:.2f}{separator}1\n".replace(".", ",") for number in numbers)
    assert csv_table(folder, content).column("a", exact=exact).to_list() == numbers


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["1,5", "1.5"], "holds both '1,5' and '1.5'; write its numbers with one decimal mark"),
        (["1.234", "999"], "holds '1.234' beside '999', which may be a thousand times as much"),
        (["12,345", "7", "1,000"], "holds '1,000' beside '7', which may be"),
    ],
)
def test_decimal_marks_that_may_mean_two_things(tmp_path: Path, texts: list[str], message: str) -> None:
    content = "a;b\n" + "".join(f"{text};1\n" for text in texts)
    with pytest.raises(InputError, match=f"the column 'a' of .* {message}"):
        csv_table(tmp_path, content).column("a", exact=False)
    assert csv_table(tmp_path, content + "x;1\n").column("a", exact=True).to_list() == [*texts, "x"]
    with_commas = 'a,b\n"' + '",1\n"'.join(texts) + '",1\n'
    assert csv_table(tmp_path, with_commas).column("a", exact=False).dtype in (pl.String, pl.Float64)


def saved(folder: Path, ending: str, **columns: Sequence[Any]) -> Path:
    path, frame = folder / f"table.{ending}", pl.DataFrame(columns)
    if ending == "csv":
        frame.write_csv(path)
    elif ending == "parquet":
        frame.write_parquet(path)
    else:
        pyreadstat.write_xport(frame, str(path))
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet", "xpt"])
@pytest.mark.parametrize("text", EMPTY[1:])
def test_a_text_that_may_stand_for_a_missing_value(tmp_path: Path, ending: str, text: str) -> None:
    path = saved(tmp_path, ending, a=[text, "mild", None, "severe", text], b=range(5))
    with pytest.raises(
        InputError,
        match=rf"'a' of .* holds '{text}' in 2 rows, .* missing_values to \[\"\", \"{text}\"\] .* or to \[\"\"\]",
    ):
        read_table(path).column("a", exact=True)
    assert read_table(path, None, ["", text]).column("a", exact=True).to_list() == [None, "mild", None, "severe", None]
    assert read_table(path, None, [" "]).column("a", exact=True).to_list() == [text, "mild", None, "severe", text]


@pytest.mark.parametrize("ending", ["csv", "parquet", "xpt"])
def test_usual_texts_are_missing_among_numbers(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path, ending, a=["10", *EMPTY, "9"], b=["true", *EMPTY, "false"], c=["-", *["?"] * len(EMPTY), ""])
    table = read_table(path)
    for name in "ab":
        assert table.column(name, exact=True).null_count() == len(EMPTY)
    assert table.column("c", exact=True).to_list() == ["-", *["?"] * len(EMPTY), None]


@pytest.mark.parametrize("ending", ["csv", "parquet", "xpt"])
def test_what_counts_as_missing_may_be_set(tmp_path: Path, ending: str) -> None:
    columns: dict[str, list[Any]] = {"a": [1.5, -99.0, 3.0], "b": ["NA", "x", "-99"], "c": [1, -99, 2]}
    table = read_table(saved(tmp_path, ending, **columns), None, [" -99 "])
    assert table.column("a", exact=False).to_list() == [1.5, None, 3.0]
    assert table.column("b", exact=True).to_list() == ["NA", "x", None]
    assert table.column("c", exact=True).to_list() == [1, None, 2]


def test_what_counts_as_missing_holds_for_every_type(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [True, False], "b": [b"x", b"y"]}).with_columns(
        c=pl.Series(["x", "y"], dtype=pl.Categorical), d=pl.Series(["x", "y"], dtype=pl.Enum(["y", "x"]))
    )
    frame.write_parquet(tmp_path / "table.parquet")
    table = read_table(tmp_path / "table.parquet", None, ["true", "x"])
    assert [table.column(name, exact=True).to_list() for name in "abcd"] == [
        [None, False], [b"x", b"y"], [None, "y"], [None, "y"],
    ]  # fmt: skip
    assert table.column("d", exact=True).dtype == pl.Enum(["y", "x"])


def test_floats_of_32_bits_are_called_what_they_print_as(tmp_path: Path) -> None:
    pl.DataFrame({"a": pl.Series([0.1, 2.0, float("nan")], dtype=pl.Float32)}).write_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").column("a", exact=True).to_list() == [0.1, 2.0, None]


def test_large_files_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encircle.data.table_reader._CHUNK", 7)
    table = csv_table(tmp_path, "a,b\n" + "".join(f"{row},{row * 2}\n" for row in range(50)))
    assert table.frame.rows() == [(str(row), str(row * 2)) for row in range(50)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "cannot be read|is empty"),
        ("a.csv", b"a,b\n", "is empty"),
        ("a.parquet", b"PAR1 no", r"the table .*a\.parquet cannot be read"),
        ("a.xpt", b"HEADER RECORD no", r"the table .*a\.xpt cannot be read"),
        ("a.sas7bdat", b"no", r"the table .*a\.sas7bdat cannot be read"),
        ("a.xlsx", b"no", "is no table this reads; give one of: .csv, .parquet, .xpt, .sas7bdat"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize(("encoding", "text"), [("WINDOWS-1252", "café!"), ("ISO-8859-2", "cał!!"), ("UTF-8", "caé!")])
def test_texts_of_odd_encodings_in_a_transport_file(tmp_path: Path, encoding: str, text: str) -> None:
    path = transport_file(tmp_path, smokes=["often", "cafe!"])
    path.write_bytes(path.read_bytes().replace(b"cafe!", text.encode(encoding)))
    assert set(read_table(path, encoding).frame["smokes"]) == {"often", text}
    for wrong, said in ((None, "that the file says"), ("UTF-8", "UTF-8"), ("KLINGON", "KLINGON")):
        if encoding == "UTF-8" and wrong != "KLINGON":
            continue
        with pytest.raises(InputError, match=f"are not in the encoding {said}; set encoding to theirs, such as"):
            read_table(path, wrong)


def test_a_byte_that_no_encoding_knows_names_the_remedy(tmp_path: Path) -> None:
    path = transport_file(tmp_path, smokes=["often", "cafe!"])
    path.write_bytes(path.read_bytes().replace(b"cafe!", b"caf\x81!"))
    for encoding in (None, "WINDOWS-1252"):
        with pytest.raises(InputError, match="set encoding to theirs"):
            read_table(path, encoding)


def test_names_of_columns_of_odd_encodings(tmp_path: Path) -> None:
    path = transport_file(tmp_path, rauche=["often", "cafe!"])
    path.write_bytes(path.read_bytes().replace(b"rauche", "raüche".encode("cp1252")))
    assert "raüche" in read_table(path, "WINDOWS-1252").frame.columns
    with pytest.raises(InputError, match="set encoding to theirs"):
        read_table(path)


def test_sas_files_need_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = transport_file(tmp_path, smokes=["often", "never"])
    find = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "pyreadstat":
            raise ImportError(name)
        return find(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'encircle\[sas\]'"):
        read_table(path)
