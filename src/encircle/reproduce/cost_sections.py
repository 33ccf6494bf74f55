"""The sections of what is behind the runs: how good the classifiers are, and what the full size would take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .kdd21 import CHOICE_SEED


def classifiers_section(results: Path) -> list[str]:
    """How good the classifiers are, in paragraphs; none where that was not measured."""
    path = results / "recipe.json"
    if not path.is_file():
        return []
    rows = []
    for data, recipes in json.loads(path.read_text("utf-8")).items():
        for name, facts in recipes.items():
            entries = [_spread(facts[key]) if key in facts else "" for key in ("accuracy", "balanced accuracy")]
            rows.append(f"| {data} | {name} | {' | '.join(entries)} | {facts.get('seconds a victim', '')} |")
    return [
        "## The classifiers",
        "On the whole test split of the ten breeds (799 photographs) and of the fractures (451 records), by `python tools/recipes.py`: mean, least and "
        f"most of the seeds, and the seconds of the machine that this was run on. Rates and lengths of the dogs' training were tried on a fifth of the "
        f"training part. Settings of attacks were tried with seed {CHOICE_SEED}: other targets and victims than those reported, and on the "
        "table another split.",
        "| data | recipe | accuracy | balanced accuracy | seconds a victim |\n|---|---|---|---|---|\n"
        + "\n".join(rows),
    ]


def full_size_section(results: Path) -> list[str]:
    """What the paper's size would take, in paragraphs; none where that was not counted."""
    path = results / "paper.json"
    if not path.is_file():
        return []
    facts = json.loads(path.read_text("utf-8"))
    rows = [
        f"| {name} | {count} | {seconds:.3g} | {count * seconds / 3600:.3g} |" for name, count, seconds in facts["work"]
    ]
    hours = sum(count * seconds for _, count, seconds in facts["work"]) / 3600
    return [
        "## What the full size would take",
        "The preset `paper` (120 breeds at 224 px, everything fine-tuned, 10 targets x 5 victims) has not been run: there was no accelerator. "
        "`python tools/paper_cost.py` counts the floating-point operations of a training pass at that size; on a machine that sustains "
        f"{facts['teraflops']:g} TFLOP/s they take about **{hours:.0f} hours**, if a second derivative costs two passes (supposed, not counted). "
        "So that crafting stays possible, δ covers the poison of each mini-batch "
        "there, as Algorithm 1 has it, and not all of it.",
        "| work | how often | seconds each | hours |\n|---|---|---|---|\n" + "\n".join(rows),
    ]


def _spread(scores: Sequence[float]) -> str:
    mean = f"{sum(scores) / len(scores):.3f}"
    return f"{mean} ({min(scores):.3f} to {max(scores):.3f})" if len(scores) > 1 else mean
