"""Tables from files: scaled, encoded and kept legal by their schema; every kind of damage named."""

from __future__ import annotations

import itertools
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
from encircle.data.table_reader import read_table
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


def rows_of(data: DataSet) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [part for part in (data.train, data.validation, data.test, data.pretrain) if part is not None]
    assert all(isinstance(part, TensorSamples) for part in parts)
    return torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts])  # type: ignore[attr-defined]


@pytest.mark.parametrize("ending", ["csv", "parquet", "xpt"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, ending: str) -> None:
    first = table_file(written(tmp_path, people()), SCHEMA, pretrain=0.3, seed=2)
    data = table_file(written(tmp_path, people(), ending), SCHEMA, pretrain=0.3, seed=2)
    assert data.features == first.features
    assert data.columns == first.columns
    for actual, expected in zip(rows_of(data), rows_of(first), strict=True):
        torch.testing.assert_close(actual, expected)
    assert len(data.check()) == 64


def test_columns_are_scaled_by_what_is_not_held_out(tmp_path: Path) -> None:
    frame = people()
    data = table_file(written(tmp_path, frame), SCHEMA, pretrain=0.3, held_out=0.2)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [34, 6, 6]
    assert data.pretrain is not None
    assert len(data.pretrain) == 14
    learnt = torch.cat([data.train.inputs, data.pretrain.inputs])  # type: ignore[attr-defined]
    for name in ("age", "height", "weight"):
        column = learnt[:, list(data.features).index(name)]
        assert (column.min(), column.max()) == (0, 1)
    inputs, labels = rows_of(data)
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    assert sorted(labels.tolist()) == sorted(frame["ill"].to_list())


def test_categories_become_columns_that_nothing_changes(tmp_path: Path) -> None:
    data = table_file(written(tmp_path, people()), SCHEMA)
    assert data.features == [
        "age", "height", "weight", "race=1", "race=2", "race=3", "smokes=never", "smokes=often",
    ]  # fmt: skip
    inputs, _ = rows_of(data)
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


def counts(data: DataSet) -> dict[str, int]:
    labels = rows_of(data)[1].bincount(minlength=len(data.classes))
    return dict(zip(data.classes, labels.tolist(), strict=True))


RISK = {"low": 30, "Medium": 20, "high": 10}


@pytest.mark.parametrize("ending", ["csv", "parquet", "xpt"])
@pytest.mark.parametrize("classes", list(itertools.permutations(RISK)))
@pytest.mark.parametrize("spell", [str, str.upper])
def test_classes_that_are_the_label_s_own_values_keep_to_them(
    tmp_path: Path, ending: str, classes: tuple[str, ...], spell: Any
) -> None:
    """Their order is that of the class numbers and nothing else."""
    texts = [text for text, count in RISK.items() for _ in range(count)]
    schema = replace(SCHEMA, classes=[spell(name) for name in classes])
    data = table_file(written(tmp_path, people(ill=texts), ending), schema)
    assert list(data.classes) == list(schema.classes)
    assert counts(data) == {spell(text): count for text, count in RISK.items()}


@pytest.mark.parametrize(
    ("values", "classes", "expected"),
    [
        ([0, 1, 1], ("1", "0"), {"1": 40, "0": 20}),
        ([0.0, 1.0, 1.0], ("1", "0"), {"1": 40, "0": 20}),
        ([0, 1, 1], ("1.0", "0.0"), {"1.0": 40, "0.0": 20}),
        ([False, True, True], ("true", "false"), {"true": 40, "false": 20}),
        ([False, True, True], ("no", "yes"), {"no": 20, "yes": 40}),
        (["a", "A", "A"], ("a", "A"), {"a": 20, "A": 40}),
        ([1, 2, 10], ("one", "2", "ten"), {"one": 20, "2": 20, "ten": 20}),
        (["b", "a", "a"], ("first", "second"), {"first": 40, "second": 20}),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_classes_go_by_name_or_by_order(
    tmp_path: Path, ending: str, values: list[Any], classes: tuple[str, ...], expected: dict[str, int]
) -> None:
    data = table_file(written(tmp_path, people(ill=values * 20), ending), replace(SCHEMA, classes=classes))
    assert counts(data) == expected
    assert list(data.classes) == list(classes)


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        (
            [1, 2, 3],
            ("0", "1", "2"),
            "the class name '1' would go to the value '2' of the label 'ill' .* another value's",
        ),
        (["a", "b", "c"], ("B", "x", "y"), "the class name 'B' would go to the value 'a'"),
        ([1, 2, 3], ("x", "1.0", "z"), "the class name '1.0' would go to the value '2'"),
        ([1, 2, 3], ("x", "y", "x"), "two classes of .* are called 'x'; give each value a name of its own"),
    ],
)
def test_classes_that_may_mean_two_things(
    tmp_path: Path, values: list[Any], classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        table_file(written(tmp_path, people(ill=values * 20)), replace(SCHEMA, classes=classes))


@pytest.mark.parametrize(
    ("dtype", "classes", "names"),
    [
        (pl.Enum(["none", "low", "mid", "high"]), (), ["ill low", "ill mid", "ill high"]),
        (pl.Enum(["none", "low", "mid", "high"]), ("1st", "2nd", "3rd"), ["1st", "2nd", "3rd"]),
        (pl.Enum(["none", "low", "mid", "high"]), ("high", "mid", "low"), ["high", "mid", "low"]),
        (pl.Categorical, (), ["ill high", "ill low", "ill mid"]),
    ],
)
def test_an_ordered_enum_has_an_order_of_its_own(
    tmp_path: Path, dtype: Any, classes: tuple[str, ...], names: list[str]
) -> None:
    values = pl.Series(["low"] * 30 + ["mid"] * 20 + ["high"] * 10, dtype=dtype)
    data = table_file(written(tmp_path, people(ill=values), "parquet"), replace(SCHEMA, classes=classes))
    sizes = {"low": 30, "mid": 20, "high": 10, "1st": 30, "2nd": 20, "3rd": 10}
    assert data.classes == names
    assert counts(data) == {name: sizes[name.removeprefix("ill ")] for name in names}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_long_codes_name_categories_and_classes(tmp_path: Path, ending: str) -> None:
    codes = [1234567.0, 1234568.0, None]
    path = written(tmp_path, people(race=codes * 20, ill=[9007199254740992, 9007199254740993] * 30), ending)
    data = table_file(path, replace(SCHEMA, missing="median"))
    assert [name for name in data.features if name.startswith("race")] == [
        "race=1234567", "race=1234568", "race=missing",
    ]  # fmt: skip
    assert counts(data) == {"ill 9007199254740992": 30, "ill 9007199254740993": 30}


def test_codes_with_leading_zeros_stay_what_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, people(race=["007", "7", "070"] * 20, weight=["070.5", "071", "NA"] * 20))
    data = table_file(path, replace(SCHEMA, missing="median"))
    assert data.features[1:6] == ["height", "weight", "race=007", "race=070", "race=7"]


def test_a_value_that_may_be_missing_is_refused_until_somebody_says_what_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, people(ill=["None", "Mild", "Severe"] * 20, id=["NA"] * 60))
    with pytest.raises(InputError, match=r"the column 'ill' of .* holds 'None' in 20 rows, a value or a missing one"):
        table_file(path, SCHEMA)
    present = table_file(path, replace(SCHEMA, missing_values=[""]))
    assert counts(present) == {"ill Mild": 20, "ill None": 20, "ill Severe": 20}
    assert present.notes == ()
    missing = table_file(path, replace(SCHEMA, missing_values=["", "None"]))
    assert counts(missing) == {"ill Mild": 20, "ill Severe": 20}
    assert missing.notes == ("20 of 60 rows have no ill and are left out.",)


def test_what_is_left_out_or_filled_is_noted(tmp_path: Path) -> None:
    frame = holed().with_columns(ill=pl.Series([None, *[0, 1] * 29, 1]))
    path = written(tmp_path, frame)
    label = "1 of 60 rows has no ill and is left out."
    dropped = table_file(path, replace(SCHEMA, missing="drop"))
    lacking = sum(row % 7 == 0 or row % 5 == 0 for row in range(1, 60))
    assert dropped.notes == (
        label, f"{lacking} of 60 rows have no value in some feature, most often smokes, and are left out.",
    )  # fmt: skip
    filled = table_file(path, replace(SCHEMA, missing="median"))
    assert filled.notes == (label, "8 missing values are filled with the training part's median, most often in weight.")
    assert table_file(written(tmp_path, people()), SCHEMA).notes == ()


def test_a_file_of_semicolons_and_commas_gives_the_same(tmp_path: Path) -> None:
    frame = people().with_columns(pl.col(pl.Float64).round(2))
    points, commas = written(tmp_path, frame), tmp_path / "commas.csv"
    commas.write_text(points.read_text().replace(",", ";").replace(".", ","), encoding="utf-16")
    actual, expected = table_file(commas, SCHEMA), table_file(points, SCHEMA)
    assert (actual.features, actual.classes) == (expected.features, expected.classes)
    assert replace(actual, name=expected.name).check() == expected.check()


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
    assert len(rows_of(dropped)[0]) == sum(row % 7 != 0 and row % 5 != 0 for row in range(60))
    filled = table_file(path, replace(SCHEMA, missing="median"))
    assert len(rows_of(filled)[0]) == 60
    assert "smokes=missing" in filled.features
    assert int(rows_of(filled)[0][:, list(filled.features).index("smokes=missing")].sum()) == 12
    weight = list(filled.features).index("weight")
    values, counts = rows_of(filled)[0][:, weight].unique(return_counts=True)
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
    assert len(rows_of(data)[0]) == 50
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
    inputs, labels = rows_of(data)
    assert data.features == ["AGE", "WEIGHT", "CLINIC=Genève", "CLINIC=Zürich"]
    assert len(inputs) == 23
    assert int(labels.sum()) == 11
    assert int(inputs[:, 2].sum()) == 8
    (tmp_path / "half.sas7bdat").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "half.sas7bdat")


def test_a_category_that_only_held_out_rows_have_is_no_column(tmp_path: Path) -> None:
    frame = people()
    data = table_file(written(tmp_path, frame), SCHEMA, seed=1)
    order = rows_of(data)[0]
    rows = [int((order == row).all(dim=1).nonzero()[0]) for row in data.test.inputs]  # type: ignore[attr-defined]
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


def test_too_few_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few to split"):
        table_file(written(tmp_path, people(5)), SCHEMA)


def test_poison_of_such_a_table_stays_legal(tmp_path: Path) -> None:
    data = table_file(written(tmp_path, people()), SCHEMA)
    base = data.train.inputs  # type: ignore[attr-defined]
    legal = Legal(columns={list(data.features).index(name): column for name, column in data.columns.items()})
    wild = base + torch.randn(base.shape, generator=torch.Generator().manual_seed(0))
    poison = Budget(fraction=0.1, epsilon=0.2).project(wild, base, legal)
    age, weight = data.features.index("age"), data.features.index("weight")
    years = poison[:, age] / data.columns["age"].step
    torch.testing.assert_close(years, years.round(), atol=1e-3, rtol=0)
    moved = {name for index, name in enumerate(data.features) if not torch.equal(poison[:, index], base[:, index])}
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
    inputs, labels = rows_of(data)
    assert len(inputs) == 4502
    assert labels.sum() == 589
    assert len(data.check()) == 64


@pytest.mark.parametrize(
    ("values", "classes", "first"),
    [
        (["low", "medium", "high"], ["risk low", "risk medium", "risk high"], "low"),
        (["true", "false"], ["1", "0"], "true"),
        (["0", "1"], ["True", "False"], "1"),
    ],
)
def test_other_spellings_of_the_values_are_their_names_too(
    values: list[str], classes: list[str], first: str, tmp_path: Path
) -> None:
    path = tmp_path / "people.csv"
    rows = [values[0], *values] * 30  # the first twice as often
    path.write_text("x,risk\n" + "".join(f"{row},{value}\n" for row, value in enumerate(rows)))
    data = table_file(path, Schema(label="risk", classes=tuple(classes)))
    counts = sum(part.labels.bincount(minlength=len(classes)) for part in (data.train, data.validation, data.test))
    assert counts[0] == rows.count(first)  # type: ignore[index]


@pytest.mark.parametrize("text", ["n/a", "na", "<NA>", "#N/A", "none", "Null", "NAN"])
def test_every_spelling_of_a_missing_label_is_asked_about(text: str, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("x,risk\n" + "".join(f"{row},{['low', 'high', text][row % 3]}\n" for row in range(90)))
    with pytest.raises(InputError, match="a value or a missing one"):
        table_file(path, Schema(label="risk"))


def test_a_path_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": range(60), "y": [row % 2 for row in range(60)]})
    frame.write_parquet(tmp_path / "data[1].parquet")
    frame.with_columns(z=pl.col("x") * 2).write_parquet(tmp_path / "data1.parquet")
    assert list(table_file(tmp_path / "data[1].parquet", Schema(label="y")).features) == ["x"]
