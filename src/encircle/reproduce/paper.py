"""What Zhang, Gao & Su report (KDD 2021, Tables 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Published:
    """One cell of the paper's tables: a data set and an explainer.

    Attributes:
        l1: of WM and of IMF.
        jaccard: of WM and of IMF.
    """

    l1: tuple[float, float]
    jaccard: tuple[float, float]


PUBLISHED = {
    "dogs-grad": Published(l1=(0.79, 0.57), jaccard=(0.05, 0.22)),
    "dogs-cam": Published(l1=(0.71, 0.42), jaccard=(0.07, 0.31)),
    "fractures-grad": Published(l1=(0.87, 0.65), jaccard=(0.03, 0.08)),
    "fractures-cam": Published(l1=(0.79, 0.50), jaccard=(0.17, 0.40)),
}
"""By our name of the cell."""

STABLE_EPOCHS = {"upper": 15, "lower": 20}
"""Epochs after which the levels of the objective are stable (§5.3.3, Fig. 5)."""
