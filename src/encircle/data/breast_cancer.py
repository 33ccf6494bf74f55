"""The breast-cancer table that comes with scikit-learn: nothing to download."""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED
from .base import DataSet, Samples, TensorSamples, split_rows
from .source import DataSource


@final
@dataclass(frozen=True, config=CONFIGURED)
class BreastCancer(DataSource):
    """scikit-learn's breast-cancer table.

    Args:
        pretrain: share of the training part set aside to learn starting weights from, from 0 to below 1; it is never poisoned.
    """

    pretrain: float = Field(default=0.3, ge=0, lt=1)
    kind: Literal["breast-cancer"] = Field(default="breast-cancer", kw_only=True)
    about = "Measurements of cell nuclei, benign or malignant (scikit-learn's breast-cancer table)."

    def load(self, seed: int) -> DataSet:
        """The data set, split by this seed."""
        return breast_cancer(pretrain=self.pretrain, seed=seed)


def breast_cancer(*, pretrain: float = 0.3, seed: int = 0) -> DataSet:
    """569 records of 30 measurements of cell nuclei (Wolberg, Street & Mangasarian 1995): malignant or benign.

    Columns are scaled to [0, 1] by the minimum and maximum over everything but the held-out parts, which are cut to that range.

    Args:
        pretrain: share of the training part set aside to learn starting weights from; it is never poisoned.
        seed: of the 90/5/5 split.
    """
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 - slow to load, and most data sets need none of it

    raw = load_breast_cancer()
    values = torch.tensor(raw.data, dtype=torch.float32)
    train, validation, test, pretraining = split_rows(len(values), seed, pretrain)
    known = values[torch.cat([train, pretraining])]
    low, high = known.amin(dim=0), known.amax(dim=0)
    scaled = ((values - low) / (high - low)).clamp(0, 1)

    def part(rows: torch.Tensor) -> Samples:
        return TensorSamples(scaled[rows], torch.tensor(raw.target)[rows])

    return DataSet(
        name="breast-cancer",
        kind="table",
        train=part(train),
        validation=part(validation),
        test=part(test),
        pretrain=part(pretraining) if len(pretraining) else None,
        classes=[str(name) for name in raw.target_names],
        features=[str(name) for name in raw.feature_names],
    )
