"""Data sets that a case names: found in the data folder and nowhere else, and refused with what to get."""

from __future__ import annotations

from pathlib import Path

import pytest

from encircle.audit import Audit, Case
from encircle.audit.case_file import read_case
from encircle.audit.identity import run_identity
from encircle.core import InputError
from encircle.data import StanfordDogs, TableFile
from encircle.data.source import dataset_path
from encircle.reproduce.generated import write_dogs, write_records


def test_the_data_folder_is_the_environment_s_or_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "data", tmp_path / "elsewhere"):
        (folder / "a").mkdir(parents=True)
    monkeypatch.delenv("ENCIRCLE_DATA", raising=False)
    assert dataset_path("a", "").resolve() == tmp_path / "data" / "a"
    monkeypatch.setenv("ENCIRCLE_DATA", str(tmp_path / "elsewhere"))
    assert dataset_path("a", "").resolve() == tmp_path / "elsewhere" / "a"


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.csv", "a/../../secret.csv"])
def test_a_case_cannot_read_outside_of_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCIRCLE_DATA", str(tmp_path / "data"))
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    for data in (TableFile(path=name, label="a"), StanfordDogs(folder=name)):
        with pytest.raises(InputError, match="data is named by its place in the data folder"):
            data.load(0)


def test_where_data_are_to_be_had_does_not_decide_what_a_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCIRCLE_DATA", str(tmp_path))
    write_records(tmp_path / "records.csv", rows=120)
    content = {
        "data": {"kind": "table", "path": "records.csv", "label": "fracture", "dropped": ["osteoporosis"]},
        "model": {"kind": "two-layer"},
        "explainer": {"kind": "grad"},
        "goal": {"kind": "features", "count": 2},
    }
    ids = set()
    for source in ("here", "there"):
        content["data"]["source"] = source
        content["data"]["categorical"] = ["race_ethnicity", "cycle"]
        content["data"]["missing"] = "median"
        audit = Audit.from_case(Case.model_validate({**content, "targets": 1}))
        ids.add(run_identity(audit, "data"))
    assert len(ids) == 1
    assert run_identity(audit, "other data") not in ids


def test_missing_data_say_what_to_get_from_whom_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCIRCLE_DATA", str(tmp_path))
    with pytest.raises(
        InputError, match=r"no stanford-dogs in the data folder .*; get Stanford Dogs from its authors .*ENCIRCLE_DATA"
    ):
        StanfordDogs().load(0)
    with pytest.raises(InputError, match=r"no records\.csv in the data folder"):
        TableFile(path="records.csv", label="fracture").load(0)


def test_a_case_says_what_is_missing_and_how_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCIRCLE_DATA", str(tmp_path))
    rows = "".join(f"{row};{('None', 'Mild', 'schön')[row % 3]};{('1,5', '-99')[row % 2]}\n" for row in range(60))
    (tmp_path / "records.csv").write_text("größe;risk;dose\n" + rows, encoding="cp1252")
    case = """
    data: {kind: table, path: records.csv, label: risk, dropped: [dose], encoding: WINDOWS-1252}
    model: {kind: two-layer}
    explainer: {kind: grad}
    goal: {kind: features, count: 1}
    """
    with pytest.raises(InputError, match=r"'risk' of .* holds 'None' in 20 rows"):
        Audit.from_case(read_case(case, ["targets=1"], "case"))
    audit = Audit.from_case(
        read_case(case, ["targets=1", 'data.missing_values=["", "-99"]', "data.classes=[schön, None, Mild]"], "case")
    )
    assert (audit.data.classes, audit.data.features) == (["schön", "None", "Mild"], ["größe"])
    audit = Audit.from_case(read_case(case, ["targets=1", "data.missing_values=[None]"], "case"))
    assert audit.data.notes == ("20 of 60 rows have no risk and are left out.",)


def test_cases_on_both_can_be_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCIRCLE_DATA", str(tmp_path))
    write_dogs(tmp_path / "dogs", train=6, test=3)
    write_records(tmp_path / "records.csv", rows=100)
    dogs = Audit.from_case(
        read_case(
            "data: {kind: stanford-dogs, folder: dogs, side: 32, breeds: 2}\nmodel: {kind: resnet13}",
            ["targets=1"],
            "case",
        )
    )
    assert dogs.data.classes == ["Upper", "Lower"]
    assert len(dogs.data.boxes) == 0
    table = """
    data: {kind: table, path: records.csv, label: fracture, dropped: [respondent_id, cycle], categorical: [race_ethnicity]}
    model: {kind: two-layer}
    explainer: {kind: grad}
    """
    audit = Audit.from_case(read_case(table, ["targets=1"], "case"))
    assert audit.legal.columns is not None
    assert len(audit.legal.columns) == 4
    with pytest.raises(InputError, match="3 class weights for 2 classes"):
        Audit.from_case(read_case(table, ["targets=1", "recipe.class_weights=[1, 1, 2]"], "case"))
    for keys in (
        ["recipe.augmentation=flip-and-shift"],
        ["recipe.start=checkpoint", "data.pretrain=0.3", "pretraining.augmentation=flip-and-shift"],
        ["attack.kind=imf", "attack.augmented=true"],
    ):
        with pytest.raises(InputError, match="rows of a table cannot be mirrored or shifted"):
            Audit.from_case(read_case(table, ["targets=1", *keys], "case"))
