"""The main job: craft, export, read back, retrain, explain, score, judge. A killed run resumes."""

from __future__ import annotations

from pathlib import Path

from ..core import InputError
from ..storage import exclusive_lock, sweep, write_text
from ..training.source import available
from .audit import Audit
from .computing import check_threads, computing
from .draw_targets import TargetDraw
from .finish import Judgement, finish_run, is_finished, judgement_of
from .identity import run_folder, run_identity
from .models import ModelStore
from .progress import Reporter, Silent, WorkLog
from .rehearsal import rehearse
from .step_results import StepResults
from .steps import AuditSteps
from .users_code import users_errors
from .yaml_text import dump, load


def run_audit(audit: Audit, runs: Path | str = "runs", reporter: Reporter | None = None) -> Judgement:
    """Do the audit, or its remaining steps, in `runs/<id>/`.

    Args:
        audit: the audit.
        runs: folder of run folders.
        reporter: receives progress; None reports nothing.

    Returns:
        The judgement; all other results lie in its folder.

    Raises:
        InputError: the case cannot be audited.
        StorageError: a file could not be written; finished steps stay.
    """
    reporter = reporter or Silent()
    with users_errors():
        return _run(audit, Path(runs), reporter)


def _run(audit: Audit, runs: Path, reporter: Reporter) -> Judgement:
    available(audit.device)
    check_threads(audit.settings.threads)
    fingerprint = audit.data.check()
    rehearse(audit)
    folder, log = run_folder(audit, runs, fingerprint), WorkLog(reporter)
    with exclusive_lock(folder), computing(audit.settings.threads):
        sweep(folder)
        claim(audit, folder, fingerprint)
        reporter.plan(audit.settings.title, audit.plan())
        if is_finished(folder):
            for kind, count in audit.plan().items():
                log.reused(kind, count)
            StepResults(folder).discard()  # the run was killed before it discarded them
            return judgement_of(folder)
        models = ModelStore(audit, fingerprint, log, cache=folder.parent / "cache", home=folder)
        _ = models.path  # chosen before anything depends on it, and saved in the run folder
        targets = TargetDraw(audit, models)
        steps = AuditSteps(audit, folder, models, targets)
        for row in targets.rows:
            steps.clean(row)
            for arm in audit.arms[1:]:
                steps.arm(row, arm)
            steps.ceiling(row)
        return finish_run(audit, folder, targets.rows, fingerprint=fingerprint, seconds=log.seconds)


def claim(audit: Audit, folder: Path, fingerprint: str) -> None:
    """Claim the run folder for this audit, or refuse one that another case made.

    A damaged case file of this audit is written anew.

    Args:
        audit: the audit.
        folder: the run folder, locked by the caller.
        fingerprint: of the data.

    Raises:
        InputError: another case made the folder.
    """
    path, identity = folder / "case.yaml", run_identity(audit, fingerprint)
    content = {"encircle_run": identity, **audit.describe()}
    if not path.exists():
        write_text(path, dump(content))
        return
    try:
        known = load(path.read_text(encoding="utf-8"), str(path))
    except (InputError, UnicodeDecodeError):
        known = None
    if isinstance(known, dict) and known.get("encircle_run") == identity:
        if set(known) != set(content):
            write_text(path, dump(content))
    else:
        raise InputError(f"{folder} was made by another case; choose another folder with --runs, or delete it.")
