"""The sections of trials beside the tables: full fine-tuning, readings of the paper, and how settings were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..report.formats import decimal, plain_estimate
from ..score_names import JUDGED_SCORES
from .beside import settings_of_cells
from .kdd21 import CHOICE_SEED, CHOICES, PARTS, READINGS
from .results import CellResult, read_cells
from .tables import OTHERS, accuracy_change, changes_of, l1_of, sizes, title_of


def full_section(results: Path) -> list[str]:
    """The check with full fine-tuning, in paragraphs; none without results."""
    cells = read_cells(results / "full")
    if not cells:
        return []
    first = next(iter(cells.values()))
    text = (
        f"{sizes(first)}; {settings_of_cells(cells)} Too few for intervals, and of other breeds "
        "and surrogates than the table: it shows whether the attack can get through without frozen stages, not what freezing changes."
    )
    return [f"## Checked with {PARTS['full'].removeprefix('the check with ')}", text, _plain(cells)]


def readings_section(results: Path) -> list[str]:
    """What each reading of the paper changes, in paragraphs; none without results."""
    cells = read_cells(results / "readings")
    if not cells:
        return []
    return [
        "## What the readings change",
        "One reading that the paper leaves open changed at a time, on the embedded data, where runs are cheap: effect on Jaccard, towards the desired "
        f"map. {sizes(next(iter(cells.values()))).partition(',')[0]}; on the digits two "
        "surrogates and six epochs. WM rows are of WM itself. As the paper has it, bases are of the target's class and T itself; here a tenth of them are T. "
        f"Victims from scratch learn for longer at another rate. {OTHERS}",
        changes_of(cells, "reading", READINGS),
    ]


def choices_section(results: Path) -> list[str]:
    """How the settings were chosen, in paragraphs; none without results."""
    cells = read_cells(results / "choices")
    if not cells:
        return []
    return [
        "## How the settings for the table were chosen",
        f"On the split of seed {CHOICE_SEED}, other targets and other victims than those reported: effect on Jaccard, towards the desired map, "
        "then L1, then the change of accuracy in points. The order of settings whose intervals overlap means nothing. "
        f"{OTHERS}",
        changes_of(cells, "setting", CHOICES),
        changes_of(cells, "setting", CHOICES, l1_of),
        changes_of(cells, "setting", CHOICES, accuracy_change),
    ]


def _plain(cells: Mapping[str, CellResult]) -> str:
    rows = []
    for name, cell in cells.items():
        attack = cell.attack
        entries = [
            " → ".join(decimal(arm[metric]["mean"]) for arm in (cell.arm("clean"), attack)) for metric in JUDGED_SCORES
        ]
        rows.append(
            f"| {title_of(name)} | {' | '.join(entries)} | {plain_estimate(attack['jaccard_change'])} | {attack['label_kept']['mean']:.0%} |"
        )
    head = "| cell | Jaccard, clean → IMF | L1, clean → IMF | effect | label kept |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows)
