"""The run folder: the content of its files, typed and versioned, and the reader of a saved run. No torch."""

from .checked import DamagedError, NewerError, read_checked
from .load import LazyMaps, SavedRun, load_run, reference_of
from .shapes import (
    FORMER_COLUMNS,
    HISTORY_COLUMNS,
    POISON_COLUMNS,
    SCORE_COLUMNS,
    SHAPE_VERSION,
    ArmSummary,
    CaseInWords,
    DataFacts,
    Environment,
    Estimate,
    Judged,
    Provenance,
    TargetFacts,
    Verdict,
)

__all__ = [
    "FORMER_COLUMNS",
    "HISTORY_COLUMNS",
    "POISON_COLUMNS",
    "SCORE_COLUMNS",
    "SHAPE_VERSION",
    "ArmSummary",
    "CaseInWords",
    "DamagedError",
    "DataFacts",
    "Environment",
    "Estimate",
    "Judged",
    "LazyMaps",
    "NewerError",
    "Provenance",
    "SavedRun",
    "TargetFacts",
    "Verdict",
    "load_run",
    "read_checked",
    "reference_of",
]
