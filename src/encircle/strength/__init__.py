"""How strong an attack can be made: what each of its choices buys, how far it reaches, and how little data it needs."""

from .ablation import Ablation, Row, ablate, choices_of, phase_study
from .reached import Reached, reach, reach_study
from .smallest import LADDER, Smallest, lowest, shares_study, smallest_budget

__all__ = [
    "LADDER",
    "Ablation",
    "Reached",
    "Row",
    "Smallest",
    "ablate",
    "choices_of",
    "lowest",
    "phase_study",
    "reach",
    "reach_study",
    "shares_study",
    "smallest_budget",
]
