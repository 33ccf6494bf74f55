"""A data set that was saved and loaded is the same data set, to the last bit, in memory or read from the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from encircle.core import StorageError
from encircle.data import DataSet, TensorSamples, breast_cancer, digits
from encircle.study import saved_data
from encircle.study.saved_data import load_data, save_data
from encircle.threat import Column


def pixels(*, whole: bool) -> DataSet:
    """Images of whole 8-bit steps, or of anything; with boxes, and no validation part."""
    random = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (9, 3, 4, 5), generator=random).float() / 255
    inputs = values if whole else torch.rand(values.shape, generator=random)
    labels = torch.arange(9) % 2
    return DataSet(
        name="pixels",
        kind="image",
        train=TensorSamples(inputs[:5], labels[:5]),
        validation=TensorSamples(inputs[:0], labels[:0]),
        test=TensorSamples(inputs[5:], labels[5:]),
        pretrain=None,
        classes=["a", "b"],
        boxes={1: (0.0, 0.25, 0.5, 1.0)},
    )


def table() -> DataSet:
    whole = breast_cancer(pretrain=0.3, seed=1)
    names = whole.features
    columns = {names[0]: Column(kind="integer"), names[3]: Column(kind="immutable")}
    return DataSet(**{**vars(whole), "columns": columns})


@pytest.mark.parametrize("limit", [1 << 30, 0])
@pytest.mark.parametrize(
    "data",
    [pixels(whole=True), pixels(whole=False), table(), digits(side=16, pretrain=0.5, seed=2)],
    ids=["bytes", "floats", "table", "digits"],
)
def test_the_same_data(data: DataSet, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_data, "_IN_MEMORY", limit)
    save_data(data, tmp_path)
    again = load_data(tmp_path)
    assert again.check() == data.check()
    for field in ("name", "kind", "classes", "features", "boxes", "columns", "shape"):
        mine, theirs = getattr(again, field), getattr(data, field)
        assert (list(mine) if isinstance(theirs, list | tuple) else mine) == (
            list(theirs) if isinstance(theirs, list | tuple) else theirs
        )
    for part in ("train", "validation", "test", "pretrain"):
        mine, theirs = getattr(again, part), getattr(data, part)
        assert (mine is None) == (theirs is None)
        if theirs is not None and len(theirs):
            rows = torch.tensor([len(theirs) - 1, 0, len(theirs) // 2])
            assert torch.equal(mine.batch(rows), theirs.batch(rows))
            assert torch.equal(mine.labels, theirs.labels)
    assert repr(sorted(again.columns.items())) == repr(sorted(data.columns.items()))  # part of a run's id


def test_whole_steps_take_a_byte(tmp_path: Path) -> None:
    save_data(pixels(whole=True), tmp_path)
    assert np.load(tmp_path / "train.npy").dtype == np.uint8
    save_data(pixels(whole=False), tmp_path)
    assert np.load(tmp_path / "train.npy").dtype == np.float32


@pytest.mark.parametrize("damage", ["data.json", "train.npy", "test.npy"])
@pytest.mark.parametrize("how", ["gone", "garbage", "cut"])
def test_damage_is_named(damage: str, how: str, tmp_path: Path) -> None:
    save_data(pixels(whole=True), tmp_path)
    path = tmp_path / damage
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"garbage" if how == "garbage" else path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StorageError, match="is missing or damaged"):
        load_data(tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_the_files_are_those_that_numpy_writes(whole: bool, tmp_path: Path) -> None:
    data = pixels(whole=whole)
    save_data(data, tmp_path)
    inputs = data.train.batch(torch.arange(len(data.train)))
    np.save(tmp_path / "expected.npy", (inputs * 255).round().to(torch.uint8).numpy() if whole else inputs.numpy())
    assert (tmp_path / "train.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_a_full_disk_is_a_storage_error_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from encircle.core import StorageError
from encircle.data import breast_cancer
from encircle.study.saved_data import save_data
data = breast_cancer(pretrain=0.0, seed=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # what a full disk does to a write, without filling one
try:
    save_data(data, Path(sys.argv[1]))
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {tmp_path / 'train.npy'}: File too large; free some space")
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_an_array_file_executes(tmp_path: Path) -> None:
    save_data(pixels(whole=True), tmp_path)
    np.save(tmp_path / "train.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(StorageError, match="is missing or damaged"):
        load_data(tmp_path)
