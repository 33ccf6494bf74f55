"""Judges a study from its finished runs: every cell among all comparisons of the study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import polars as pl

from ..core import digest
from ..run_folder import Judged, read_checked, reference_of
from ..scoring import EffectError, Interval, holm
from ..scoring.thresholds import FALSE_CLAIMS, LABEL_KEPT, MINIMUM_TARGETS
from ..scoring.verdicts import Evidence, advice, decide, judge
from ..storage import read_json, write_json
from .grid import Cell, Study
from .plan import Planned

_NOTHING = {"mean": None, "low": None, "high": None}
_ORDER = ("FAIL", "ERROR", "WARN", "PASS")


@final
@dataclass(frozen=True)
class Missing:
    """A run that did not finish.

    Attributes:
        title: of the run.
        why: one sentence.
        log: output of the failed task, relative to the study's folder; None without one.
    """

    title: str
    why: str
    log: str | None


def judge_cells(
    study: Study, runs: Sequence[Planned], root: Path, missing: Mapping[str, Missing]
) -> list[dict[str, Any]]:
    """The cells of a study as `study.json` holds them (docs/study-folder.md).

    Claims are corrected (Holm) over all cells that make one, or would if their runs had finished. An explanation counts as bent if the interval excludes
    zero *and* the adjusted p-value is at most 0.05. "Nothing found" comes with the smallest effect that would have been claimed, at the level at which
    the correction would have tested the cell.

    Args:
        study: the study.
        runs: its runs, in the order of `study.runs`.
        root: the study's folder.
        missing: the reason why a run did not finish, by the id of its task.
    """
    summaries = [_summary([runs[run] for run in cell.runs], root, missing) for cell in study.cells]
    # A planned comparison counts even if its run is missing: verdicts of other cells must not depend on the moment of a stop.
    p_values = [1.0 if summary is None else summary["p_value"] for summary in summaries]
    adjusted, family = holm(p_values), sum(value is not None for value in p_values)
    level = 1 - FALSE_CLAIMS / max(family - sum(value is not None and value <= FALSE_CLAIMS for value in adjusted), 1)
    return [
        _missing_cell(cell, runs, root, missing)
        if summary is None
        else _judged_cell(cell, runs, root, summary, value, family, level)
        for cell, summary, value in zip(study.cells, summaries, adjusted, strict=True)
    ]


def answer(study: Study, cells: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The verdict on a study and its sentence for a non-specialist."""
    counts = Counter(cell["verdict"] for cell in cells)
    verdict = next(verdict for verdict in _ORDER if counts[verdict])
    parts = []
    if counts["FAIL"]:
        parts.append(f"the explanation can be bent in {_of(counts['FAIL'], len(cells))}{_least(study, cells)}")
    if counts["PASS"]:
        parts.append(
            f"no shift was found in {_of(counts['PASS'], len(cells))}, where one of the threshold would have been seen"
        )
    if counts["WARN"]:
        parts.append(
            f"{_of(counts['WARN'], len(cells))} {'is' if counts['WARN'] == 1 else 'are'} inconclusive or small"
        )
    if counts["ERROR"]:
        parts.append(
            f"{_of(counts['ERROR'], len(cells))} did not finish, and of {'it' if counts['ERROR'] == 1 else 'them'} nothing is known"
        )
    text = "; ".join(parts)
    return verdict, f"{text[0].upper()}{text[1:]}."


def _of(count: int, total: int) -> str:
    if count == total:
        return "the one cell of the study" if total == 1 else f"all {total} cells"
    return f"{count} of {total} cells"


def _least(study: Study, cells: Sequence[Mapping[str, Any]]) -> str:
    """The smallest dose that was enough, if the study has doses."""
    dose = study.dose
    if dose is None or dose.numbers is None:
        return ""
    axis, numbers = study.axes.index(dose), dose.numbers
    bent = [cell for cell in cells if cell["verdict"] == "FAIL"]
    smallest = min(bent, key=lambda cell: numbers[cell["at"][axis]])
    return f" (the least that was enough: {smallest['title']}, {smallest['shift']['mean']:+.2f})"


def _summary(runs: Sequence[Planned], root: Path, missing: Mapping[str, Missing]) -> Judged | None:
    """The judged scores of a cell's runs; None if one of them did not finish."""
    if any(run.task in missing for run in runs):
        return None
    verdicts = [read_checked(root / "runs" / run.folder / "verdict.json", Judged) for run in runs]
    if len(runs) == 1 and "p_value" in verdicts[0]:  # which runs of the first version lack
        return verdicts[0]
    path = root / "cells" / f"{digest(sorted(run.task for run in runs))[:24]}.json"
    if path.is_file():
        return read_checked(path, Judged)
    pooled = []
    for number, run in enumerate(runs):
        scores = pl.read_parquet((root / "runs" / run.folder / "scores.parquet").read_bytes())
        pooled.append(scores.with_columns(pl.col("target") + number * 10**9))  # a target is a row under one split
    first = verdicts[0]
    summary = judge(
        pl.concat(pooled),
        attack=first["attack"],
        titles={arm["arm"]: arm["title"] for arm in first["arms"]},
        references={arm["arm"]: reference_of(arm) for arm in first["arms"]},
        victims=first["victims"],
        accuracy_rows=min(verdict["held_out"] for verdict in verdicts),
        threshold=first["threshold"],
        label_threshold=first.get("label_kept_threshold", LABEL_KEPT),
        minimum_targets=first.get("minimum_targets", MINIMUM_TARGETS),
    )
    write_json(path, summary)
    return summary


def _judged_cell(
    cell: Cell,
    runs: Sequence[Planned],
    root: Path,
    summary: Judged,
    adjusted: float | None,
    family: int,
    level: float,
) -> dict[str, Any]:
    arms = {arm["arm"]: arm for arm in summary["arms"]}
    attack_arm = arms[summary["attack"]]
    clean = arms[reference_of(attack_arm)]
    shift = attack_arm["jaccard_change"]
    error = summary["standard_error"]
    defined = summary["targets"] - summary["undefined"]
    smallest = None if error is None else EffectError(error, defined).detectable(level=level)
    evidence = Evidence(
        effect=Interval(math.nan if shift["mean"] is None else shift["mean"], shift["low"], shift["high"]),
        label_fraction=math.nan if summary["label_kept"] is None else summary["label_kept"],
        detectable=smallest,
        threshold=summary["threshold"],
        label_threshold=summary["label_kept_threshold"],
        attack=attack_arm["title"],
        targets=summary["targets"],
        undefined=summary["undefined"],
        minimum_targets=summary["minimum_targets"],
        victims=summary["victims"],
        comparisons=family,
        adjusted=adjusted,
    )
    decision = decide(evidence)
    return {
        "at": list(cell.at),
        "title": cell.title,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "sentence": decision.sentence,
        "advice": advice(decision.verdict, attack_arm["title"]),
        "attack": summary["attack"],
        "attack_title": attack_arm["title"],
        "shift": shift,
        "p": summary["p_value"],
        "p_adjusted": adjusted,
        "smallest_detectable_shift": smallest,
        "drift": clean["jaccard_change"],
        "control": _strongest(summary),
        "jaccard_clean": clean["jaccard"],
        "jaccard_attack": attack_arm["jaccard"],
        "l1_clean": clean["l1"],
        "l1_attack": attack_arm["l1"],
        "label_kept": summary["label_kept"],
        "label_lost": evidence.label_fraction < evidence.label_threshold,
        "accuracy_change": attack_arm["accuracy_change"],
        "accuracy_resolvable": summary["accuracy_resolvable"],
        "targets": summary["targets"],
        "victims": summary["victims"],
        "demonstration": summary["demonstration"],
        "runs": [_run(runs[run], root) for run in cell.runs],
        "missing": [],
    }


def _missing_cell(cell: Cell, runs: Sequence[Planned], root: Path, missing: Mapping[str, Missing]) -> dict[str, Any]:
    gone = [missing[runs[run].task] for run in cell.runs if runs[run].task in missing]
    few = "its run" if len(cell.runs) == 1 else f"{len(gone)} of its {len(cell.runs)} runs"
    return {
        "at": list(cell.at),
        "title": cell.title,
        "verdict": "ERROR",
        "reason": "error",
        "sentence": f"Nothing is known, because {few} did not finish: {gone[0].why}",
        "advice": [],
        **dict.fromkeys(
            ("attack", "attack_title", "p", "p_adjusted", "smallest_detectable_shift", "control", "label_kept")
        ),
        **dict.fromkeys(
            ("shift", "drift", "jaccard_clean", "jaccard_attack", "l1_clean", "l1_attack", "accuracy_change"), _NOTHING
        ),
        "label_lost": False,
        "accuracy_resolvable": False,
        "targets": 0,
        "victims": runs[cell.runs[0]].run.case.victims,
        "demonstration": False,
        "runs": [_run(runs[run], root) for run in cell.runs if runs[run].task not in missing],
        "missing": [{"title": run.title, "why": run.why, "log": run.log} for run in gone],
    }


def _run(planned: Planned, root: Path) -> dict[str, Any]:
    verdict = read_json(root / "runs" / planned.folder / "verdict.json")["verdict"]
    return {"folder": planned.folder, "seed": planned.run.case.seed, "verdict": verdict}


def _strongest(summary: Judged) -> dict[str, Any] | None:
    """The control with the highest upper end of an interval: it may have moved the explanation furthest."""
    audited = {summary["attack"], summary["attack"].partition("+")[0]}  # with and without the defence
    others = {"ceiling", *audited, *(reference_of(arm) for arm in summary["arms"])}
    controls = [arm for arm in summary["arms"] if arm["arm"] not in others]
    reach = [(arm["jaccard_change"]["high"], arm["jaccard_change"]["mean"]) for arm in controls]
    known = [number for number, ends in enumerate(reach) if ends[1] is not None]
    if not known:
        return None
    best = max(known, key=lambda number: next(end for end in reach[number] if end is not None))
    return {"title": controls[best]["title"], "change": controls[best]["jaccard_change"]}
