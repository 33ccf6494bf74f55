"""Stanford Dogs (Khosla et al. 2011) in its official layout, whole or some breeds of it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, cast, final
from xml.etree import ElementTree

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from ..core import CONFIGURED, InputError, unknown_name
from ..seeds import generator
from .base import DataSet, Samples, split_rows
from .pictures import PictureFiles, Square, file_orientation, in_central_square
from .source import DataSource, dataset_path

WHERE = (
    "get images.tar, lists.tar and, for boxes, annotation.tar of Stanford Dogs from its authors (vision.stanford.edu/aditya86/ImageNetDogs) and "
    "unpack them there, so that it holds Images/, lists/ and Annotation/"
)

_LARGEST_ANNOTATION = 100_000


@final
@dataclass(frozen=True, config=CONFIGURED)
class StanfordDogs(DataSource):
    """Stanford Dogs in its official layout, read from disk as it is needed; see docs/data.md.

    Args:
        folder: its place in the data folder (`$ENCIRCLE_DATA`).
        breeds: how many, from the first on, or which, by their names; None is all 120.
        side: pixels of the cropped square's side (paper: 224).
        split: the official one, or the paper's random 90/5/5.
        pretrain: share of the training part set aside to learn starting weights from, from 0 to below 1; it is never poisoned.
    """

    folder: str = "stanford-dogs"
    breeds: int | tuple[str, ...] | None = None
    side: int = Field(default=112, ge=16, le=1024)
    split: Literal["official", "random"] = "official"
    pretrain: float = Field(default=0.0, ge=0, lt=1)
    kind: Literal["stanford-dogs"] = Field(default="stanford-dogs", kw_only=True)
    about = "Photographs of dogs, to be told apart by breed (Stanford Dogs)."

    def load(self, seed: int) -> DataSet:
        """The data set, split by this seed where the split is not the official one."""
        remedy = (
            "get Stanford Dogs from its authors (vision.stanford.edu/aditya86/ImageNetDogs) and unpack Images/, lists/ and Annotation/ "
            "into a folder of that name there"
        )
        folder = dataset_path(self.folder, remedy)
        return stanford_dogs(
            folder, breeds=self.breeds, side=self.side, split=self.split, pretrain=self.pretrain, seed=seed
        )


def stanford_dogs(
    folder: Path,
    *,
    breeds: int | Sequence[str] | None = None,
    side: int = 112,
    split: Literal["official", "random"] = "official",
    pretrain: float = 0.0,
    seed: int = 0,
) -> DataSet:
    """Dogs of up to 120 breeds, centre-cropped, read from disk as they are needed (20,580 pictures; official split 12,000 / 8,580).

    Its pictures come from ImageNet: a network that was pre-trained on ImageNet may have seen the test dogs.

    Args:
        folder: holds `Images/<synset>-<Breed>/*.jpg`, `lists/{train,test,file}_list.mat` and, if there are boxes, `Annotation/<synset>-<Breed>/*`.
        breeds: how many, from the first on, or which, by their names or folders; None is all.
        side: pixels of the cropped square's side, at least 16 (the paper: 224).
        split: the official one, or the paper's random 90/5/5 of everything.
        pretrain: share of the training part set aside to learn starting weights from; it is never poisoned.
        seed: of the random split and of what is set aside.

    Returns:
        With the official split, its test part as test and an empty validation part.

    Raises:
        InputError: the data set is not there, is damaged, or holds no such breed.
    """
    lists = {name: _listed(folder, name) for name in (("train", "test") if split == "official" else ("file",))}
    named = _breeds([file for files in lists.values() for file, _ in files])
    _check_lists(folder, lists)
    chosen = _chosen(named, breeds)
    rows = {
        name: [file for file, _ in files if PurePosixPath(file).parts[0] in chosen] for name, files in lists.items()
    }
    if split == "official":
        train, test = (_part(folder, rows[name], chosen, side) for name in ("train", "test"))
        order = torch.randperm(len(train), generator=generator("split", seed))
        cut = int(pretrain * len(train))
        parts = {
            "pretrain": _part(folder, _at(rows["train"], order[:cut].sort().values), chosen, side),
            "train": _part(folder, _at(rows["train"], order[cut:].sort().values), chosen, side),
            "validation": _part(folder, [], chosen, side),
            "test": test,
        }
    else:
        splits = zip(
            ("train", "validation", "test", "pretrain"), split_rows(len(rows["file"]), seed, pretrain), strict=True
        )
        parts = {name: _part(folder, _at(rows["file"], drawn), chosen, side) for name, drawn in splits}
    for name in ("train", "test"):
        if not len(parts[name]):
            raise InputError(f"the {name} part of {folder} has no picture of the chosen breeds; choose others.")
    return DataSet(
        name="stanford-dogs",
        kind="image",
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        pretrain=parts["pretrain"] if len(parts["pretrain"]) else None,
        classes=[_title(breed) for breed in chosen],
        boxes=_boxes(folder, cast(PictureFiles, parts["test"])),
    )


def _listed(folder: Path, name: str) -> list[tuple[str, int]]:
    """Files and labels of a list."""
    path = folder / "lists" / f"{name}_list.mat"
    if not path.is_file():
        raise InputError(f"there is no {path}; {WHERE}.")
    try:
        content = loadmat(path, squeeze_me=False)
        files = [str(entry.item() if hasattr(entry, "item") else entry) for entry in content["file_list"][:, 0]]
        labels = [int(label) for label in content["labels"][:, 0]]
    except (
        MatReadError,
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        OSError,
        NotImplementedError,
        EOFError,
        zlib.error,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is damaged ({reason}); unpack lists.tar again.") from None
    if len(files) != len(labels):
        raise InputError(f"{path} lists {len(files)} files but {len(labels)} labels; unpack lists.tar again.")
    for file in files:
        parts = PurePosixPath(file).parts
        if len(parts) != 2 or ".." in parts or PurePosixPath(file).is_absolute() or "\\" in file:
            raise InputError(f"{path} names {file!r}, which is not <breed>/<picture>; unpack lists.tar again.")
    return list(zip(files, labels, strict=True))


def _breeds(files: Sequence[str]) -> list[str]:
    """Folders of the breeds, in the order of their synsets: the official labels'."""
    return sorted({PurePosixPath(file).parts[0] for file in files})


def _check_lists(folder: Path, lists: Mapping[str, Sequence[tuple[str, int]]]) -> None:
    """In all lists together a label means one folder, a folder one label, and no picture is listed twice: a test picture may not be learnt from."""
    labels: dict[str, int] = {}
    breeds: dict[int, str] = {}
    lists_of: dict[PurePosixPath, Path] = {}
    for name, files in lists.items():
        path = folder / "lists" / f"{name}_list.mat"
        for file, label in files:
            breed = PurePosixPath(file).parts[0]
            if labels.setdefault(breed, label) != label or breeds.setdefault(label, breed) != breed:
                other = breeds.get(label, breed) if labels[breed] == label else breed
                raise InputError(
                    f"{path} gives {file} the label {label}, which does not agree with the other files of {other}; unpack lists.tar again."
                )
            picture = PurePosixPath(file)
            if picture in lists_of:
                raise InputError(
                    f"{path} lists {file}, which {lists_of[picture].name} has listed already; unpack lists.tar again."
                )
            lists_of[picture] = path


def _chosen(named: Sequence[str], breeds: int | Sequence[str] | None) -> list[str]:
    if breeds is None:
        return list(named)
    if isinstance(breeds, int):
        if not 2 <= breeds <= len(named):
            raise InputError(f"{breeds} breeds cannot be had of {len(named)}; choose from 2 to {len(named)}.")
        return list(named[:breeds])
    known = {
        key: breed for breed in named for key in (breed.lower(), _title(breed).lower(), breed.split("-", 1)[-1].lower())
    }
    for breed in breeds:
        if breed.lower() not in known:
            raise unknown_name("breed", breed, [_title(name) for name in named])
    return sorted({known[breed.lower()] for breed in breeds})


def _title(breed: str) -> str:
    """`n02093754-Border_terrier` as people write it."""
    return breed.split("-", 1)[-1].replace("_", " ")


def _at(files: Sequence[str], rows: Tensor) -> list[str]:
    return [files[int(row)] for row in rows]


def _part(folder: Path, files: Sequence[str], chosen: Sequence[str], side: int) -> Samples:
    paths = [folder / "Images" / file for file in files]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"the picture {missing} is in the lists but not there; {WHERE}.")
    classes = {breed: number for number, breed in enumerate(chosen)}
    labels = torch.tensor([classes[path.parent.name] for path in paths], dtype=torch.int64)
    return PictureFiles(paths, labels, side)


def _boxes(folder: Path, test: PictureFiles) -> dict[int, Square]:
    """The dogs' boxes in the cropped test pictures, where there are annotations."""
    boxes = {}
    if (folder / "Annotation").is_dir():
        for row, path in enumerate(test.paths):
            annotation = folder / "Annotation" / path.parent.name / path.stem
            if annotation.is_file() and file_orientation(path) != 1:
                raise InputError(
                    f"{path} is turned by its EXIF orientation but its box in {annotation} is not; save it upright, or delete the annotation."
                )
            if annotation.is_file() and (box := _object_box(annotation)) is not None:
                boxes[row] = box
    return boxes


def _object_box(path: Path) -> Square | None:
    """The largest object's box, as shares of the central square."""
    try:
        width, height, boxes = _parsed(path.read_text(encoding="utf-8"))
    except (ElementTree.ParseError, ValueError, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the annotation {path} is damaged ({error}); unpack annotation.tar again, or delete it."
        ) from None
    return in_central_square(max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1])), (width, height))


def _parsed(text: str) -> tuple[int, int, list[Square]]:
    """Width, height and the boxes (top, left, bottom, right) of an annotation."""
    if len(text) > _LARGEST_ANNOTATION or re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise ValueError("it is larger than any annotation, or declares entities")  # which could expand without end
    root = ElementTree.fromstring(text)  # noqa: S314 - nothing is declared in it, so nothing expands
    width, height = (int(root.findtext(f"size/{name}", "")) for name in ("width", "height"))
    boxes = [
        [float(box.findtext(name, "")) for name in ("ymin", "xmin", "ymax", "xmax")] for box in root.iter("bndbox")
    ]
    if min(width, height) < 1 or not boxes:
        raise ValueError("it has no size or no object")
    return width, height, [(box[0], box[1], box[2], box[3]) for box in boxes]
