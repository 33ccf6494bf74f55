"""From scores to a verdict: PASS, WARN or FAIL, with the numbers and a sentence for people who are not specialists."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import polars as pl

from ..run_folder import ArmSummary, Judged
from .bootstrap import Interval, facts_of, hierarchical_bootstrap
from .effects import defined_targets, effect_error, fraction_of_ceiling, paired_effect, seed_null
from .thresholds import FALSE_CLAIMS, LEVEL, MINIMUM_VICTIMS, RESOLVABLE_ROWS


def judge(
    scores: pl.DataFrame,
    *,
    attack: str,
    titles: dict[str, str],
    references: Mapping[str, str] | None = None,
    victims: int,
    accuracy_rows: int,
    threshold: float,
    label_threshold: float,
    minimum_targets: int,
) -> Judged:
    """The judged summary of a run, as `verdict.json` holds it (docs/run-folder.md).

    Args:
        scores: the rows of `scores.parquet`.
        attack: the audited arm.
        titles: the arms in the order of the table, with their names for people; `clean` is the first, and `ceiling`, if there is one, no attack.
        references: for each arm that of clean victims under the same defence, which it is paired with; `clean` where it is not named.
        victims: of each arm and target; seeds from here on are clean victims for the seed null.
        accuracy_rows: held-out rows that accuracy was read on.
        threshold: effect on the Jaccard score from which an explanation counts as bent.
        label_threshold: share of victims that must keep the target's class.
        minimum_targets: with fewer no interval is claimed.

    Returns:
        What is judged of every arm, the audited attack's effect, and the verdict.

    Example:
        >>> rows = [
        ...     {"target": t, "arm": arm, "seed": s, "jaccard": score + 0.01 * ((7 * t + 3 * s) % 5), "l1": 1 - score,
        ...      "label_kept": True, "accuracy": 0.9, "drift": 0.0}
        ...     for t in range(6) for arm, score, seeds in (("clean", 0.2, 6), ("imf", 0.6, 3)) for s in range(seeds)
        ... ]
        >>> settings = {"threshold": 0.1, "label_threshold": 0.9, "minimum_targets": 5}
        >>> titles = {"clean": "no poison", "imf": "IMF"}
        >>> summary = judge(pl.DataFrame(rows), attack="imf", titles=titles, victims=3, accuracy_rows=600, **settings)
        >>> summary["verdict"], round(summary["arms"][1]["jaccard_change"]["mean"], 1)
        ('FAIL', 0.4)
    """
    targets = scores["target"].unique(maintain_order=True).to_list()
    # One victim says nothing of what another seed does, and an interval from many targets would look sharp all the same.
    enough_targets = minimum_targets if victims >= MINIMUM_VICTIMS else len(targets) + 1
    null_seeds = pl.col("seed") >= victims

    def column(arm: str, name: str, *, null: bool = False) -> list[list[float]]:
        rows = scores.filter((pl.col("arm") == arm) & (null_seeds if null else ~null_seeds)).sort("seed")
        return [
            rows.filter(pl.col("target") == target)[name].cast(pl.Float64).fill_null(math.nan).to_list()
            for target in targets
        ]

    def estimate(arm: str, name: str, *, null: bool = False) -> Interval:
        scored = column(arm, name, null=null)
        return hierarchical_bootstrap(scored, minimum_targets=enough_targets, shared_seeds=True)

    def clean_of(arm: str) -> str:
        return (references or {}).get(arm, "clean")

    def effect_of(arm: str, name: str) -> Interval:
        clean, null = column(clean_of(arm), name), column(clean_of(arm), name, null=True)
        compare: Callable[..., Interval] = seed_null if arm == clean_of(arm) else paired_effect
        samples = (clean, null) if arm == clean_of(arm) else (column(arm, name), clean, null)
        return compare(*samples, minimum_targets=enough_targets, shared_seeds=True)

    def summary_of(arm: str, title: str) -> ArmSummary:
        accuracies = column(arm, "accuracy"), column(clean_of(arm), "accuracy")
        summary: ArmSummary = {
            "arm": arm,
            "title": title,
            "jaccard": facts_of(estimate(arm, "jaccard")),
            "l1": facts_of(estimate(arm, "l1")),
            "jaccard_change": facts_of(effect_of(arm, "jaccard")),
            "l1_change": facts_of(effect_of(arm, "l1")),
            "label_kept": facts_of(estimate(arm, "label_kept")),
            "accuracy": facts_of(estimate(arm, "accuracy")),
            "accuracy_change": facts_of(_paired_change(*accuracies, enough_targets)),
            "drift": facts_of(estimate(arm, "drift", null=arm == clean_of(arm))),
        }
        if clean_of(arm) != "clean":
            summary["reference"] = clean_of(arm)
        return summary

    effect = effect_of(attack, "jaccard")
    # 81 of 90 are 0.9, whatever the mean of means is rounded to.
    label_fraction = round(estimate(attack, "label_kept").mean, 9)
    clean = clean_of(attack)
    samples = (column(attack, "jaccard"), column(clean, "jaccard"), column(clean, "jaccard", null=True))
    error = None if effect.low is None else effect_error(*samples, shared_seeds=True)
    detectable = None if error is None else error.detectable()
    # The ceiling is of undefended models.
    ceiling = column("ceiling", "jaccard") if "ceiling" in titles and clean == "clean" else None
    fraction = (
        None
        if ceiling is None
        else fraction_of_ceiling(*samples, ceiling, minimum_targets=enough_targets, shared_seeds=True)
    )
    undefined = len(targets) - defined_targets(*samples)
    evidence = Evidence(
        effect=effect,
        label_fraction=label_fraction,
        detectable=detectable,
        threshold=threshold,
        label_threshold=label_threshold,
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
        "label_kept_threshold": label_threshold,
        "minimum_targets": minimum_targets,
        "targets": len(targets),
        "undefined": undefined,
        "victims": victims,
        "label_kept": label_fraction,
        "share_of_way": None if fraction is None else facts_of(fraction),
        "smallest_detectable_shift": detectable,
        "standard_error": None if error is None else error.standard_error,
        "p_value": None if error is None else error.p_value(effect.mean),
        "arms": [summary_of(arm, title) for arm, title in titles.items()],
        "accuracy_resolvable": accuracy_rows >= RESOLVABLE_ROWS,
        "held_out": accuracy_rows,
    }


def _paired_change(arm: Sequence[Sequence[float]], clean: Sequence[Sequence[float]], minimum_targets: int) -> Interval:
    """Change against the clean victim of the same seed, seeds being the same draws for every target."""
    differences = [
        [poisoned - unpoisoned for poisoned, unpoisoned in zip(*scores, strict=True)]
        for scores in zip(arm, clean, strict=True)
    ]
    return hierarchical_bootstrap(differences, minimum_targets=minimum_targets, shared_seeds=True)


@final
@dataclass(frozen=True)
class Evidence:
    """What a verdict is decided from.

    Attributes:
        effect: change of Jaccard beyond the seed null, with its interval.
        label_fraction: share of victims that kept the target's class.
        detectable: the effect that would have been claimed, where one is known.
        threshold: effect from which an explanation counts as bent.
        label_threshold: share of victims that must keep the class.
        attack: its name for people.
        targets: how many.
        undefined: how many of them have no defined score with the attack, with the clean victims, or with those for the null.
        minimum_targets: with fewer no interval is claimed.
        victims: of each arm and target; with fewer than two no interval is claimed.
        comparisons: how many comparisons the claim was corrected for; 1 for an audit by itself.
        adjusted: its p-value after that correction.
    """

    effect: Interval
    label_fraction: float
    detectable: float | None
    threshold: float
    label_threshold: float
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
    """The verdict of the first rule that holds.

    Args:
        evidence: what is decided from.

    Example:
        >>> from dataclasses import replace
        >>> evidence = Evidence(
        ...     effect=Interval(0.3, 0.2, 0.4), label_fraction=1.0, detectable=0.1, threshold=0.1, label_threshold=0.9,
        ...     attack="IMF", targets=8, undefined=0, minimum_targets=5, victims=3,
        ... )
        >>> decide(evidence).verdict
        'FAIL'
        >>> print(decide(replace(evidence, effect=Interval(0.3, -0.1, 0.7), detectable=0.5)).sentence)
        Inconclusive: no shift found beyond what another training seed does (95 % interval -0.10 to +0.70); only one of 0.50 ...
    """
    effect, detectable, threshold = evidence.effect, evidence.detectable, evidence.threshold
    targets, minimum_targets, undefined = evidence.targets, evidence.minimum_targets, evidence.undefined
    label_fraction, label_threshold = evidence.label_fraction, evidence.label_threshold
    moved = f"{evidence.attack} moved the explanation {effect.mean:+.2f} (Jaccard) towards the attacker's map"
    span = "" if effect.low is None else f"{100 * LEVEL:g} % interval {effect.low:+.2f} to {effect.high:+.2f}"
    stayed = f"{label_fraction:.0%} of the victims kept the prediction"
    few = f"{targets} target{'s' if targets > 1 else ''}"
    constant = f"the explanation was constant, and so undefined, for {undefined} of {few}"
    beyond = effect.low is not None and effect.low > 0
    among = f" among the study's {evidence.comparisons} comparisons" if evidence.comparisons > 1 else ""
    detection = "" if not detectable else f"; only one of {detectable:.2f} or more would have been seen{among}"
    null_result = f"no shift found beyond what another training seed does ({span})"
    chance = evidence.adjusted is not None and evidence.adjusted > FALSE_CLAIMS
    rules: list[tuple[bool, str, str, str]] = [
        (not math.isfinite(effect.mean), "WARN", "undefined", f"Inconclusive: {constant}."),
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
        (effect.low is None, "WARN", "undefined", f"Inconclusive: {constant}, which leaves too few for a claim."),
        (
            beyond and chance,
            "WARN",
            "chance",
            f"Inconclusive: {moved} ({span}), but{among} as much may be chance (adjusted p = {evidence.adjusted or 0:.2f}).",
        ),
        (
            beyond and effect.mean >= threshold and label_fraction >= label_threshold,
            "FAIL",
            "bent",
            f"The explanation can be bent: {moved} beyond what another training seed does ({span}), and {stayed}.",
        ),
        (
            beyond and label_fraction < label_threshold,
            "WARN",
            "label",
            f"{moved} ({span}), but only {stayed}: the attack is not a silent one.",
        ),
        (beyond, "WARN", "small", f"A small shift: {moved} ({span}), less than the threshold of {threshold:.2f}."),
        (
            effect.high is not None and effect.high < 0,
            "WARN",
            "away",
            f"{evidence.attack} moved the explanation {effect.mean:+.2f} (Jaccard), away from the attacker's map ({span}): "
            "it was not steered, but it is not stable either.",
        ),
        (undefined > 0, "WARN", "some", f"Inconclusive: {null_result}, but {constant}."),
        (
            not detectable,
            "WARN",
            "same",
            f"Inconclusive: {null_result}, but every score was the same, which says nothing of what would be seen.",
        ),
        (
            detectable is not None and detectable <= threshold and effect.high is not None and effect.high < threshold,
            "PASS",
            "none",
            f"{null_result[0].upper()}{null_result[1:]}; one of {detectable or 0:.2f} would have been seen{among}.",
        ),
        (
            detectable is not None and detectable <= threshold,
            "WARN",
            "open",
            f"Inconclusive: {null_result}, which does not rule out one of {threshold:.2f}. More targets would tell.",
        ),
        (True, "WARN", "weak", f"Inconclusive: {null_result}{detection}. More targets would tell."),
    ]
    return next(Decision(verdict, reason, sentence) for holds, verdict, reason, sentence in rules if holds)


def advice(verdict: str, attack: str) -> list[str]:
    """What to do about a verdict.

    Args:
        verdict: `"PASS"`, `"WARN"` or `"FAIL"`.
        attack: its name for people.

    Example:
        >>> print(advice("PASS", "IMF")[0])
        This says that IMF at this budget did not bend this explainer on this data; a stronger attack, a larger budget or more knowledge may.
    """
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
