"""One case from beginning to end: craft, export, retrain, explain, judge."""

from .case import Case, Judging, embedded_cases, read_case
from .run import Audit, Judgement

__all__ = ["Audit", "Case", "Judgement", "Judging", "embedded_cases", "read_case"]
