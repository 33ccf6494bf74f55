"""An audit's settings in the words of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..defences import NoDefence
from ..goals import Goal
from ..run_folder import CaseInWords
from .audit import Audit
from .identity import kind_of, settings_of


def case_in_words(audit: Audit, goals: Sequence[str]) -> CaseInWords:
    """An audit's settings, each in a few words, for the head of its report.

    Args:
        audit: the audit.
        goals: the desired maps' names, by target.
    """
    settings, budget = audit.settings, audit.settings.budget
    size = budget.size(len(audit.data.train))
    half = ", trained in bfloat16" if settings.recipe.precision == "bfloat16" else ""
    frozen = f", {settings.recipe.frozen_stages} stages frozen" if settings.recipe.frozen_stages else ""
    start = "scratch" if settings.recipe.start == "scratch" else "a checkpoint"
    if settings.recipe.starts > 1:
        start = f"one of {settings.recipe.starts} checkpoints"
    words: CaseInWords = {
        "data": audit.data.name,
        "model": type(audit.fresh()).__name__,
        "explainer": getattr(settings.explainer, "title", type(settings.explainer).__name__),
        "goal": goals[0] if len(goals) == 1 else goal_in_words(settings.goal),
        "budget": f"{size} samples ({size / len(audit.data.train):.1%} of the training set), epsilon {budget.epsilon} ({budget.norm}), {budget.mode}",
        "start": f"from {start}{frozen}{half}",
    }
    if audit.attacker is not None:
        words["attacker"] = _otherwise(audit, audit.attacker)
    if not isinstance(settings.defence, NoDefence):
        words["defence"] = _in_words(settings_of(settings.defence))
    return words


def _otherwise(audit: Audit, supposed: Audit) -> str:
    """The attacker's wrong suppositions."""
    model, recipe = supposed.describe()["model"], settings_of(audit.settings.recipe)
    parts = [f"the network {_in_words(model)}"] if model != audit.describe()["model"] else []
    parts += [
        f"{name} {value}" for name, value in settings_of(supposed.settings.recipe).items() if value != recipe[name]
    ]
    return ", ".join(parts) or "the same"


def _in_words(settings: Mapping[str, Any]) -> str:
    others = ", ".join(f"{name} {value}" for name, value in settings.items() if name != "kind")
    return f"{settings['kind']} ({others})" if others else str(settings["kind"])


def goal_in_words(goal: Goal) -> str:
    """A goal and its settings, such as "region mid-left", or "features (count 6)"."""
    settings = {name: value for name, value in settings_of(goal).items() if name != "kind" and value}
    if set(settings) == {"name"}:
        return f"{kind_of(goal)} {settings['name']}"
    described = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"{kind_of(goal)} ({described})" if described else kind_of(goal)
