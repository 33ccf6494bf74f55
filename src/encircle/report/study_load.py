"""A saved study, read back and checked against docs/study-folder.md before anything is drawn from it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..core import InputError
from ..run_folder import ESTIMATE, MAYBE, NUMBER, read_checked

_TEXT = (str, type(None))
_CELL = {
    "at": [int],
    "title": str,
    "verdict": str,
    "reason": str,
    "sentence": str,
    "advice": [str],
    "attack": _TEXT,
    "attack_title": _TEXT,
    "p": MAYBE,
    "p_adjusted": MAYBE,
    "smallest_detectable_shift": MAYBE,
    **dict.fromkeys(("shift", "drift", "jaccard_clean", "jaccard_attack", "l1_clean", "l1_attack"), ESTIMATE),
    "accuracy_change": ESTIMATE,
    "control": (dict, type(None)),
    "label_kept": MAYBE,
    "label_lost": bool,
    "accuracy_resolvable": bool,
    "targets": int,
    "victims": int,
    "demonstration": bool,
    "runs": [{"folder": str, "seed": int, "verdict": str}],
    "missing": [{"title": str, "why": str, "log": _TEXT}],
}
_STUDY = {
    "title": str,
    "verdict": str,
    "sentence": str,
    "advice": [str],
    "axes": [{"name": str, "title": str, "labels": [str], "values": (list, type(None))}],
    "dose": _TEXT,
    "family": int,
    "threshold": NUMBER,
    "cells": [_CELL],
    "counts": {"runs": int, "finished": int, "tasks": dict},
    "seconds": dict,
    "environment": (dict, type(None)),
    "study": str,
}
REASONS = ("error", "few", "undefined", "chance", "label", "small", "away", "weak", "open", "some", "same")
"""Why a cell may be open, the gravest first."""

_VERDICTS = ("FAIL", "ERROR", "WARN", "PASS")
_NAME = re.compile(r"[^\\/.\x00-\x1f\x7f-\x9f][^\\/\x00-\x1f\x7f-\x9f]*")
_LOG = re.compile(rf"logs/{_NAME.pattern}")
_LARGEST = 1e30
"""Larger numbers than seeds have come from no audit."""


@final
@dataclass(frozen=True)
class SavedStudy:
    """A study's folder and what its `study.json` holds."""

    folder: Path
    facts: Mapping[str, Any]

    @property
    def axes(self) -> list[Mapping[str, Any]]:
        """The axes of the grid, the seed's excepted."""
        return list(self.facts["axes"])

    @property
    def cells(self) -> list[Mapping[str, Any]]:
        """The judged cells."""
        return list(self.facts["cells"])


def load_study(folder: Path) -> SavedStudy:
    """Read a study's folder and check that `study.json` holds what docs/study-folder.md promises.

    Raises:
        InputError: it is missing, damaged or incomplete, or names a file outside of the folder.
    """
    path = Path(folder) / "study.json"
    facts = read_checked(path, _STUDY)
    for trouble in _troubles(facts):
        raise InputError(f"{path} {trouble}; run `encircle study resume {folder}` to write it anew.")
    return SavedStudy(Path(folder), facts)


def _troubles(facts: Mapping[str, Any]) -> Iterator[str]:
    """What `facts` hold that no study writes, although every entry is there and of its kind."""
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


def _belongs(cell: Mapping[str, Any], sizes: list[int]) -> bool:
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
        and (control is None or all(isinstance(change.get(end, ""), MAYBE) for end in ESTIMATE))
    )


def _are_numbers(values: Any, count: int | None = None) -> bool:
    return (count is None or len(values) == count) and all(
        isinstance(value, NUMBER) and not isinstance(value, bool) and not math.isnan(value) for value in values
    )


def _is_sane(value: Any) -> bool:
    """Whether every text in it is Unicode and every number is finite (or NaN, which stands for null) and not vast."""
    pending = [value]
    while pending:  # not by calling itself: what is nested too deeply for that has been read all the same
        item = pending.pop()
        if isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            if any("\ud800" <= letter <= "\udfff" for letter in item):
                return False
        elif isinstance(item, NUMBER) and abs(item) > _LARGEST:  # which NaN, standing for null, is not
            return False
    return True
