"""A saved study, read back and checked against docs/study-folder.md before anything is drawn from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..core import InputError
from .load import ESTIMATE, MAYBE, NUMBER, read_checked

_TEXT = (str, type(None))
_CELL = {
    "at": [int],
    "title": str,
    "verdict": str,
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
_VERDICTS = ("FAIL", "ERROR", "WARN", "PASS")
_NAME = re.compile(r"[^\\/.\x00-\x1f][^\\/\x00-\x1f]*")
_LOG = re.compile(r"logs/[^\\/.\x00-\x1f][^\\/\x00-\x1f]*")


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
    if not facts["cells"]:
        raise InputError(f"{path} holds no cell; run `encircle study resume {folder}` to write it anew.")
    sizes = [len(axis["labels"]) for axis in facts["axes"]]
    for cell in facts["cells"]:
        inside = len(cell["at"]) == len(sizes) and all(
            0 <= at < size for at, size in zip(cell["at"], sizes, strict=True)
        )
        names = all(_NAME.fullmatch(run["folder"]) for run in cell["runs"])
        logs = all(missing["log"] is None or _LOG.fullmatch(missing["log"]) for missing in cell["missing"])
        if not (inside and names and logs and cell["verdict"] in _VERDICTS):
            raise InputError(
                f"{path} holds a cell that is not of this study ({cell['title'][:80]!r}); run `encircle study resume` to write it anew."
            )
    for axis in facts["axes"]:
        values = axis["values"]
        if values is not None and not (
            len(values) == len(axis["labels"]) and all(isinstance(v, int | float) for v in values)
        ):
            raise InputError(
                f"{path} has values of the axis {axis['name']!r} that are no numbers; run `encircle study resume`."
            )
    return SavedStudy(Path(folder), facts)
