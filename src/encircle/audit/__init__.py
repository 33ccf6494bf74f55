"""One case from beginning to end: craft, export, retrain, explain, judge."""

from .audit import Audit
from .case import Case, Judging
from .case_file import embedded_cases, read_case
from .run import Judgement, run_audit

__all__ = ["Audit", "Case", "Judgement", "Judging", "embedded_cases", "read_case", "run_audit"]
