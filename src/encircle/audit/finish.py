"""The end of a run: its tables are assembled and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..attacks import Ceiling
from ..run_folder import SHAPE_VERSION, DamagedError, Environment, Verdict, load_run
from ..scoring.verdicts import judge
from ..storage import read_json, write_json
from .arm import Arm
from .audit import Audit
from .case_in_words import case_in_words
from .code_paths import CODE_PATH
from .environment import provenance
from .identity import kind_of, run_identity
from .step_results import StepResults

RESULTS = (
    "verdict.json",
    "environment.json",
    "scores.parquet",
    "poisons.parquet",
    "history.parquet",
    "maps.safetensors",
)
"""The files that `finish_run` writes."""


@final
@dataclass(frozen=True)
class Judgement:
    """The judgement at the end of an audit.

    Attributes:
        folder: the run folder.
        verdict: `"PASS"`, `"WARN"` or `"FAIL"`.
        sentence: the answer for a non-specialist.
        summary: everything in `verdict.json`.
    """

    folder: Path
    verdict: str
    sentence: str
    summary: dict[str, Any]


def finish_run(
    audit: Audit, folder: Path, rows: Sequence[int], *, fingerprint: str, seconds: Mapping[str, float]
) -> Judgement:
    """Assemble the run's tables from the step results, judge them, and delete the step results.

    Args:
        audit: the finished audit.
        folder: the run folder, with the results of all targets and arms.
        rows: the targets.
        fingerprint: of the data.
        seconds: time spent, by kind of work.
    """
    results, data, settings = StepResults(folder), audit.data, audit.settings
    scores, goals = results.assemble()
    path = read_json(folder / CODE_PATH)
    write_json(folder / "environment.json", _environment(audit, rows, fingerprint, seconds, path))
    summary = judge(
        scores,
        attack=audit.audited.key,
        titles=titles_of(audit),
        references={arm.key: arm.reference for arm in audit.arms},
        victims=settings.victims,
        accuracy_rows=len(data.validation) + len(data.test) - 1,
        threshold=settings.judging.threshold,
        label_threshold=settings.judging.label_kept,
        minimum_targets=settings.judging.minimum_targets,
    )
    about = {_key(scored): scored.about for scored in audit.scored if scored.about} | _about_parts(audit)
    case = case_in_words(audit, goals)
    verdict: Verdict = {**summary, "case": case, "about": about, "notes": list(data.notes)}
    write_json(folder / "verdict.json", verdict)
    results.discard()
    return judgement_of(folder)


def titles_of(audit: Audit) -> dict[str, str]:
    """Titles of an audit's arms and of its ceiling, by key, in the order of tables."""
    return {_key(scored): scored.title for scored in audit.scored}


def _key(scored: Arm | Ceiling) -> str:
    return scored.key if isinstance(scored, Arm) else scored.kind


def _about_parts(audit: Audit) -> dict[str, str]:
    """Descriptions of what the case names besides arms, such as `"explainer grad"`; own classes without one are left out.

    No arm has such a key: its kind is one word.
    """
    parts = {name: getattr(audit.settings, name, None) for name in ("data", "model", "explainer", "goal")}
    abouts = {f"{name} {kind_of(part)}": getattr(part, "about", "") for name, part in parts.items()}
    return {
        key: text for key, text in abouts.items() if text and isinstance(text, str)
    }  # own classes may use the name otherwise


def judgement_of(folder: Path) -> Judgement:
    """The judgement of a finished run."""
    summary = read_json(folder / "verdict.json")
    return Judgement(folder, summary["verdict"], summary["sentence"], summary)


def is_finished(folder: Path) -> bool:
    """Whether a run is judged and complete.

    If a result file is missing, all results but the poison are deleted, to be made again.

    Raises:
        NewerError: a newer version of encircle made the run; nothing of it is deleted.
    """
    if not (folder / "verdict.json").is_file():
        return False
    try:
        load_run(folder)
    except DamagedError:
        for name in RESULTS:  # the verdict first: a run without it counts as stopped
            (folder / name).unlink(missing_ok=True)
        return False
    return True


def _environment(
    audit: Audit, rows: Sequence[int], fingerprint: str, seconds: Mapping[str, float], path: dict[str, Any]
) -> Environment:
    data, settings = audit.data, audit.settings
    labels = [int(data.test.labels[row]) for row in rows]
    return {
        **provenance(audit.device),
        "shape_version": SHAPE_VERSION,
        "code_path": path,
        "run_id": run_identity(audit, fingerprint),
        "title": settings.title,
        "seconds": dict(seconds),
        "surplus_weights": dict(Counter(name.partition(".")[0] for name in audit.surplus)),
        "seeds": {
            "case": settings.seed,
            "victims": list(range(settings.victims)),
            "seed drift": list(range(settings.victims, 2 * settings.victims)),
        },
        "data": {
            "name": data.name,
            "kind": data.kind,
            "fingerprint": fingerprint,
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "pretrain": 0 if data.pretrain is None else len(data.pretrain),
            "classes": list(data.classes),
            "features": list(data.features),
            "shape": list(data.shape),
            "space": settings.explainer.space(data.shape),
        },
        "targets": [
            {"row": row, "label": label, "class_name": data.classes[label]}
            for row, label in zip(rows, labels, strict=True)
        ],
    }
