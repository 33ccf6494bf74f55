"""The page's content for one run: every number in words, every picture drawn. Templates only lay it out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import polars as pl
import yaml

from ..run_folder import ArmSummary, SavedRun, reference_of
from .charts import Forest, Interval, Lines, forest, lines
from .formats import UNDEFINED, decimal, duration, estimate, known, percent, percent_estimate
from .targets import ALL_SCORES, Target, target_of

_POINTS = 160


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
    """The page's content for one run."""

    anchor: str
    title: str
    verdict: str
    sentence: str
    numbers: str
    advice: list[str]
    demonstration: bool
    attack_title: str
    is_defended: bool
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
    reach: str | None
    poisons: list[PoisonRow]
    targets: list[Target]
    score_names: list[str]
    convergence: Convergence | None
    provenance: list[tuple[str, str]]
    timings: list[tuple[str, str]]
    case: str
    arm_titles: dict[str, str]
    arm_abouts: dict[str, str]
    share: float | None


def section(run: SavedRun, number: int) -> Section:
    """The page's content for `run`, its run number `number`."""
    verdict = run.verdict
    arms = verdict["arms"]
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
        is_defended=run.poison != run.attack,
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
        reach=_reach(run),
        poisons=_poison_rows(run, titles),
        targets=[target_of(run, index, anchor, titles) for index in range(len(run.environment["targets"]))],
        score_names=[score.title for score in ALL_SCORES],
        convergence=_convergence(run),
        provenance=_provenance(run),
        timings=[(str(stage), duration(seconds)) for stage, seconds in run.environment["seconds"].items()],
        case=yaml.safe_dump(dict(run.case), sort_keys=False, allow_unicode=True, width=100),
        arm_titles=titles,
        arm_abouts=dict(run.verdict.get("about") or {}),
        share=_share(run),
    )


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]


def _in_numbers(arms: list[ArmSummary], attack: str) -> str:
    by_name = {arm["arm"]: arm for arm in arms}
    if attack not in by_name or reference_of(by_name[attack]) not in by_name:
        return ""
    clean, attacked = by_name[reference_of(by_name[attack])], by_name[attack]
    return (
        f"Jaccard with the desired map {decimal(clean['jaccard']['mean'])} → {decimal(attacked['jaccard']['mean'])} "
        f"({estimate(attacked['jaccard_change'], signed=True)} beyond the seed null); "
        f"label kept by {percent(attacked['label_kept']['mean'])} of the victims."
    )


def _share(run: SavedRun) -> float | None:
    return known(run.poisons.filter(pl.col("arm") == run.poison)["share_of_set"].cast(pl.Float64).mean())


def _facts(run: SavedRun) -> list[tuple[str, str]]:
    names = {
        "data": "Data",
        "model": "Model",
        "explainer": "Explainer",
        "goal": "Desired map",
        "budget": "Attacker's budget",
        "defence": "Defence",
        "start": "Victims start from",
        "attacker": "The attacker supposes",
    }
    verdict = run.verdict
    case: Mapping[str, Any] = verdict["case"]
    return [
        *((name, case[key]) for key, name in names.items() if key in case),
        ("Targets", str(verdict["targets"])),
        ("Fresh victims per arm and target", str(verdict["victims"])),
    ]


def _arm_row(arm: ArmSummary, run: SavedRun) -> ArmRow:
    null = arm["arm"] == reference_of(arm)
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
        drift=estimate(arm["drift"]),
    )


def _null_title(run: SavedRun) -> str:
    return "Seed null: no poison" if run.poison == run.attack else "Seed null: no poison, defended"


_Effect = Literal["jaccard_change", "l1_change"]


def _changes_chart(run: SavedRun, key: _Effect, threshold: float | None) -> Forest:
    intervals = [
        Interval(
            name=_null_title(run) if arm["arm"] == run.clean else _capital(arm["title"]),
            text=estimate(arm[key], signed=True),
            mean=known(arm[key]["mean"]),
            low=known(arm[key]["low"]),
            high=known(arm[key]["high"]),
            strong=arm["arm"] == run.attack,
        )
        for arm in run.verdict["arms"]
        if arm["arm"] != "ceiling"  # it would squeeze the other intervals; the table has it
    ]
    null = next((arm[key] for arm in run.verdict["arms"] if arm["arm"] == run.clean), None)
    low, high = (None, None) if null is None else (known(null["low"]), known(null["high"]))
    band = None if low is None or high is None else (low, high)
    return forest(intervals, band, threshold)


def _chart_in_words(run: SavedRun, key: _Effect, score: str) -> str:
    rows = (f"{arm['title']} {estimate(arm[key], signed=True)}" for arm in run.verdict["arms"])
    return f"Effect on {score} beyond the seed null, by arm: {'; '.join(rows)}."


def _reach(run: SavedRun) -> str | None:
    """The attack's fraction of the reference ceiling; None without a ceiling."""
    share = run.verdict.get("share_of_way")
    if share is None:
        return None
    ceiling = next((arm for arm in run.verdict["arms"] if arm["arm"] == "ceiling"), None)
    reached = "" if ceiling is None else f" (Jaccard {decimal(ceiling['jaccard']['mean'])})"
    if known(share["mean"]) is None:
        return f"Bending the model itself hardly moves its explanation either{reached}, so there is no ceiling to take a fraction of."
    return f"The attack’s effect is {percent_estimate(share)} of the ceiling’s, which is what bending the model itself reaches{reached}."


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
                strong=arm == run.poison,
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
            (row["member"], row["iteration"]): row["value"]
            for row in history.group_by("member", "iteration").agg(finite).iter_rows(named=True)
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


_SEED_TITLES = {"seed drift": "seed null"}
"""Shown names of seeds whose saved name differs."""


def _provenance(run: SavedRun) -> list[tuple[str, str]]:
    environment, data = run.environment, run.environment["data"]
    counts: Mapping[str, Any] = data
    rows = ", ".join(
        f"{name} {counts[key]:,}".replace(",", " ")
        for key, name in (("train", "train"), ("validation", "validation"), ("test", "test"), ("pretrain", "pre-train"))
        if counts[key]
    )
    victims = run.verdict["victims"]
    seeds = dict(environment.get("seeds") or dict(_seeds_in(run.case)))
    seconds = [known(value) for value in environment["seconds"].values()]
    return [
        ("Run", environment["run_id"]),
        ("Data", f"{data['name']}, {rows}"),
        *(("Of the data", str(note)) for note in run.verdict.get("notes") or []),
        ("Data fingerprint", data["fingerprint"]),
        (
            "Seeds",
            ", ".join(f"{_SEED_TITLES.get(name, name)} {value}" for name, value in seeds.items()) or "see the case",
        ),
        (
            "Victim seeds",
            f"0 to {victims - 1} per arm; clean victims 0 to {2 * victims - 1}, the second half for the seed null",
        ),
        ("Versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())),
        ("Results version", str(environment["results_version"])),
        ("Commit", environment["commit"] or "not recorded"),
        ("Python and platform", f"{environment['python']}, {environment['platform']}"),
        ("Device and threads", f"{environment['device']}, {environment['threads']}"),
        *_code_path(environment.get("code_path")),
        *_surplus(environment.get("surplus_weights")),
        ("Time since last resumed", duration(sum(value for value in seconds if value is not None))),
    ]


def _seeds_in(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = f"{path}.{key}".lstrip(".")
            if "seed" in str(key).casefold() and not isinstance(inner, Mapping):
                yield name, inner
            else:
                yield from _seeds_in(inner, name)


def _code_path(path: Any) -> list[tuple[str, str]]:
    """The code path in words; absent in runs of earlier versions."""
    if not isinstance(path, dict):
        return []
    return [("Code path", ", ".join(f"{name}: {value}" for name, value in path.items()))]


def _surplus(weights: Any) -> list[tuple[str, str]]:
    """The starting weights without a counterpart in the network."""
    if not isinstance(weights, dict) or not weights:
        return []
    stages = ", ".join(f"{stage} ({count} tensors)" for stage, count in weights.items())
    return [("Starting weights left out", stages)]
