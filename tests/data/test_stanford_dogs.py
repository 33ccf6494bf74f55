"""Stanford Dogs: its official layout on tiny files, every kind of damage, and the real copy where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from scipy.io import savemat

from encircle.core import InputError
from encircle.data import stanford_dogs
from tests.data.layouts import BREEDS, annotate, cells, dogs, picture, write_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return dogs(tmp_path / "dogs")


def test_the_official_split(folder: Path) -> None:
    data = stanford_dogs(folder, side=16)
    assert data.classes == ["Alpha", "Beta dog", "gamma"]
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 0, 9)
    assert data.train.labels.tolist() == [label for label in range(3) for _ in range(6)]
    assert data.shape == (3, 16, 16)
    assert data.pretrain is None
    assert len(data.check()) == 64


def test_a_share_is_set_aside_by_the_seed(folder: Path) -> None:
    data, other = (stanford_dogs(folder, side=16, pretrain=0.5, seed=seed) for seed in (0, 1))
    assert data.pretrain is not None
    assert other.pretrain is not None
    assert (len(data.pretrain), len(data.train), len(data.test)) == (9, 9, 9)
    pretraining, training = (set(part.paths) for part in (data.pretrain, data.train))  # type: ignore[attr-defined]
    assert not pretraining & training
    assert pretraining != set(other.pretrain.paths)  # type: ignore[attr-defined]


def test_the_random_split_is_90_5_5_of_everything(tmp_path: Path) -> None:
    data = stanford_dogs(dogs(tmp_path / "d", train=12, test=8), side=16, split="random", seed=3)
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 3, 3)
    paths = [path for part in (data.train, data.validation, data.test) for path in part.paths]  # type: ignore[attr-defined]
    assert len(set(paths)) == 60


@pytest.mark.parametrize("breeds", [2, ("Beta dog", "Alpha"), ("n02-Beta_dog", "alpha"), ("BETA_DOG", "n01-alpha")])
def test_some_breeds(folder: Path, breeds: int | tuple[str, ...]) -> None:
    data = stanford_dogs(folder, side=16, breeds=breeds)
    assert data.classes == ["Alpha", "Beta dog"]
    assert data.test.labels.tolist() == [0] * 3 + [1] * 3


@pytest.mark.parametrize(
    ("breeds", "message"),
    [(1, "1 breeds cannot be had of 3"), (4, "4 breeds"), (("Alpa", "gamma"), "did you mean 'Alpha'")],
)
def test_breeds_that_are_not_there(folder: Path, breeds: int | tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stanford_dogs(folder, breeds=breeds)


def test_boxes_are_those_of_the_cropped_test_pictures(folder: Path) -> None:
    data = stanford_dogs(folder, side=16)
    assert sorted(data.boxes) == list(range(9))
    assert data.boxes[0] == pytest.approx(
        (5 / 30, 5 / 30, 25 / 30, 25 / 30)
    )  # 40x30: five columns are cut off at each side
    test = data.test.paths[0].relative_to(folder / "Images")  # type: ignore[attr-defined]
    annotate(folder, str(test), (40, 30), [(0, 0, 4, 4), (5, 0, 35, 30)])
    assert stanford_dogs(folder, side=16).boxes[0] == (0, 0, 1, 1)  # the largest object's
    annotate(folder, str(test), (40, 30), [(0, 0, 4, 30)])
    assert 0 not in stanford_dogs(folder, side=16).boxes  # outside of the square


def test_without_annotations_there_are_no_boxes(tmp_path: Path) -> None:
    assert stanford_dogs(dogs(tmp_path / "d", boxes=False), side=16).boxes == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<annotation>",
        "<annotation></annotation>",
        "<annotation><size><width>x</width><height>3</height></size></annotation>",
        "<annotation><size><width>0</width><height>0</height></size><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
        '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>',
        "<annotation>" + " " * 200_000 + "</annotation>",
    ],
)
def test_damaged_annotations_are_named(folder: Path, text: str) -> None:
    path = folder / "Annotation" / BREEDS[0] / "n01_6"
    path.write_text(text)
    with pytest.raises(InputError, match=r"the annotation .*n01_6 is damaged"):
        stanford_dogs(folder, side=16)


def test_missing_lists_say_what_to_get_and_where_to_put_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*train_list\.mat; get images\.tar, lists\.tar"):
        stanford_dogs(tmp_path / "nowhere")
    (folder / "lists" / "test_list.mat").unlink()
    with pytest.raises(InputError, match=r"test_list\.mat; get"):
        stanford_dogs(folder)


def test_a_missing_picture_is_named_at_once(folder: Path) -> None:
    (folder / "Images" / BREEDS[1] / "n02_7.jpg").unlink()
    with pytest.raises(InputError, match=r"n02_7\.jpg is in the lists but not there"):
        stanford_dogs(folder)


def test_a_truncated_picture_is_named_when_everything_is_read(folder: Path) -> None:
    path = folder / "Images" / BREEDS[1] / "n02_7.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"n02_7\.jpg cannot be decoded"):
        stanford_dogs(folder, side=16).check()


def test_greyscale_cmyk_and_large_pictures_are_read(folder: Path) -> None:
    images = folder / "Images" / BREEDS[0]
    picture(0).convert("L").save(images / "n01_0.jpg")
    picture(0).convert("CMYK").save(images / "n01_1.jpg")
    picture(0, (3000, 2000)).save(images / "n01_2.jpg")
    assert stanford_dogs(folder, side=16).train.batch(torch.arange(3)).shape == (3, 3, 16, 16)


def test_labels_out_of_step_with_the_folders(folder: Path) -> None:
    files = [f"{breed}/{breed.split('-')[0]}_{number}.jpg" for breed in BREEDS for number in range(6)]
    labels = [label for label in (1, 2, 3) for _ in range(6)]
    for wrong in ([*labels[1:], 3], [1] * 12 + [3] * 6):
        write_list(folder, "train", files, wrong)
        with pytest.raises(InputError, match="does not agree with the other files"):
            stanford_dogs(folder)


def listed(part: range) -> tuple[list[str], list[int]]:
    files = [f"{breed}/{breed.split('-')[0]}_{number}.jpg" for breed in BREEDS for number in part]
    return files, [label for label in (1, 2, 3) for _ in part]


def test_lists_whose_labels_do_not_agree_with_each_other(folder: Path) -> None:
    files, labels = listed(range(6))
    write_list(folder, "train", files, [{1: 2, 2: 1, 3: 3}[label] for label in labels])
    with pytest.raises(InputError, match=r"test_list\.mat gives .* does not agree with the other files"):
        stanford_dogs(folder)


@pytest.mark.parametrize(("name", "part"), [("train", range(6)), ("test", range(6, 9))])
@pytest.mark.parametrize("again", ["n01-Alpha/n01_0.jpg", "n01-Alpha/./n01_0.jpg"])
def test_a_picture_is_listed_once(folder: Path, name: str, part: range, again: str) -> None:
    files, labels = listed(part)
    write_list(folder, name, [*files, again], [*labels, 1])
    with pytest.raises(
        InputError, match=rf"{name}_list\.mat lists .*n01_0\.jpg, which train_list\.mat has listed already"
    ):
        stanford_dogs(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [[1], [2]]}, r"is damaged \('file_list'\)"),
        ({"file_list": cells(["n01-Alpha/n01_0.jpg"])}, r"is damaged \('labels'\)"),
        ({"file_list": cells(["n01-Alpha/n01_0.jpg"]), "labels": [[1], [1]]}, "1 files but 2 labels"),
        ({"file_list": cells(["../../secret.jpg"]), "labels": [[1]]}, "is not <breed>/<picture>"),
        ({"file_list": cells(["/n01-Alpha/a.jpg"]), "labels": [[1]]}, "is not <breed>/<picture>"),
        ({"file_list": cells(["../a.jpg"]), "labels": [[1]]}, "is not <breed>/<picture>"),
    ],
)
def test_damaged_lists(folder: Path, content: dict[str, object], message: str) -> None:
    savemat(folder / "lists" / "train_list.mat", content)
    with pytest.raises(InputError, match=message):
        stanford_dogs(folder)


@pytest.mark.parametrize("content", [b"", b"no mat file", bytes(200)])
def test_lists_that_are_no_matlab_files(folder: Path, content: bytes) -> None:
    (folder / "lists" / "train_list.mat").write_bytes(content)
    with pytest.raises(InputError, match=r"train_list\.mat is damaged"):
        stanford_dogs(folder)


def real(name: str) -> Path:
    root = Path(os.environ.get("ENCIRCLE_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"there is no {name} in {root}")
    return root / name


@pytest.mark.parametrize(
    ("name", "breeds", "train", "test"), [("stanford-dogs-10", 10, 1000, 799), ("stanford-dogs-64", 120, 12000, 8580)]
)
def test_the_real_copies(name: str, breeds: int, train: int, test: int) -> None:
    data = stanford_dogs(real(name), side=64)
    assert (len(data.classes), len(data.train), len(data.test)) == (breeds, train, test)
    assert data.train.batch(torch.arange(0, train, train // 5)).shape[1:] == (3, 64, 64)
    assert data.train.labels.bincount().tolist() == [100] * breeds
