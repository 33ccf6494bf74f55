"""The words of the report in plain language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..run_folder import Verdict

_VERDICTS = {
    "PASS": "No effect was found, and the audit was large enough to have found one of the threshold's size. "
    "It speaks of this attack, this budget and this data only.",
    "WARN": "A small effect, one that gave itself away by changing predictions, or too little evidence to tell. "
    "The sentence beside it says which.",
    "FAIL": "The attack bent the explanations: its effect is at least the threshold, "
    "while the victims kept their prediction.",
    "ERROR": "The audit did not finish, so it says nothing either way. It is never a pass.",
}

_TERMS = {
    "Target": "The test sample whose explanation the attacker wants to bend.",
    "Victim": "A model trained from the saved data, poison included, with a seed the attacker never saw. All scores "
    "come from victims, none from the models used for crafting.",
    "Map": "The explanation: how relevant each part of the input was to the prediction.",
    "Desired map": "The explanation the attacker wants the victim to give.",
    "Jaccard": "Overlap of the parts that a map marks (the upper half of its range) with those that the desired map "
    "marks, from 0 to 1. Higher is nearer to what the attacker wants.",
    "L1": "Mean distance between the map and the desired map, both scaled to [0, 1]. Lower is nearer to what the "
    "attacker wants.",
    "Undefined": "There is nothing to compute, for instance because a map is the same everywhere.",
    "Effect": "What an arm changes a score by, beyond the seed null: the score with its samples minus the score without, less what another "
    "training seed changes. It is claimed only where its interval excludes zero. Verdicts also call it a shift.",
    "Seed null": "What another training seed changes by itself: clean victims against clean victims. An effect inside it is no news.",
    "Fraction of the ceiling": "The attack’s effect over that of bending the model itself, which needs no poison.",
    "Interval": "In brackets, where one is claimed: a 95\u00a0% bootstrap interval over targets, then victims.",
    "Label kept": "The share of victims that still give the target its class. An attack that flips it has failed.",
    "Accuracy change": "Percentage points on held-out rows, each victim against the clean victim of the same seed.",
    "Collateral drift": "How far the explanations of other test samples turn (one minus the cosine). A careless "
    "attack moves them all and is easier to notice.",
    "Base": "The sample from which a poison sample was made.",
    "L∞, L2, PSNR": "Between a poison sample and its base: the largest change of a single value, the length of the "
    "whole change, and its faintness in decibels (higher is fainter).",
    "Upper and lower objective": "While crafting, the upper objective (L_adv) says how far the explanation is from the "
    "desired map, the lower (L_train) how well the attacker's models learn.",
}


_PARTS = {"data": "Data", "model": "Model", "explainer": "Explainer", "goal": "Desired map"}
"""What a case names besides arms, and its name in a report."""


def parts_of(verdict: Verdict) -> dict[str, str]:
    """Descriptions of a run's data, model, explainer and goal, by their titles; none for runs of earlier versions."""
    case: Mapping[str, Any] = verdict["case"]
    parts: dict[str, str] = {}
    for key, text in verdict.get("about", {}).items():
        name, _, kind = key.partition(" ")
        if kind and name in _PARTS:
            title = kind if name == "goal" else case[name]  # the case tells a goal's label, which is of one target
            parts[f"{_PARTS[name]}: {title}"] = text
    return parts


def glossary(
    arm_titles: Mapping[str, str], abouts: Mapping[str, str], parts: Mapping[str, str] | None = None
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headed lists of words and meanings.

    Args:
        arm_titles: the arms that appear in the report, by their kinds.
        abouts: descriptions of the arms, from their classes; absent in runs of earlier versions.
        parts: descriptions of what else was audited, by title (`parts_of`).
    """
    arms = [(title, abouts.get(name, "docs/method.md describes it.")) for name, title in arm_titles.items()]
    audited = [("What was audited", [*parts.items()])] if parts else []
    return [("Verdicts", [*_VERDICTS.items()]), *audited, ("Arms", arms), ("Scores and words", [*_TERMS.items()])]


_STUDY_TERMS = {
    "Cell": "One combination of what the study varies. Runs that differ only in their seed are pooled into one cell.",
    "Effect": "How far the attack moved the explanation towards the desired map (Jaccard), beyond the seed null. Verdicts also call it a shift.",
    "Dose–response": "The effect against how much the attacker controls. A real effect usually grows with it.",
    "Seed null": _TERMS["Seed null"],
    "Adjusted p": "The probability of so large an effect if there were none, corrected by Holm’s procedure for all comparisons of the study: "
    "claiming wherever it is at most 0.05 makes any false claim at all in one study of twenty.",
    "Would have been claimed from": "The smallest effect that this cell would have claimed with 80\u00a0% probability, after the correction. "
    "That none was found says little where this number is large.",
    "Strongest control": "The arm without an attack, or with the paper’s baseline, that may have moved the explanation furthest.",
}


def study_glossary() -> list[tuple[str, list[tuple[str, str]]]]:
    """Headed lists of the words of a study's page."""
    shared = (
        "Target",
        "Victim",
        "Map",
        "Desired map",
        "Jaccard",
        "L1",
        "Undefined",
        "Interval",
        "Label kept",
        "Accuracy change",
    )
    terms = {**_STUDY_TERMS, **{name: _TERMS[name] for name in shared}}
    return [("Verdicts", [*_VERDICTS.items()]), ("Words", [*terms.items()])]
