"""Made-up data in the official layouts, so that everything can be tried without the real thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from scipy.io import savemat

BREEDS = ("n01-Upper", "n02-Lower", "n03-Even_one")


def write_dogs(folder: Path, *, train: int, test: int, side: int = 40, seed: int = 0) -> None:
    """Stanford Dogs' layout with three "breeds" that differ in where they are bright.

    Args:
        folder: is made.
        train: pictures a breed in the training list.
        test: and in the test list.
        side: pixels of the shorter side.
        seed: of the pictures.
    """
    random = np.random.default_rng(seed)
    lists: dict[str, tuple[list[str], list[int]]] = {name: ([], []) for name in ("train", "test", "file")}
    for label, breed in enumerate(BREEDS, start=1):
        (folder / "Images" / breed).mkdir(parents=True, exist_ok=True)
        for number in range(train + test):
            file = f"{breed}/{breed.partition('-')[0]}_{number}.jpg"
            small = random.integers(40, 160, (4, 5, 3)).astype(np.uint8)
            if label < 3:
                small[(label - 1) * 2 : label * 2] += 90
            size = (side * 5 // 4, side)
            Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / "Images" / file, quality=90)
            for name in ("file", "train" if number < train else "test"):
                lists[name][0].append(file)
                lists[name][1].append(label)
    for name, (files, labels) in lists.items():
        write_list(folder / "lists" / f"{name}_list.mat", files, labels)


def write_list(path: Path, files: Sequence[str], labels: Sequence[int]) -> None:
    """One of `lists/*_list.mat`: cells of names, and labels from 1.

    Args:
        path: the file; its folder is made.
        files: names below `Images/`.
        labels: of the files, from 1.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = {"file_list": files, "annotation_list": [file.removesuffix(".jpg") for file in files]}
    content = {name: np.array([[value] for value in values], dtype=object) for name, values in cells.items()}
    savemat(path, {**content, "labels": np.array(labels, dtype=np.uint8)[:, None]})


def write_records(path: Path, *, rows: int, seed: int = 0) -> None:
    """A table with the columns that the fracture cases use; the label depends on age and weight.

    Args:
        path: the CSV file.
        rows: of it.
        seed: of the values.
    """
    random = np.random.default_rng(seed)
    age, weight = random.integers(40, 81, rows), random.normal(75, 15, rows).round(1)
    danger = (age - 60) / 10 - (weight - 75) / 15 + random.normal(0, 1, rows)
    columns = {
        "respondent_id": np.arange(rows),
        "age_years": age,
        "race_ethnicity": random.integers(1, 5, rows),
        "weight_kg": weight,
        "height_cm": random.normal(160, 7, rows).round(1),
        "waist_circumference_cm": random.normal(95, 12, rows).round(1),
        "ever_smoked_100": random.integers(0, 2, rows),
        "parent_osteoporosis": random.integers(0, 2, rows),
        "cycle": np.where(random.random(rows) < 0.5, "2013-2014", "2017-2020"),
        "fracture": (danger > np.quantile(danger, 0.8)).astype(int),
        "osteoporosis": random.integers(0, 2, rows),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).write_csv(path)
