"""What the page says about one run: every number in words, every picture drawn; the templates only lay it out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from .charts import Bars, Changes, Entry, Forest, Interval, Lines, bars, changes, forest, lines
from .formats import UNDEFINED, decimal, duration, estimate, known, percent, percent_estimate
from .load import SavedRun
from .pictures import Picture, difference, heat, outline, photograph, place, scaled, wanted

_Map = NDArray[np.float32]

SHOWN_SEED = 0
"""The victim whose maps are drawn."""

_MANY_TARGETS = 10
_OPEN_TARGETS = 3
_ALL_ENTRIES = 32
_SOME_ENTRIES = 24
_CHANGED_FEATURES = 16
_POINTS = 160
_TOLERANCE = 1e-6

_ALL_SCORES = (
    ("jaccard", "Jaccard"),
    ("jaccard_soft", "soft Jaccard"),
    ("l1", "L1"),
    ("cosine", "cosine"),
    ("spearman", "Spearman"),
    ("ssim", "SSIM"),
    ("topk", "top-k"),
    ("pointing", "pointing game"),
    ("mass_goal", "mass in goal"),
    ("mass_box", "mass in box"),
    ("label_kept", "label kept"),
    ("probability", "probability"),
    ("drift", "drift of others"),
)


@final
@dataclass(frozen=True)
class ArmRow:
    """One row of the verdict table."""

    title: str
    strong: bool
    null: bool
    jaccard: str
    jaccard_change: str
    l1: str
    l1_change: str
    label_kept: str
    accuracy: str
    accuracy_change: str
    drift: str


@final
@dataclass(frozen=True)
class PoisonRow:
    """One row of the table of poison sizes, averaged over the targets."""

    title: str
    strong: bool
    bounded: bool
    count: str
    share_of_set: str
    share_of_class: str
    linf: str
    l2: str
    psnr: str


@final
@dataclass(frozen=True)
class Panel:
    """A picture with, perhaps, a map over it and the border of what the desired map marks."""

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
    """What a poisoned table row changes."""

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


@final
@dataclass(frozen=True)
class Convergence:
    """Figure 5: both objectives while crafting."""

    upper: Lines
    lower: Lines
    upper_alt: str
    lower_alt: str
    note: str


@final
@dataclass(frozen=True)
class Section:
    """Everything the page shows of one run."""

    anchor: str
    title: str
    verdict: str
    sentence: str
    numbers: str
    advice: list[str]
    demonstration: bool
    attack_title: str
    facts: list[tuple[str, str]]
    arms: list[ArmRow]
    has_intervals: bool
    unresolved: int | None
    jaccard_chart: Forest
    l1_chart: Forest
    jaccard_alt: str
    l1_alt: str
    threshold: str
    detectable: str | None
    poisons: list[PoisonRow]
    targets: list[Target]
    score_names: list[str]
    convergence: Convergence | None
    provenance: list[tuple[str, str]]
    timings: list[tuple[str, str]]
    case: str
    arm_titles: dict[str, str]
    share: float | None


def section(run: SavedRun, number: int) -> Section:
    """Everything the page shows of `run`, the `number`-th on it."""
    verdict = run.verdict
    arms: list[Mapping[str, Any]] = verdict["arms"]
    titles = {arm["arm"]: _capital(arm["title"]) for arm in arms}
    anchor = f"run-{number}"
    detectable = known(verdict["smallest_detectable_shift"])
    return Section(
        anchor=anchor,
        title=run.environment["title"] or f"{verdict['case']['data']}, {verdict['case']['explainer']}",
        verdict=verdict["verdict"],
        sentence=verdict["sentence"],
        numbers=_in_numbers(arms, run.attack),
        advice=verdict["advice"],
        demonstration=verdict["demonstration"],
        attack_title=titles.get(run.attack, run.attack),
        facts=_facts(run),
        arms=[_arm_row(arm, run) for arm in arms],
        has_intervals=any(known(arm["jaccard_change"]["low"]) is not None for arm in arms),
        unresolved=None if verdict["accuracy_resolvable"] else verdict["held_out"],
        jaccard_chart=_changes_chart(run, "jaccard_change", float(verdict["threshold"])),
        l1_chart=_changes_chart(run, "l1_change", None),
        jaccard_alt=_chart_in_words(run, "jaccard_change", "Jaccard"),
        l1_alt=_chart_in_words(run, "l1_change", "L1"),
        threshold=decimal(verdict["threshold"]),
        detectable=None if detectable is None else decimal(detectable),
        poisons=_poison_rows(run, titles),
        targets=[_target(run, index, anchor, titles) for index in range(len(run.environment["targets"]))],
        score_names=[name for _, name in _ALL_SCORES],
        convergence=_convergence(run),
        provenance=_provenance(run),
        timings=[(str(stage), duration(seconds)) for stage, seconds in run.environment["seconds"].items()],
        case=yaml.safe_dump(dict(run.case), sort_keys=False, allow_unicode=True, width=100),
        arm_titles=titles,
        share=_share(run),
    )


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]


def _in_numbers(arms: list[Mapping[str, Any]], attack: str) -> str:
    by_name = {arm["arm"]: arm for arm in arms}
    if "clean" not in by_name or attack not in by_name:
        return ""
    clean, attacked = by_name["clean"], by_name[attack]
    return (
        f"Jaccard with the desired map {decimal(clean['jaccard']['mean'])} → {decimal(attacked['jaccard']['mean'])} "
        f"({estimate(attacked['jaccard_change'], signed=True)} beyond the seed drift); "
        f"label kept by {percent(attacked['label_kept']['mean'])} of the victims."
    )


def _share(run: SavedRun) -> float | None:
    return known(run.poisons.filter(pl.col("arm") == run.attack)["share_of_set"].cast(pl.Float64).mean())


def _facts(run: SavedRun) -> list[tuple[str, str]]:
    names = {
        "data": "Data",
        "model": "Model",
        "explainer": "Explainer",
        "goal": "Desired map",
        "budget": "Attacker's budget",
        "start": "Victims start from",
    }
    verdict = run.verdict
    return [
        *((name, verdict["case"][key]) for key, name in names.items()),
        ("Targets", str(verdict["targets"])),
        ("Fresh victims per arm and target", str(verdict["victims"])),
    ]


def _arm_row(arm: Mapping[str, Any], run: SavedRun) -> ArmRow:
    null = arm["arm"] == "clean"
    if null:
        accuracy_change = "–"
    elif run.verdict["accuracy_resolvable"]:
        accuracy_change = estimate(arm["accuracy_change"], signed=True, scale=100, digits=1)
    else:
        accuracy_change = "not\u00a0resolvable"
    return ArmRow(
        title=_capital(arm["title"]),
        strong=arm["arm"] == run.attack,
        null=null,
        jaccard=estimate(arm["jaccard"]),
        jaccard_change=estimate(arm["jaccard_change"], signed=True),
        l1=estimate(arm["l1"]),
        l1_change=estimate(arm["l1_change"], signed=True),
        label_kept=percent_estimate(arm["label_kept"]),
        accuracy=percent_estimate(arm["accuracy"]),
        accuracy_change=accuracy_change,
        drift="–" if null else estimate(arm["drift"]),
    )


def _changes_chart(run: SavedRun, key: str, threshold: float | None) -> Forest:
    intervals = [
        Interval(
            name="Seed drift alone, no poison" if arm["arm"] == "clean" else _capital(arm["title"]),
            text=estimate(arm[key], signed=True),
            mean=known(arm[key]["mean"]),
            low=known(arm[key]["low"]),
            high=known(arm[key]["high"]),
            strong=arm["arm"] == run.attack,
        )
        for arm in run.verdict["arms"]
    ]
    drift = next((arm[key] for arm in run.verdict["arms"] if arm["arm"] == "clean"), None)
    low, high = (None, None) if drift is None else (known(drift["low"]), known(drift["high"]))
    band = None if low is None or high is None else (low, high)
    return forest(intervals, band, threshold)


def _chart_in_words(run: SavedRun, key: str, score: str) -> str:
    rows = (f"{arm['title']} {estimate(arm[key], signed=True)}" for arm in run.verdict["arms"])
    return f"Change of {score} beyond the seed drift, by arm: {'; '.join(rows)}."


def _poison_rows(run: SavedRun, titles: Mapping[str, str]) -> list[PoisonRow]:
    rows = []
    for arm in (name for name in titles if name != "clean"):
        part = run.poisons.filter(pl.col("arm") == arm)
        if part.is_empty():
            continue
        counts = sorted(set(part["count"].drop_nulls().to_list()))
        rows.append(
            PoisonRow(
                title=titles[arm],
                strong=arm == run.attack,
                bounded=bool(part["bounded"].all()),
                count="–".join(str(end) for end in dict.fromkeys((counts[0], counts[-1]))) if counts else UNDEFINED,
                share_of_set=percent(part["share_of_set"].mean()),
                share_of_class=percent(part["share_of_class"].mean()),
                linf=decimal(part["linf"].mean(), 3),
                l2=decimal(part["l2"].mean()),
                psnr="∞" if part["linf"].max() == 0 else decimal(part["psnr"].mean(), 1),
            )
        )
    return rows


def _target(run: SavedRun, index: int, anchor: str, titles: Mapping[str, str]) -> Target:
    target = run.environment["targets"][index]
    row = target["row"]
    table = None if run.is_images else _table_target(run, target)
    poison, base = run.maps.get(f"{row}/{run.attack}/poison"), run.maps.get(f"{row}/{run.attack}/base")
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
    found = run.scores.filter((pl.col("target") == row) & (pl.col("arm") == arm) & (pl.col("seed") == SHOWN_SEED))
    if found.is_empty():
        return ""
    return f"Jaccard {decimal(found['jaccard'][0])}, L1 {decimal(found['l1'][0])}"


def _image_target(run: SavedRun, target: Mapping[str, Any]) -> ImageTarget:
    row, name = target["row"], target["class_name"]
    goal, mask = run.maps[f"{row}/goal"], run.maps[f"{row}/mask"]
    border = outline(wanted(goal, mask))

    def panel(caption: str, what: str, values: _Map, note: str, *, masked: bool = True) -> Panel:
        strongest = "the same everywhere" if scaled(values) is None else f"strongest at the {place(values)}"
        alt = f"{what} of test row {row} (class “{name}”), {strongest}{f'; {note}' if note else ''}."
        return Panel(caption, note, alt, heat(values, mask if masked else np.ones_like(values)), border)

    clean, manipulated = run.maps[f"{row}/clean/0"], run.maps[f"{row}/{run.attack}/0"]
    input_alt = f"Test row {row}, class “{name}”: the picture whose explanation is attacked."
    full = []
    for caption, what, arm in (
        ("Clean, every pixel", "Clean map before pooling", "clean"),
        ("Manipulated, every pixel", "Manipulated map before pooling", run.attack),
    ):
        values = run.maps.get(f"{row}/{arm}/{SHOWN_SEED}/full")
        if values is not None:
            full.append(panel(caption, what, values, "", masked=False))
    return ImageTarget(
        photograph=photograph(run.maps[f"{row}/input"]),
        panels=[
            Panel("Input", f"class “{name}”", input_alt),
            panel("Clean map", "Clean map", clean, _shown_score(run, row, "clean")),
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
    clean, manipulated = run.maps[f"{row}/clean/0"], run.maps[f"{row}/{run.attack}/0"]
    values = run.maps[f"{row}/input"]
    features = _feature_names(run, len(values))
    by_units = "cam" in run.verdict["case"]["explainer"].casefold() or len(goal) != len(features)
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
        alt=_bars_in_words(target, entries, _shown_score(run, row, "clean"), _shown_score(run, row, run.attack)),
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
    clean = {one["seed"]: one for one in part.filter(pl.col("arm") == "clean").iter_rows(named=True)}
    attacked = part.filter(pl.col("arm") == run.attack).sort("seed")
    rows = []
    for one in attacked.iter_rows(named=True):
        before = clean.get(one["seed"], {})
        rows.append(
            VictimRow(
                name=f"{one['seed']} (shown)" if one["seed"] == SHOWN_SEED else str(one["seed"]),
                jaccard_clean=decimal(before.get("jaccard")),
                jaccard=decimal(one["jaccard"]),
                l1_clean=decimal(before.get("l1")),
                l1=decimal(one["l1"]),
                label=_label(run, one),
            )
        )
    return rows


def _label(run: SavedRun, score: Mapping[str, Any]) -> str:
    if score["label_kept"] is None:
        return UNDEFINED
    if score["label_kept"]:
        return "kept"
    classes, number = run.environment["data"]["classes"], score["victim_class"]
    found = number is not None and 0 <= number < len(classes)
    return f"lost: “{classes[number]}”" if found else "lost"


def _every_score(run: SavedRun, row: int, titles: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    part = run.scores.filter((pl.col("target") == row) & (pl.col("seed") < run.verdict["victims"]))
    for arm, title in titles.items():
        scores = part.filter(pl.col("arm") == arm)
        yield title, [decimal(scores[key].cast(pl.Float64).mean()) for key, _ in _ALL_SCORES]


def _convergence(run: SavedRun) -> Convergence | None:
    if run.history.is_empty():
        return None
    iterations = run.history["iteration"].unique().sort().to_list()
    every = math.ceil(len(iterations) / _POINTS)
    drawn = iterations[::every]
    history = run.history.filter(pl.col("iteration").is_in(drawn))
    epochs = history.group_by("iteration").agg(pl.col("epoch").mean()).sort("iteration")["epoch"].to_list()
    members = history["member"].unique().sort().to_list()
    targets = history["target"].n_unique()
    charts: list[tuple[Lines, str]] = []
    for column, name in (("upper", "Upper objective, L_adv"), ("lower", "Lower objective, L_train")):
        finite = pl.when(pl.col(column).is_finite()).then(pl.col(column)).mean().alias("value")
        means = {
            (one["member"], one["iteration"]): one["value"]
            for one in history.group_by("member", "iteration").agg(finite).iter_rows(named=True)
        }
        own = [[means.get((member, iteration)) for iteration in drawn] for member in members]
        together = [_mean([line[k] for line in own]) for k in range(len(drawn))]
        ends = [value for value in together if value is not None] or [math.nan]
        words = (
            f"{name}, over {decimal(max(epochs), 0)} epochs, mean of {len(members)} models: "
            f"from {decimal(ends[0])} to {decimal(ends[-1])}, lowest {decimal(min(ends))}."
        )
        charts.append((lines(epochs, own, together), words))
    models = "one thin line" if len(members) == 1 else f"{len(members)} thin lines, one"
    note = f"{models[0].upper()}{models[1:]} for each model the attacker crafts with; the thick line is their mean"
    note += f". Averaged over {targets} targets." if targets > 1 else "."
    if every > 1:
        note += f" One iteration in {every} is drawn."
    return Convergence(charts[0][0], charts[1][0], charts[0][1], charts[1][1], note)


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _provenance(run: SavedRun) -> list[tuple[str, str]]:
    environment, data = run.environment, run.environment["data"]
    rows = ", ".join(
        f"{name} {data[key]:,}".replace(",", " ")
        for key, name in (("train", "train"), ("validation", "validation"), ("test", "test"), ("pretrain", "pre-train"))
        if data[key]
    )
    victims = run.verdict["victims"]
    seeds = dict(environment.get("seeds") or dict(_seeds_in(run.case)))
    seconds = [known(value) for value in environment["seconds"].values()]
    return [
        ("Run", environment["run_id"]),
        ("Data", f"{data['name']}, {rows}"),
        ("Data fingerprint", data["fingerprint"]),
        ("Seeds", ", ".join(f"{name} {value}" for name, value in seeds.items()) or "see the case"),
        (
            "Victim seeds",
            f"0 to {victims - 1} per arm; clean victims 0 to {2 * victims - 1}, the second half for the drift",
        ),
        ("Versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())),
        ("Results version", str(environment["results_version"])),
        ("Commit", environment["commit"] or "not recorded"),
        ("Python and platform", f"{environment['python']}, {environment['platform']}"),
        ("Device and threads", f"{environment['device']}, {environment['threads']}"),
        ("Time", duration(sum(value for value in seconds if value is not None))),
    ]


def _seeds_in(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = f"{path}.{key}".lstrip(".")
            if "seed" in str(key).casefold() and not isinstance(inner, Mapping):
                yield name, inner
            else:
                yield from _seeds_in(inner, name)
