"""Many audits as one study: a grid of cases, their shared tasks done once, every cell judged among all."""

from .folder import Conclusion, begin, reopen
from .grid import Study, expand
from .run import conclude_now, executor_of, go_on, standing
from .study_file import StudyFile, embedded_studies, read_study_file

__all__ = [
    "Conclusion",
    "Study",
    "StudyFile",
    "begin",
    "conclude_now",
    "embedded_studies",
    "executor_of",
    "expand",
    "go_on",
    "read_study_file",
    "reopen",
    "standing",
]
