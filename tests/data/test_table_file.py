"""Tables from files: scaled, encoded and kept legal by their schema; every kind of damage named."""

from __future__ import annotations

import builtins
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyreadstat
import pytest
import torch

from encircle.core import InputError
from encircle.data import DataSet, Schema, TensorSamples, table_file
from encircle.data.table_file import read_table
from encircle.threat import Budget, Legal

SCHEMA = Schema(label="ill", dropped=("id",), categorical=("race", "smokes"), integer=("age",), immutable=("height",))


def people(count: int = 60, **changed: Any) -> pl.DataFrame:
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "id": [f"P{row}" for row in range(count)],
        "age": random.integers(40, 90, count),
        "height": random.normal(160, 8, count),
        "weight": random.normal(70, 12, count),
        "race": random.integers(1, 4, count).astype(float),
        "smokes": random.choice(["never", "often"], count),
        "ill": random.integers(0, 2, count),
    }
    return pl.DataFrame(columns | changed)


def written(folder: Path, frame: pl.DataFrame, ending: str = "csv") -> Path:
    path = folder / f"people.{ending}"
    if ending == "csv":
        frame.write_csv(path)
    elif ending == "parquet":
        frame.write_parquet(path)
    else:
        pyreadstat.write_xport(frame, str(path))
    return path


def whole(data: DataSet) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [part for part in (data.train, data.validation, data.test, data.pretrain) if part is not None]
    assert all(isinstance(part, TensorSamples) for part in parts)
    return torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts])  # type: ignore[attr-defined]


@pytest.mark.parametrize("ending", ["csv", "parquet", "xpt"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, ending: str) -> None:
    first = table_file(written(tmp_path, people()), SCHEMA, pretrain=0.3, seed=2)
    data = table_file(written(tmp_path, people(), ending), SCHEMA, pretrain=0.3, seed=2)
    assert data.features == first.features
    assert data.columns == first.columns
    for mine, theirs in zip(whole(data), whole(first), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert len(data.check()) == 64


def test_columns_are_scaled_by_what_is_not_held_out(tmp_path: Path) -> None:
    frame = people()
    data = table_file(written(tmp_path, frame), SCHEMA, pretrain=0.3, held_out=0.2)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [34, 6, 6]
    assert data.pretrain is not None
    assert len(data.pretrain) == 14
    seen = torch.cat([data.train.inputs, data.pretrain.inputs])  # type: ignore[attr-defined]
    for name in ("age", "height", "weight"):
        column = seen[:, list(data.features).index(name)]
        assert (column.min(), column.max()) == (0, 1)
    inputs, labels = whole(data)
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    assert sorted(labels.tolist()) == sorted(frame["ill"].to_list())


def test_categories_become_columns_that_nothing_changes(tmp_path: Path) -> None:
    data = table_file(written(tmp_path, people()), SCHEMA)
    assert data.features == [
        "age", "height", "weight", "race=1", "race=2", "race=3", "smokes=never", "smokes=often",
    ]  # fmt: skip
    inputs, _ = whole(data)
    torch.testing.assert_close(inputs[:, 3:6].sum(dim=1), torch.ones(60))
    assert {data.columns[name].kind for name in (*data.features[3:], "height")} == {"immutable"}
    assert "weight" not in data.columns
    age = data.columns["age"]
    assert age.kind == "integer"
    steps = inputs[:, 0] / age.step
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)


def test_features_and_class_names_may_be_chosen(tmp_path: Path) -> None:
    schema = Schema(label="ill", features=("weight", "age"), classes=("healthy", "ill"))
    data = table_file(written(tmp_path, people()), schema)
    assert (data.features, data.classes) == (["weight", "age"], ["healthy", "ill"])
    assert table_file(written(tmp_path, people()), replace(schema, classes=())).classes == ["ill 0", "ill 1"]


def holed() -> pl.DataFrame:
    frame = people()
    return frame.with_columns(
        weight=pl.Series([None if row % 7 == 0 else value for row, value in enumerate(frame["weight"])]),
        smokes=pl.Series([None if row % 5 == 0 else value for row, value in enumerate(frame["smokes"])]),
    )


def test_missing_values_are_refused_dropped_or_filled(tmp_path: Path) -> None:
    path = written(tmp_path, holed())
    with pytest.raises(InputError, match=r"'weight' of .* lacks 9 of 60 values; set missing to drop or median"):
        table_file(path, SCHEMA)
    dropped = table_file(path, replace(SCHEMA, missing="drop"))
    assert len(whole(dropped)[0]) == sum(row % 7 != 0 and row % 5 != 0 for row in range(60))
    filled = table_file(path, replace(SCHEMA, missing="median"))
    assert len(whole(filled)[0]) == 60
    assert "smokes=missing" in filled.features
    assert int(whole(filled)[0][:, list(filled.features).index("smokes=missing")].sum()) == 12
    weight = list(filled.features).index("weight")
    values, counts = whole(filled)[0][:, weight].unique(return_counts=True)
    middle = values[counts.argmax()]
    assert counts.max() >= 9
    known = filled.train.inputs[:, weight]  # type: ignore[attr-defined]
    torch.testing.assert_close(known[known != middle].median(), middle, atol=0.1, rtol=0)


@pytest.mark.parametrize("ending", ["csv", "parquet", "xpt"])
@pytest.mark.parametrize("classes", [(0.0, 1.0), ("ill", "well")])
def test_rows_without_a_label_are_left_out(tmp_path: Path, ending: str, classes: tuple[Any, Any]) -> None:
    """A SAS file holds a blank text where there is none, a Parquet file perhaps NaN."""
    none = float("nan") if ending == "parquet" and classes[0] == 0 else None
    labels = [none if row < 10 else classes[row % 2] for row in range(60)]
    data = table_file(written(tmp_path, people(ill=labels), ending), SCHEMA)
    assert len(whole(data)[0]) == 50
    assert len(data.classes) == 2


@pytest.mark.parametrize("name", ["ill", "race", "weight"])
def test_a_column_of_lists_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "people.parquet"
    frame = people()
    frame.with_columns(pl.Series(name, [[value] for value in frame[name].to_list()])).write_parquet(path)
    with pytest.raises(InputError, match=f"the column '{name}' of .* holds lists"):
        table_file(path, SCHEMA)


def test_a_label_that_nobody_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the label 'ill' of .* is empty"):
        table_file(written(tmp_path, people(ill=[None] * 60)), SCHEMA)


@pytest.mark.parametrize("ending", ["csv", "parquet", "xpt"])
@pytest.mark.parametrize("missing", ["refuse", "drop", "median"])
@pytest.mark.parametrize("column", ["weight", "race"])
def test_an_empty_column_is_named(tmp_path: Path, ending: str, missing: Any, column: str) -> None:
    frame = people().with_columns(pl.lit(None, dtype=pl.Float64 if ending == "xpt" else None).alias(column))
    with pytest.raises(InputError, match=f"the column '{column}' of .* is empty; list it under dropped"):
        table_file(written(tmp_path, frame, ending), replace(SCHEMA, missing=missing))


def test_a_column_of_blank_texts_is_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'weight' of .* is empty; list it under dropped"):
        table_file(written(tmp_path, people(weight=[" "] * 60), "xpt"), SCHEMA)


def test_a_sas_data_set(tmp_path: Path) -> None:
    """Its writer is ReadStat's own; it has texts beyond ASCII, and a row without a label."""
    path = Path(__file__).with_name("people.sas7bdat")
    schema = Schema(label="ILL", dropped=("ID",), categorical=("CLINIC",), integer=("AGE",))
    data = table_file(path, schema)
    inputs, labels = whole(data)
    assert data.features == ["AGE", "WEIGHT", "CLINIC=Genève", "CLINIC=Zürich"]
    assert len(inputs) == 23
    assert int(labels.sum()) == 11
    assert int(inputs[:, 2].sum()) == 8
    (tmp_path / "half.sas7bdat").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "half.sas7bdat")


def test_a_category_that_only_held_out_rows_have_is_no_column(tmp_path: Path) -> None:
    frame = people()
    held = table_file(written(tmp_path, frame), SCHEMA, seed=1)
    order = whole(held)[0]
    rows = [int((order == row).all(dim=1).nonzero()[0]) for row in held.test.inputs]  # type: ignore[attr-defined]
    assert rows  # the split depends on the number of rows alone: find out which row is held out by what it holds
    identified = table_file(
        written(tmp_path, frame.with_columns(number=pl.arange(60, eager=True))),
        Schema(label="ill", features=("number",)),
        seed=1,
    )
    number = int((identified.test.inputs[0, 0] * 59).round())  # type: ignore[attr-defined]
    smokes = ["rarely" if row == number else value for row, value in enumerate(frame["smokes"])]
    data = table_file(written(tmp_path, people(smokes=smokes)), SCHEMA, seed=1)
    assert "smokes=rarely" not in data.features
    assert data.test.inputs[0, -2:].tolist() == [0, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": [None] * 60}, "'weight' of .* is empty; list it under dropped"),
        ({"weight": [3.5] * 60}, "'weight' of .* has one value throughout; list it under dropped"),
        ({"race": [1] * 60}, "'race' of .* has one value throughout"),
        ({"weight": ["heavy"] * 60}, "'weight' of .* holds 'heavy', no number; list it under categorical or dropped"),
        ({"weight": [70.5] * 59 + ["heavy"]}, "'weight' of .* holds 'heavy', no number"),
        (
            {"weight": ["70.5", "71"] * 30},
            "'weight' of .* holds numbers as texts; list it under categorical or dropped",
        ),
        ({"age": [40.5] * 30 + [60.0] * 30}, "'age' of .* holds 40.5, which is no whole number"),
        ({"ill": [1] * 60}, "'ill' of .* has 1 different values"),
        ({"weight": [float("inf")] + [70.0, 71.0] * 29 + [70.0]}, "'weight' of .* lacks 1 of 60 values"),
    ],
)
def test_columns_that_tell_nothing(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        frame = people().with_columns(pl.Series(name, values, strict=False) for name, values in changed.items())
        table_file(written(tmp_path, frame, "parquet"), SCHEMA)


def test_dropping_every_row_names_a_column(tmp_path: Path) -> None:
    frame = people(height=[None] * 59 + [160.0], weight=[70.0] * 59 + [None])
    with pytest.raises(InputError, match=r"no row of .* has a value in every column; .* drop columns such as 'height'"):
        table_file(written(tmp_path, frame), replace(SCHEMA, missing="drop"))


def test_a_label_that_is_a_number_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 200 different values; classes are 2 to 100"):
        table_file(written(tmp_path, people(200, ill=[row / 7 for row in range(200)])), SCHEMA)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (Schema(label="sick"), "unknown label of people.csv 'sick'"),
        (Schema(label="ill", dropped=("idd",)), "unknown column under dropped of people.csv 'idd'; did you mean 'id'"),
        (Schema(label="ill", features=("wait",)), "did you mean 'weight'"),
        (Schema(label="ill", features=("ill", "age")), "'ill' of .* cannot be a feature and the label"),
        (Schema(label="ill", features=("age",), dropped=("age",)), "'age' of .* cannot be a feature"),
        (replace(SCHEMA, classes=("a",)), "2 values but 1 class names"),
        (Schema(label="ill", dropped=("id", "age", "height", "weight", "race", "smokes")), "no column of .* is left"),
    ],
)
def test_schemas_that_do_not_fit(tmp_path: Path, schema: Schema, message: str) -> None:
    with pytest.raises(InputError, match=message):
        table_file(written(tmp_path, people()), schema)


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


def test_too_few_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few to split"):
        table_file(written(tmp_path, people(5)), SCHEMA)


@pytest.mark.parametrize(("encoding", "text"), [("WINDOWS-1252", "café!"), ("ISO-8859-2", "cał!!"), ("UTF-8", "caé!")])
def test_texts_of_odd_encodings_in_a_transport_file(tmp_path: Path, encoding: str, text: str) -> None:
    path = written(tmp_path, people(smokes=["often", "cafe!"] * 30), "xpt")
    path.write_bytes(path.read_bytes().replace(b"cafe!", text.encode(encoding)))
    assert set(read_table(path, encoding)["smokes"]) == {"often", text}
    for wrong, said in ((None, "that the file says"), ("UTF-8", "UTF-8"), ("KLINGON", "KLINGON")):
        if encoding == "UTF-8" and wrong != "KLINGON":
            continue
        with pytest.raises(InputError, match=f"are not in the encoding {said}; set encoding to theirs, such as"):
            read_table(path, wrong)


def test_a_byte_that_no_encoding_knows_names_the_remedy(tmp_path: Path) -> None:
    path = written(tmp_path, people(smokes=["often", "cafe!"] * 30), "xpt")
    path.write_bytes(path.read_bytes().replace(b"cafe!", b"caf\x81!"))
    for encoding in (None, "WINDOWS-1252"):
        with pytest.raises(InputError, match="set encoding to theirs"):
            read_table(path, encoding)


def test_names_of_columns_of_odd_encodings(tmp_path: Path) -> None:
    path = written(tmp_path, people().rename({"smokes": "rauche"}), "xpt")
    path.write_bytes(path.read_bytes().replace(b"rauche", "raüche".encode("cp1252")))
    assert "raüche" in read_table(path, "WINDOWS-1252").columns
    with pytest.raises(InputError, match="set encoding to theirs"):
        read_table(path)


def test_sas_files_need_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, people(), "xpt")
    find = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "pyreadstat":
            raise ImportError(name)
        return find(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'encircle\[sas\]'"):
        read_table(path)


def test_poison_of_such_a_table_stays_legal(tmp_path: Path) -> None:
    data = table_file(written(tmp_path, people()), SCHEMA)
    base = data.train.inputs  # type: ignore[attr-defined]
    legal = Legal(columns={list(data.features).index(name): column for name, column in data.columns.items()})
    wild = base + torch.randn(base.shape, generator=torch.Generator().manual_seed(0))
    poison = Budget(fraction=0.1, epsilon=0.2).project(wild, base, legal)
    age, weight = data.features.index("age"), data.features.index("weight")
    years = poison[:, age] / data.columns["age"].step
    torch.testing.assert_close(years, years.round(), atol=1e-3, rtol=0)
    moved = {name for place, name in enumerate(data.features) if not torch.equal(poison[:, place], base[:, place])}
    assert moved == {"age", "weight"}
    assert (poison - base)[:, weight].abs().max() > 0.1
    assert (poison - base).abs().max() <= 0.2 + 1e-6


def test_the_real_stand_in() -> None:
    root = Path(os.environ.get("ENCIRCLE_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
    path = root / "nhanes-osteoporosis-women.csv"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    schema = Schema(
        label="fracture",
        dropped=("respondent_id", "cycle", "osteoporosis"),
        categorical=("race_ethnicity",),
        missing="median",
    )
    data = table_file(path, schema, held_out=0.2, pretrain=0.3)
    inputs, labels = whole(data)
    assert len(inputs) == 4502
    assert labels.sum() == 589
    assert len(data.check()) == 64
