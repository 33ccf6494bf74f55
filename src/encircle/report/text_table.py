"""Tables of texts, ready to print: results of a run, a study or an attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from ..run_folder import reference_of
from .formats import UNDEFINED, p_value, plain_estimate, points

EFFECT = "Effect: change of Jaccard towards the desired map, beyond the seed null"
"""The definition of an effect, as the beginning of a caption."""


@final
@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        name: heading of the column of names, which may be long.
        numbers: headings of the columns of numbers.
        rows: a name and its numbers; an empty row is a gap.
        groups: the group of each row; empty if the table has no such column.
        title: above the table.
        caption: below it.
    """

    name: str
    numbers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...] = ()
    title: str = ""
    caption: str = ""


def arms_table(summary: Mapping[str, Any]) -> TextTable:
    """The results of each arm of an audit.

    Args:
        summary: as in `verdict.json`.
    """
    rows = [
        (
            arm["title"],
            plain_estimate(arm["jaccard"], ".2f"),
            "" if arm["arm"] == reference_of(arm) else plain_estimate(arm["jaccard_change"]),
            plain_estimate(arm["l1"], ".2f"),
            share(arm["label_kept"]["mean"] or 0),
        )
        for arm in summary["arms"]
    ]
    return TextTable("arm", ("Jaccard", "effect", "L1", "label kept"), tuple(rows))


def cells_table(summary: Mapping[str, Any]) -> TextTable:
    """The cells of a study.

    Args:
        summary: as in `study.json`.
    """
    rows = [
        (
            cell["title"],
            cell["verdict"],
            plain_estimate(cell["shift"]),
            p_value(cell["p_adjusted"]),
            share(cell["label_kept"]),
        )
        for cell in summary["cells"]
    ]
    return TextTable(
        "cell",
        ("verdict", "effect", "p", "label kept"),
        tuple(rows),
        title=summary["title"],
        caption=f"{EFFECT}, with 95 % intervals; p is corrected for all cells.",
    )


def doses_table(summary: Mapping[str, Any]) -> TextTable:
    """The results for each tried share of poison.

    Args:
        summary: of their study, as in `study.json`.
    """
    rows = [
        (
            cell["title"],
            cell["verdict"],
            plain_estimate(cell["shift"]),
            share(cell["label_kept"]),
            points(cell["accuracy_change"]),
        )
        for cell in summary["cells"]
    ]
    return TextTable(
        "poisoned",
        ("verdict", "effect", "label kept", "accuracy, points"),
        tuple(rows),
        title=summary["title"],
    )


def share(value: float | None) -> str:
    """A share in per cent; empty without one."""
    return "" if value is None else f"{value:.0%}"


def mean(value: Mapping[str, float | None]) -> str:
    """The mean of an estimate."""
    return UNDEFINED if value["mean"] is None else f"{value['mean']:.2f}"
