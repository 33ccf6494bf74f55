"""How strong an attack can be made: what each of its choices buys, and how little data it needs."""

from .ablation import Ablation, Row, ablate
from .smallest import LADDER, Smallest, lowest, smallest_budget

__all__ = ["LADDER", "Ablation", "Row", "Smallest", "ablate", "lowest", "smallest_budget"]
