"""Small pictures of a run's first target: the input, the clean map, the attacked map and the desired map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from ..core import InputError
from ..run_folder import Environment, LazyMaps, Verdict, read_checked, reference_of
from .pictures import Picture, heat, photograph

SIDE = 48
"""Pixels of a thumbnail's longer side, at most."""


@final
@dataclass(frozen=True)
class Thumbnail:
    """A picture and its description."""

    picture: Picture
    caption: str


def thumbnails(run: Path) -> list[Thumbnail]:
    """The first target of a run in four small pictures; none for tables or unreadable runs."""
    try:
        row = read_checked(run / "environment.json", Environment)["targets"][0]["row"]
        verdict = read_checked(run / "verdict.json", Verdict)
        attack = verdict["attack"]
        clean = next(reference_of(arm) for arm in verdict["arms"] if arm["arm"] == attack)
        maps = LazyMaps(run / "maps.safetensors")
        sample, goal = maps[f"{row}/input"], maps[f"{row}/goal"]
        if sample.ndim != 3 or goal.ndim != 2 or not sample.size:
            return []
        shown = {"clean": maps[f"{row}/{clean}/0"], "attacked": maps[f"{row}/{attack}/0"], "desired": goal}
        if any(values.shape != goal.shape for values in shown.values()):
            return []
        everything = np.ones_like(goal)
        drawn = [Thumbnail(heat(_small(values), everything), caption) for caption, values in shown.items()]
        return [Thumbnail(photograph(_small(sample)), "input"), *drawn]
    except (InputError, OSError, KeyError, IndexError, StopIteration, TypeError, ValueError, SafetensorError):
        return []


def _small(values: NDArray[np.float32]) -> NDArray[Any]:
    """The picture reduced to at most `SIDE` evenly spaced rows and columns."""
    step = max(1, -(-max(values.shape[-2:]) // SIDE))
    return values[..., ::step, ::step]
