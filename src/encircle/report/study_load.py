"""A saved study, read back and checked against docs/study-folder.md before it is drawn."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, final

from ..core import InputError
from ..run_folder import Estimate, read_checked


class RunOfCell(TypedDict):
    """A finished run of a cell."""

    folder: str
    seed: int
    verdict: str


class MissingRun(TypedDict):
    """A run that did not finish."""

    title: str
    why: str
    log: str | None


class CellSummary(TypedDict):
    """A judged cell of a study."""

    at: list[int]
    title: str
    verdict: str
    reason: str
    sentence: str
    advice: list[str]
    attack: str | None
    attack_title: str | None
    p: float | None
    p_adjusted: float | None
    smallest_detectable_shift: float | None
    shift: Estimate
    drift: Estimate
    jaccard_clean: Estimate
    jaccard_attack: Estimate
    l1_clean: Estimate
    l1_attack: Estimate
    accuracy_change: Estimate
    control: dict[str, Any] | None
    label_kept: float | None
    label_lost: bool
    accuracy_resolvable: bool
    targets: int
    victims: int
    demonstration: bool
    runs: list[RunOfCell]
    missing: list[MissingRun]


class AxisFacts(TypedDict):
    """An axis of a study's grid."""

    name: str
    title: str
    labels: list[str]
    values: list[Any] | None


class Counts(TypedDict):
    """Numbers of runs and tasks."""

    runs: int
    finished: int
    tasks: dict[str, Any]


class StudySummary(TypedDict):
    """`study.json`."""

    title: str
    verdict: str
    sentence: str
    advice: list[str]
    axes: list[AxisFacts]
    dose: str | None
    family: int
    threshold: float
    cells: list[CellSummary]
    counts: Counts
    seconds: dict[str, Any]
    environment: dict[str, Any] | None
    study: str


REASONS = ("error", "few", "undefined", "chance", "label", "small", "away", "weak", "open", "some", "same")
"""Reasons why a cell may be open, the gravest first."""

_VERDICTS = ("FAIL", "ERROR", "WARN", "PASS")
_NAME = re.compile(r"[^\\/.\x00-\x1f\x7f-\x9f][^\\/\x00-\x1f\x7f-\x9f]*")
_LOG = re.compile(rf"logs/{_NAME.pattern}")
_LARGEST = 1e30
"""No audit writes larger numbers than its seeds."""


@final
@dataclass(frozen=True)
class SavedStudy:
    """A study's folder and the content of its `study.json`."""

    folder: Path
    facts: StudySummary

    @property
    def axes(self) -> list[AxisFacts]:
        """The axes of the grid, the seed's excepted."""
        return self.facts["axes"]

    @property
    def cells(self) -> list[CellSummary]:
        """The judged cells."""
        return self.facts["cells"]


def load_study(folder: Path) -> SavedStudy:
    """Read a study's folder and check its `study.json` against docs/study-folder.md.

    Raises:
        InputError: `study.json` is missing, damaged or incomplete, or names a file outside of the folder.
    """
    path = Path(folder) / "study.json"
    facts = read_checked(path, StudySummary)
    for trouble in _troubles(facts):
        raise InputError(f"{path} {trouble}; run `encircle study resume {folder}` to write it anew.")
    return SavedStudy(Path(folder), facts)


def _troubles(facts: StudySummary) -> Iterator[str]:
    """The first entry of `facts` that no study writes, although its type is right."""
    if not _is_sane(facts):
        yield "holds text or a number that cannot be shown"
    if not facts["cells"]:
        yield "holds no cell"
    if facts["verdict"] not in _VERDICTS or math.isnan(facts["threshold"]):
        yield "has a verdict or a threshold that is none"
    axes = {axis["name"]: axis for axis in facts["axes"]}
    for axis in facts["axes"]:
        if axis["values"] is not None and not _are_numbers(axis["values"], len(axis["labels"])):
            yield f"has values of the axis {axis['name'][:80]!r} that are no numbers"
    if facts["dose"] is not None and (facts["dose"] not in axes or axes[facts["dose"]]["values"] is None):
        yield f"has a dose {facts['dose'][:80]!r} that is no axis of numbers"
    sizes = [len(axis["labels"]) for axis in facts["axes"]]
    known_at: set[tuple[int, ...]] = set()
    for cell in facts["cells"]:
        if not _belongs(cell, sizes) or tuple(cell["at"]) in known_at:
            yield f"holds a cell that is not of this study ({cell['title'][:80]!r})"
        known_at.add(tuple(cell["at"]))
    states = [dict.values(tasks) if isinstance(tasks, dict) else [None] for tasks in facts["counts"]["tasks"].values()]
    if not _are_numbers([*itertools.chain(*states), *facts["seconds"].values()]):
        yield "has tasks or seconds that are no numbers"


def _belongs(cell: CellSummary, sizes: list[int]) -> bool:
    """Whether a cell lies on the grid and names only files of its study."""
    control = cell["control"]
    change = {} if control is None else control.get("change")
    return (
        cell["verdict"] in _VERDICTS
        and (cell["verdict"] in {"PASS", "FAIL"} or cell["reason"] in REASONS)
        and len(cell["at"]) == len(sizes)
        and all(0 <= at < size for at, size in zip(cell["at"], sizes, strict=True))
        and all(_NAME.fullmatch(run["folder"]) for run in cell["runs"])
        and all(missing["log"] is None or _LOG.fullmatch(missing["log"]) for missing in cell["missing"])
        and (control is None or isinstance(control.get("title"), str))
        and isinstance(change, dict)
        and (
            control is None
            or all(isinstance(change.get(end, ""), int | float | None) for end in Estimate.__annotations__)
        )
    )


def _are_numbers(values: Any, count: int | None = None) -> bool:
    return (count is None or len(values) == count) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value) for value in values
    )


def _is_sane(value: Any) -> bool:
    """Whether all texts are Unicode, and all numbers finite (or NaN, which stands for null) and not vast."""
    pending = [value]
    while pending:  # not by recursion: the reader accepts deeper nesting than that
        item = pending.pop()
        if isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            if any("\ud800" <= letter <= "\udfff" for letter in item):
                return False
        elif isinstance(item, int | float) and abs(item) > _LARGEST:  # false for NaN, which stands for null
            return False
    return True
