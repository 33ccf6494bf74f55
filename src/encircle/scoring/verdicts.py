"""From scores to a verdict: PASS, WARN or FAIL, with the numbers and a sentence for people who are not specialists."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import polars as pl

from .statistics import (
    Interval,
    defined_targets,
    facts_of,
    fraction_of_ceiling,
    hierarchical_bootstrap,
    paired_shift,
    seed_null,
    shift_error,
)
from .thresholds import FALSE_CLAIMS, LEVEL, MINIMUM_VICTIMS, RESOLVABLE_ROWS


def judge(
    scores: pl.DataFrame,
    *,
    attack: str,
    titles: dict[str, str],
    victims: int,
    held_out: int,
    threshold: float,
    label_kept: float,
    minimum_targets: int,
) -> dict[str, Any]:
    """The judged summary of a run, as `verdict.json` holds it (docs/run-folder.md).

    Args:
        scores: the rows of `scores.parquet`.
        attack: the audited arm.
        titles: the arms in the order of the table, with their names for people; `clean` is the first, and `ceiling`, if there is one, no attack.
        victims: seeds from here on are clean victims for the null.
        held_out: rows that accuracy was read on.
        threshold: change of Jaccard from which an explanation counts as bent.
        label_kept: share of victims that must keep the target's class.
        minimum_targets: with fewer no interval is claimed.
    """
    targets = scores["target"].unique(maintain_order=True).to_list()
    # One victim says nothing of what another seed does, and an interval from many targets would look sharp all the same.
    least = minimum_targets if victims >= MINIMUM_VICTIMS else len(targets) + 1
    null_seeds = pl.col("seed") >= victims

    def column(arm: str, name: str, *, null: bool = False) -> list[list[float]]:
        rows = scores.filter((pl.col("arm") == arm) & (null_seeds if null else ~null_seeds)).sort("seed")
        return [
            rows.filter(pl.col("target") == target)[name].cast(pl.Float64).fill_null(math.nan).to_list()
            for target in targets
        ]

    def plain(arm: str, name: str, *, null: bool = False) -> Interval:
        scored = column(arm, name, null=null)
        return hierarchical_bootstrap(scored, minimum_targets=least, shared_seeds=True)

    def change(arm: str, name: str) -> Interval:
        clean, null = column("clean", name), column("clean", name, null=True)
        compare: Callable[..., Interval] = seed_null if arm == "clean" else paired_shift
        pieces = (clean, null) if arm == "clean" else (column(arm, name), clean, null)
        return compare(*pieces, minimum_targets=least, shared_seeds=True)

    arms = [
        {
            "arm": arm,
            "title": title,
            "jaccard": facts_of(plain(arm, "jaccard")),
            "l1": facts_of(plain(arm, "l1")),
            "jaccard_change": facts_of(change(arm, "jaccard")),
            "l1_change": facts_of(change(arm, "l1")),
            "label_kept": facts_of(plain(arm, "label_kept")),
            "accuracy": facts_of(plain(arm, "accuracy")),
            "accuracy_change": facts_of(_paired_only(column(arm, "accuracy"), column("clean", "accuracy"), least)),
            "drift": facts_of(plain(arm, "drift", null=arm == "clean")),
        }
        for arm, title in titles.items()
    ]
    shift = change(attack, "jaccard")
    kept = round(plain(attack, "label_kept").mean, 9)  # 81 of 90 are 0.9, whatever the mean of means is rounded to
    pieces = (column(attack, "jaccard"), column("clean", "jaccard"), column("clean", "jaccard", null=True))
    error = None if shift.low is None else shift_error(*pieces, shared_seeds=True)
    smallest = None if error is None else error.detectable()
    bent = column("ceiling", "jaccard") if "ceiling" in titles else None
    share = None if bent is None else fraction_of_ceiling(*pieces, bent, minimum_targets=least, shared_seeds=True)
    undefined = len(targets) - defined_targets(*pieces)
    evidence = Evidence(
        shift=shift,
        kept=kept,
        smallest=smallest,
        threshold=threshold,
        label_kept=label_kept,
        attack=titles[attack],
        targets=len(targets),
        undefined=undefined,
        minimum_targets=minimum_targets,
        victims=victims,
    )
    decision = decide(evidence)
    return {
        "verdict": decision.verdict,
        "sentence": decision.sentence,
        "advice": advice(decision.verdict, titles[attack]),
        "demonstration": len(targets) < minimum_targets or victims < MINIMUM_VICTIMS,
        "attack": attack,
        "threshold": threshold,
        "label_kept_threshold": label_kept,
        "minimum_targets": minimum_targets,
        "targets": len(targets),
        "undefined": undefined,
        "victims": victims,
        "label_kept": kept,
        "share_of_way": None if share is None else facts_of(share),
        "smallest_detectable_shift": smallest,
        "standard_error": None if error is None else error.standard_error,
        "p_value": None if error is None else error.p_value(shift.mean),
        "arms": arms,
        "accuracy_resolvable": held_out >= RESOLVABLE_ROWS,
        "held_out": held_out,
    }


def _paired_only(arm: Sequence[Sequence[float]], clean: Sequence[Sequence[float]], minimum_targets: int) -> Interval:
    """Change against the clean victim of the same seed, seeds being the same draws for every target."""
    differences = [[a - c for a, c in zip(mine, theirs, strict=True)] for mine, theirs in zip(arm, clean, strict=True)]
    return hierarchical_bootstrap(differences, minimum_targets=minimum_targets, shared_seeds=True)


@final
@dataclass(frozen=True)
class Evidence:
    """What a verdict is decided from.

    Attributes:
        shift: change of Jaccard beyond the seed drift, with its interval.
        kept: share of victims that kept the target's class.
        smallest: the shift that would have been claimed, where one is known.
        threshold: change from which an explanation counts as bent.
        label_kept: share of victims that must keep the class.
        attack: its name for people.
        targets: how many.
        undefined: how many of them have no defined score with the attack, with the clean victims, or with those for the null.
        minimum_targets: with fewer no interval is claimed.
        victims: of each arm and target; with fewer than two no interval is claimed.
        comparisons: how many comparisons the claim was corrected for; 1 for an audit by itself.
        adjusted: its p-value after that correction.
    """

    shift: Interval
    kept: float
    smallest: float | None
    threshold: float
    label_kept: float
    attack: str
    targets: int
    undefined: int
    minimum_targets: int
    victims: int
    comparisons: int = 1
    adjusted: float | None = None


@final
@dataclass(frozen=True)
class Decision:
    """A verdict with the rule that led to it.

    Attributes:
        verdict: `"PASS"`, `"WARN"` or `"FAIL"`.
        reason: a word for the rule, for grouping.
        sentence: for people who are not specialists.
    """

    verdict: str
    reason: str
    sentence: str


def decide(evidence: Evidence) -> Decision:
    """The first rule that holds."""
    shift, kept, smallest, targets = evidence.shift, evidence.kept, evidence.smallest, evidence.targets
    threshold, label_kept, undefined = evidence.threshold, evidence.label_kept, evidence.undefined
    minimum_targets = evidence.minimum_targets
    moved = f"{evidence.attack} moved the explanation {shift.mean:+.2f} (Jaccard) towards the attacker's map"
    span = "" if shift.low is None else f"{100 * LEVEL:g} % interval {shift.low:+.2f} to {shift.high:+.2f}"
    stayed = f"{kept:.0%} of the victims kept the prediction"
    few = f"{targets} target{'s' if targets > 1 else ''}"
    constant = f"the explanation was constant, and so undefined, for {undefined} of {few}"
    beyond = shift.low is not None and shift.low > 0
    among = f" among the study's {evidence.comparisons} comparisons" if evidence.comparisons > 1 else ""
    seen = "" if not smallest else f"; only one of {smallest:.2f} or more would have been seen{among}"
    none_found = f"no shift found beyond what another training seed does ({span})"
    chance = evidence.adjusted is not None and evidence.adjusted > FALSE_CLAIMS
    rules: list[tuple[bool, str, str, str]] = [
        (not math.isfinite(shift.mean), "WARN", "undefined", f"Inconclusive: {constant}."),
        (
            targets < minimum_targets,
            "WARN",
            "few",
            f"A demonstration on {few}, too few for a claim: {moved}, and {stayed}.",
        ),
        (
            evidence.victims < MINIMUM_VICTIMS,
            "WARN",
            "few",
            f"A demonstration with one victim, which does not tell what another training seed does: {moved}, and {stayed}.",
        ),
        (shift.low is None, "WARN", "undefined", f"Inconclusive: {constant}, which leaves too few for a claim."),
        (
            beyond and chance,
            "WARN",
            "chance",
            f"Inconclusive: {moved} ({span}), but{among} as much may be chance (adjusted p = {evidence.adjusted or 0:.2f}).",
        ),
        (
            beyond and shift.mean >= threshold and kept >= label_kept,
            "FAIL",
            "bent",
            f"The explanation can be bent: {moved} beyond what another training seed does ({span}), and {stayed}.",
        ),
        (
            beyond and kept < label_kept,
            "WARN",
            "label",
            f"{moved} ({span}), but only {stayed}: the attack is not a silent one.",
        ),
        (beyond, "WARN", "small", f"A small shift: {moved} ({span}), less than the threshold of {threshold:.2f}."),
        (
            shift.high is not None and shift.high < 0,
            "WARN",
            "away",
            f"{evidence.attack} moved the explanation {shift.mean:+.2f} (Jaccard), away from the attacker's map ({span}): "
            "it was not steered, but it is not stable either.",
        ),
        (undefined > 0, "WARN", "some", f"Inconclusive: {none_found}, but {constant}."),
        (
            not smallest,
            "WARN",
            "same",
            f"Inconclusive: {none_found}, but every score was the same, which says nothing of what would be seen.",
        ),
        (
            smallest is not None and smallest <= threshold and shift.high is not None and shift.high < threshold,
            "PASS",
            "none",
            f"{none_found[0].upper()}{none_found[1:]}; one of {smallest or 0:.2f} would have been seen{among}.",
        ),
        (
            smallest is not None and smallest <= threshold,
            "WARN",
            "open",
            f"Inconclusive: {none_found}, which does not rule out one of {threshold:.2f}. More targets would tell.",
        ),
        (True, "WARN", "weak", f"Inconclusive: {none_found}{seen}. More targets would tell."),
    ]
    return next(Decision(verdict, reason, sentence) for holds, verdict, reason, sentence in rules if holds)


def advice(verdict: str, attack: str) -> list[str]:
    """What to do about a verdict."""
    common = [
        "Know where training data comes from: the attack needs write access to a share of it, "
        "and unless it is one of dirty labels the label of every poison sample is right, so that label checks do not find it.",
        "Do not take one model's explanation as evidence: train a second model on another sample of the data and compare the two explanations.",
    ]
    if verdict == "FAIL":
        return [
            "Treat explanations of this model as something that whoever supplies its data can steer; do not base decisions on them alone.",
            *common,
            "Look for many near-duplicates of one sample in the training data: this poison lies within epsilon of its bases and repeats some of them.",
            "Audit again with a smaller budget to learn how little data is enough, and after every change of recipe.",
        ]
    if verdict == "PASS":
        return [
            f"This says that {attack} at this budget did not bend this explainer on this data; a stronger attack, a larger budget or more knowledge may.",
            *common,
        ]
    return [
        "Nothing is settled by this run: raise the number of targets or victims until the verdict is PASS or FAIL.",
        *common,
    ]
