"""Where an attack called by the paper's name has other settings than the paper's."""

from __future__ import annotations

from encircle.attacks.imf import PAPER_SETTINGS
from encircle.strength.gates import Facts
from encircle.strength.side_by_side import title_of

from .entries import settings_diff


def unlike_the_paper(name: str, attack: Facts) -> str:
    """The settings in which an attack called by the paper's name differs from the paper: results of earlier versions may.

    Args:
        name: the attack's saved name.
        attack: its settings.

    Returns:
        A sentence with a space before it; empty where there is nothing to say.
    """
    diff = settings_diff({key: attack[key] for key in PAPER_SETTINGS if key in attack}, PAPER_SETTINGS)
    return f" {title_of(name)} has {diff}, unlike the paper." if diff else ""
