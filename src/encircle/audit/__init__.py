"""One case from beginning to end: craft, export, retrain, explain, judge."""

from .audit import Audit
from .case import Case
from .case_file import embedded_cases, read_case
from .finish import Judgement
from .run import run_audit
from .settings import Judging, OwnSettings

__all__ = ["Audit", "Case", "Judgement", "Judging", "OwnSettings", "embedded_cases", "read_case", "run_audit"]
