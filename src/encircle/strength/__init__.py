"""How strong an attack can be made: what each of its choices buys, how far it reaches, and how little data it needs."""

from .ablation import Ablation, Row, ablate
from .reached import Reached, reach
from .smallest import LADDER, Smallest, lowest, smallest_budget

__all__ = ["LADDER", "Ablation", "Reached", "Row", "Smallest", "ablate", "lowest", "reach", "smallest_budget"]
