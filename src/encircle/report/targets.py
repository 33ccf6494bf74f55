"""The page's content for one target: the paper's Figure 4, a poison sample, and every victim's scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..run_folder import SavedRun
from ..score_names import MAP_SCORES, VICTIM_SCORES
from .charts import Bars, Changes, Entry, bars, changes
from .formats import UNDEFINED, decimal
from .pictures import Picture, difference, heat, outline, photograph, scaled, strongest_at, wanted

_Map = NDArray[np.float32]

SHOWN_SEED = 0
"""The victim whose maps are drawn."""

_MANY_TARGETS = 10
_OPEN_TARGETS = 3
_ALL_ENTRIES = 32
_SOME_ENTRIES = 24
_CHANGED_FEATURES = 16
_TOLERANCE = 1e-6

ALL_SCORES = tuple(score for score in (*MAP_SCORES, *VICTIM_SCORES) if score.key != "accuracy")
"""Scores that differ from target to target: a victim's accuracy does not."""


@final
@dataclass(frozen=True)
class Panel:
    """A picture, with an optional map over it and the border of the desired map's region."""

    caption: str
    note: str
    alt: str
    heat: Picture | None = None
    border: str = ""


@final
@dataclass(frozen=True)
class ImageTarget:
    """Figure 4 of a picture: the maps over it, and one poison sample."""

    photograph: Picture
    panels: list[Panel]
    full: list[Panel]
    grid: tuple[int, int]
    masked: bool


@final
@dataclass(frozen=True)
class TableTarget:
    """Figure 4 of a table row: the maps as bars."""

    bars: Bars
    alt: str
    units: bool
    note: str
    values: list[tuple[str, str]]


@final
@dataclass(frozen=True)
class PoisonPictures:
    """A poison sample beside its base and their difference."""

    base: Picture
    poison: Picture
    difference: Picture
    factor: int
    largest: str


@final
@dataclass(frozen=True)
class PoisonBars:
    """The changes of a poisoned table row."""

    chart: Changes
    alt: str
    note: str


@final
@dataclass(frozen=True)
class VictimRow:
    """One fresh victim, trained without and with the poison."""

    name: str
    jaccard_clean: str
    jaccard: str
    l1_clean: str
    l1: str
    label: str


@final
@dataclass(frozen=True)
class Target:
    """One target sample: Figure 4, poison and scores."""

    anchor: str
    heading: str
    folded: bool
    image: ImageTarget | None
    table: TableTarget | None
    poison_pictures: PoisonPictures | None
    poison_bars: PoisonBars | None
    victims: list[VictimRow]
    every_score: list[tuple[str, list[str]]]


def target_of(run: SavedRun, index: int, anchor: str, titles: Mapping[str, str]) -> Target:
    """The page's content for target number `index` of `run`."""
    target = run.environment["targets"][index]
    row = target["row"]
    table = None if run.is_images else _table_target(run, target)
    poison, base = run.maps.get(f"{row}/{run.poison}/poison"), run.maps.get(f"{row}/{run.poison}/base")
    pictures, chart = None, None
    if poison is not None and base is not None:
        if run.is_images:
            pictures = _poison_pictures(poison, base)
        else:
            chart = _poison_bars(run, poison, base)
    return Target(
        anchor=f"{anchor}-target-{row}",
        heading=f"Target {index + 1}: test row {row}, class “{target['class_name']}”",
        folded=len(run.environment["targets"]) >= _MANY_TARGETS and index >= _OPEN_TARGETS,
        image=_image_target(run, target) if run.is_images else None,
        table=table,
        poison_pictures=pictures,
        poison_bars=chart,
        victims=_victims(run, row),
        every_score=list(_every_score(run, row, titles)),
    )


def _shown_score(run: SavedRun, row: int, arm: str) -> str:
    scores = run.scores.filter((pl.col("target") == row) & (pl.col("arm") == arm) & (pl.col("seed") == SHOWN_SEED))
    if scores.is_empty():
        return ""
    return f"Jaccard {decimal(scores['jaccard'][0])}, L1 {decimal(scores['l1'][0])}"


def _image_target(run: SavedRun, target: Mapping[str, Any]) -> ImageTarget:
    row, name = target["row"], target["class_name"]
    goal, mask = run.maps[f"{row}/goal"], run.maps[f"{row}/mask"]
    border = outline(wanted(goal, mask))

    def panel(caption: str, what: str, values: _Map, note: str, *, masked: bool = True) -> Panel:
        strongest = "the same everywhere" if scaled(values) is None else f"strongest at the {strongest_at(values)}"
        alt = f"{what} of test row {row} (class “{name}”), {strongest}{f'; {note}' if note else ''}."
        return Panel(caption, note, alt, heat(values, mask if masked else np.ones_like(values)), border)

    clean, manipulated = run.maps[f"{row}/{run.clean}/0"], run.maps[f"{row}/{run.attack}/0"]
    input_alt = f"Test row {row}, class “{name}”: the picture whose explanation is attacked."
    full = []
    for caption, what, arm in (
        ("Clean, every pixel", "Clean map before pooling", run.clean),
        ("Manipulated, every pixel", "Manipulated map before pooling", run.attack),
    ):
        values = run.maps.get(f"{row}/{arm}/{SHOWN_SEED}/full")
        if values is not None:
            full.append(panel(caption, what, values, "", masked=False))
    return ImageTarget(
        photograph=photograph(run.maps[f"{row}/input"]),
        panels=[
            Panel("Input", f"class “{name}”", input_alt),
            panel("Clean map", "Clean map", clean, _shown_score(run, row, run.clean)),
            panel("Desired map", "Desired map", goal, "what the attacker wants"),
            panel("Manipulated map", "Manipulated map", manipulated, _shown_score(run, row, run.attack)),
        ],
        full=full,
        grid=(goal.shape[0], goal.shape[1]),
        masked=bool((mask <= 0.5).any()),
    )


def _table_target(run: SavedRun, target: Mapping[str, Any]) -> TableTarget:
    row = target["row"]
    goal, mask = run.maps[f"{row}/goal"], run.maps[f"{row}/mask"]
    clean, manipulated = run.maps[f"{row}/{run.clean}/0"], run.maps[f"{row}/{run.attack}/0"]
    values = run.maps[f"{row}/input"]
    features = _feature_names(run, len(values))
    by_units = run.space == "units" or len(goal) != len(features)
    names = [f"unit {k}" for k in range(len(goal))] if by_units else features
    marked = wanted(goal, mask)
    units = [scaled(values) for values in (clean, manipulated, goal)]
    entries = [
        Entry(name, _at(units[0], k), _at(units[1], k), _at(units[2], k), wanted=bool(marked[k]))
        for k, name in enumerate(names)
        if mask[k] > 0.5
    ]
    shown = entries
    if len(entries) > _ALL_ENTRIES:
        shown = sorted(entries, key=lambda entry: (not entry.wanted, -_largest(entry)))[:_SOME_ENTRIES]
    shown = sorted(shown, key=lambda entry: (-(entry.goal or 0.0), -(entry.clean or 0.0)))
    notes = []
    if len(shown) < len(entries):
        notes.append(f"The {len(shown)} of {len(entries)} entries that the maps mark most are drawn.")
    if len(entries) < len(goal):
        notes.append(f"{len(goal) - len(entries)} further entries are outside the goal's mask and are not scored.")
    flat = [name for name, unit in zip(("clean", "manipulated", "desired"), units, strict=True) if unit is None]
    notes.extend(f"The {name} map is the same everywhere, so it has no bars." for name in flat)
    return TableTarget(
        bars=bars(shown),
        alt=_bars_in_words(target, entries, _shown_score(run, row, run.clean), _shown_score(run, row, run.attack)),
        units=by_units,
        note=" ".join(notes),
        values=list(zip(features, (decimal(value) for value in values), strict=True)),
    )


def _at(unit: _Map | None, k: int) -> float | None:
    return None if unit is None else float(unit[k])


def _largest(entry: Entry) -> float:
    return max(entry.clean or 0.0, entry.manipulated or 0.0, entry.goal or 0.0)


def _bars_in_words(target: Mapping[str, Any], entries: list[Entry], clean: str, manipulated: str) -> str:
    def leading(key: str) -> str:
        ranked = sorted(
            (entry for entry in entries if getattr(entry, key) is not None),
            key=lambda entry: -getattr(entry, key),
        )
        return ", ".join(entry.name for entry in ranked[:3]) or "nothing"

    return (
        f"Maps of test row {target['row']} (class “{target['class_name']}”) as bars. Most relevant in the clean map: "
        f"{leading('clean')} ({clean}). In the desired map: {leading('goal')}. In the manipulated map: "
        f"{leading('manipulated')} ({manipulated})."
    )


def _feature_names(run: SavedRun, count: int) -> list[str]:
    names = [str(name) for name in run.environment["data"].get("features") or []]
    return names if len(names) == count else [f"feature {k}" for k in range(count)]


def _poison_pictures(poison: _Map, base: _Map) -> PoisonPictures:
    picture, factor = difference(poison, base)
    largest = decimal(float(np.abs(poison - base).max()), 3)
    return PoisonPictures(photograph(base), photograph(poison), picture, factor, largest)


def _poison_bars(run: SavedRun, poison: _Map, base: _Map) -> PoisonBars:
    names = _feature_names(run, len(poison))
    moved = [
        (names[k], float(base[k]), float(poison[k]))
        for k in np.argsort(-np.abs(poison - base), kind="stable")
        if abs(float(poison[k] - base[k])) > _TOLERANCE
    ]
    shown = moved[:_CHANGED_FEATURES]
    words = "; ".join(f"{name} from {decimal(before)} to {decimal(after)}" for name, before, after in shown[:5])
    note = f"{len(moved)} of {len(poison)} features differ from the base row."
    if len(shown) < len(moved):
        note += f" The {len(shown)} largest changes are drawn."
    return PoisonBars(changes(shown), f"Changes in one poison row. {note} {words}.", note)


def _victims(run: SavedRun, row: int) -> list[VictimRow]:
    part = run.scores.filter(pl.col("target") == row)
    clean = {victim["seed"]: victim for victim in part.filter(pl.col("arm") == run.clean).iter_rows(named=True)}
    attacked = part.filter(pl.col("arm") == run.attack).sort("seed")
    rows = []
    for victim in attacked.iter_rows(named=True):
        before = clean.get(victim["seed"], {})
        rows.append(
            VictimRow(
                name=f"{victim['seed']} (shown)" if victim["seed"] == SHOWN_SEED else str(victim["seed"]),
                jaccard_clean=decimal(before.get("jaccard")),
                jaccard=decimal(victim["jaccard"]),
                l1_clean=decimal(before.get("l1")),
                l1=decimal(victim["l1"]),
                label=_label(run, victim),
            )
        )
    return rows


def _label(run: SavedRun, score: Mapping[str, Any]) -> str:
    if score["label_kept"] is None:
        return UNDEFINED
    if score["label_kept"]:
        return "kept"
    classes, number = run.environment["data"]["classes"], score["victim_class"]
    is_known = number is not None and 0 <= number < len(classes)
    return f"lost: “{classes[number]}”" if is_known else "lost"


def _every_score(run: SavedRun, row: int, titles: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    part = run.scores.filter((pl.col("target") == row) & (pl.col("seed") < run.verdict["victims"]))
    for arm, title in titles.items():
        scores = part.filter(pl.col("arm") == arm)
        yield title, [decimal(scores[score.key].cast(pl.Float64).mean()) for score in ALL_SCORES]
