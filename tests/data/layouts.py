"""Tiny data sets in the official layouts, made by the tests themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

BREEDS = ("n01-Alpha", "n02-Beta_dog", "n03-gamma")


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth colour picture (width, height): JPEG must not change it much."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, (4, 4, 3)).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def cells(values: Sequence[str]) -> np.ndarray:
    """A column of a MATLAB cell array of strings."""
    out = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(values):
        out[row, 0] = value
    return out


def write_list(folder: Path, name: str, files: Sequence[str], labels: Sequence[int]) -> None:
    """One of `lists/*.mat`."""
    (folder / "lists").mkdir(parents=True, exist_ok=True)
    annotations = [file.removesuffix(".jpg") for file in files]
    content = {
        "file_list": cells(files),
        "annotation_list": cells(annotations),
        "labels": np.array(labels, dtype=np.uint8)[:, None],
    }
    savemat(folder / "lists" / f"{name}_list.mat", content)


def dogs(folder: Path, *, train: int = 6, test: int = 3, boxes: bool = True, size: tuple[int, int] = (40, 30)) -> Path:
    """Stanford Dogs with three breeds and a few pictures each; returns the folder."""
    lists: dict[str, tuple[list[str], list[int]]] = {name: ([], []) for name in ("train", "test", "file")}
    for label, breed in enumerate(BREEDS, start=1):
        (folder / "Images" / breed).mkdir(parents=True)
        for number in range(train + test):
            file = f"{breed}/{breed.split('-')[0]}_{number}.jpg"
            picture(label * 100 + number, size).save(folder / "Images" / file, quality=95)
            for name in ("file", "train" if number < train else "test"):
                lists[name][0].append(file)
                lists[name][1].append(label)
            if boxes:
                annotate(folder, file, size, [(10, 5, 30, 25)])
    for name, (files, labels) in lists.items():
        write_list(folder, name, files, labels)
    return folder


def annotate(folder: Path, file: str, size: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]]) -> Path:
    """A Pascal-VOC annotation with boxes (xmin, ymin, xmax, ymax)."""
    path = folder / "Annotation" / file.removesuffix(".jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>dog</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    path.write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>{objects}</annotation>"
    )
    return path
