"""Real data that comes with scikit-learn: nothing to download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch.nn import functional as F

from ..core import InputError
from .base import DataSet, Samples, TensorSamples, split_rows


def digits(*, side: int = 32, pretrain: float = 0.5, seed: int = 0) -> DataSet:
    """1,797 handwritten digits of 8x8 pixels (Alpaydin & Kaynak 1998), enlarged.

    On the original 64 pixels an epsilon of 0.1 a pixel moves nothing; enlarging by bilinear interpolation gives the
    attacker more pixels and no further information. 32 px is a choice: it keeps an audit cheap and gives a CAM grid of 8x8.

    Args:
        side: pixels of the enlarged side, a multiple of 4 from 16.
        pretrain: share of the training part set aside to learn starting weights from; it is never poisoned.
        seed: of the 90/5/5 split.

    Raises:
        InputError: the side does not fit the CAM grid.
    """
    if side < 16 or side % 4:
        raise InputError(f"side={side} does not give a CAM grid; use a multiple of 4 from 16 up.")
    raw = load_digits()
    small = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(small, size=(side, side), mode="bilinear").clamp(0, 1)
    images = (images * 255).round() / 255  # as 8-bit files would hold them, so that poison and base share one grid
    train, validation, test, apart = (
        TensorSamples(images[rows], torch.tensor(raw.target)[rows]) for rows in split_rows(len(images), seed, pretrain)
    )
    return DataSet(
        name="digits",
        kind="image",
        train=train,
        validation=validation,
        test=test,
        pretrain=apart if len(apart) else None,
        classes=[f"digit {number}" for number in range(10)],
        boxes={row: _ink_box(image[0]) for row, image in enumerate(test.inputs)},
    )


def _ink_box(image: torch.Tensor) -> tuple[float, float, float, float]:
    """The bounding box of what is at least half dark."""
    ink = image >= 0.5
    rows, columns = ink.any(dim=1).nonzero()[:, 0], ink.any(dim=0).nonzero()[:, 0]
    side = image.shape[0]
    return int(rows[0]) / side, int(columns[0]) / side, (int(rows[-1]) + 1) / side, (int(columns[-1]) + 1) / side


def breast_cancer(*, pretrain: float = 0.3, seed: int = 0) -> DataSet:
    """569 records of 30 measurements of cell nuclei (Wolberg, Street & Mangasarian 1995): malignant or benign.

    Columns are scaled to [0, 1] by the minimum and maximum over everything but the held-out parts, which are cut to that range.

    Args:
        pretrain: share of the training part set aside to learn starting weights from; it is never poisoned.
        seed: of the 90/5/5 split.
    """
    raw = load_breast_cancer()
    values = torch.tensor(raw.data, dtype=torch.float32)
    train, validation, test, apart = split_rows(len(values), seed, pretrain)
    seen = values[torch.cat([train, apart])]
    low, high = seen.amin(dim=0), seen.amax(dim=0)
    scaled = ((values - low) / (high - low)).clamp(0, 1)

    def part(rows: torch.Tensor) -> Samples:
        return TensorSamples(scaled[rows], torch.tensor(raw.target)[rows])

    return DataSet(
        name="breast-cancer",
        kind="table",
        train=part(train),
        validation=part(validation),
        test=part(test),
        pretrain=part(apart) if len(apart) else None,
        classes=[str(name) for name in raw.target_names],
        features=[str(name) for name in raw.feature_names],
    )
