"""Handwritten digits that come with scikit-learn: nothing to download."""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.nn import functional as F

from ..core import CONFIGURED, InputError
from .base import DataSet, TensorSamples, split_rows
from .source import DataSource


@final
@dataclass(frozen=True, config=CONFIGURED)
class Digits(DataSource):
    """scikit-learn's handwritten digits, enlarged to `side` pixels.

    Args:
        side: pixels of the enlarged side, a multiple of 4 from 16.
        pretrain: share of the training part set aside to learn starting weights from, from 0 to below 1; it is never poisoned.
    """

    side: int = Field(default=32, ge=16, multiple_of=4)
    pretrain: float = Field(default=0.5, ge=0, lt=1)
    kind: Literal["digits"] = Field(default="digits", kw_only=True)
    about = "Handwritten digits (scikit-learn's), enlarged."

    def load(self, seed: int) -> DataSet:
        """The data set, split by this seed."""
        return digits(side=self.side, pretrain=self.pretrain, seed=seed)


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
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to load, and most data sets need none of it

    raw = load_digits()
    small = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(small, size=(side, side), mode="bilinear").clamp(0, 1)
    images = (images * 255).round() / 255  # as 8-bit files would hold them, so that poison and base share one grid
    train, validation, test, pretraining = (
        TensorSamples(images[rows], torch.tensor(raw.target)[rows]) for rows in split_rows(len(images), seed, pretrain)
    )
    return DataSet(
        name="digits",
        kind="image",
        train=train,
        validation=validation,
        test=test,
        pretrain=pretraining if len(pretraining) else None,
        classes=[f"digit {number}" for number in range(10)],
        boxes={row: _ink_box(image[0]) for row, image in enumerate(test.inputs)},
    )


def _ink_box(image: torch.Tensor) -> tuple[float, float, float, float]:
    """The bounding box of what is at least half dark."""
    ink = image >= 0.5
    rows, columns = ink.any(dim=1).nonzero()[:, 0], ink.any(dim=0).nonzero()[:, 0]
    side = image.shape[0]
    return int(rows[0]) / side, int(columns[0]) / side, (int(rows[-1]) + 1) / side, (int(columns[-1]) + 1) / side
