"""The main job: craft, export, read back, retrain, explain, score, judge. It resumes where it was killed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from ..core import RESULTS_VERSION, InputError, digest
from ..goals import Goal
from ..models import second_derivatives
from ..run_folder import DamagedError, load_run
from ..scoring.verdicts import judge
from ..storage import exclusive_lock, read_json, sweep, write_json, write_text
from ..training.source import available
from .audit import Audit
from .environment import provenance
from .goal_context import rehearse
from .identity import kind_of, settings_of
from .parts import Parts
from .pieces import Pieces
from .progress import Reporter, Silent
from .users_code import users_errors
from .workshop import CODE_PATH, Workshop
from .yaml_text import dump, load

RESULTS = (
    "verdict.json",
    "environment.json",
    "scores.parquet",
    "poisons.parquet",
    "history.parquet",
    "maps.safetensors",
)
"""What `finish_run` writes."""


@final
@dataclass(frozen=True)
class Judgement:
    """What an audit ends with.

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


def run_audit(audit: Audit, runs: Path | str = "runs", reporter: Reporter | None = None) -> Judgement:
    """Do the audit, or what is left of it, in `runs/<id>/`.

    Args:
        audit: what to do.
        runs: folder of run folders.
        reporter: told about progress.

    Raises:
        InputError: something about the case cannot be audited.
        StorageError: a file could not be written; what was finished stays.
    """
    reporter = reporter or Silent()
    with users_errors():
        return _run(audit, Path(runs), reporter)


def _run(audit: Audit, runs: Path, reporter: Reporter) -> Judgement:
    available(audit.device)
    check_threads(audit.threads)
    fingerprint = audit.data.check()
    rehearse(audit)
    folder = run_folder(audit, runs, fingerprint)
    with exclusive_lock(folder), computing(audit.threads):
        sweep(folder)
        claim(audit, folder, fingerprint)
        reporter.plan(audit.title, audit.plan())
        if is_finished(folder):
            for kind, count in audit.plan().items():
                for _ in range(count):
                    reporter.finish(kind, reused=True)
            Parts(folder).discard()  # killed before it came to that
            return judgement_of(folder)
        shop = Workshop(audit, fingerprint, reporter, cache=folder.parent / "cache", home=folder)
        _ = shop.path  # chosen before anything depends on it, and kept in the run folder
        pieces = Pieces(audit, folder, shop, reporter)
        for row in pieces.rows:
            pieces.clean(row)
            for arm in audit.arms[1:]:
                pieces.arm(row, arm)
            pieces.ceiling(row)
        return finish_run(audit, folder, pieces.rows, fingerprint=fingerprint, seconds=shop.seconds)


def is_finished(folder: Path) -> bool:
    """Whether a run is judged and all that it came to is there; if some of it is not, all but the poison is deleted, to be made again."""
    if not (folder / "verdict.json").is_file():
        return False
    try:
        load_run(folder)
    except DamagedError:
        for name in RESULTS:  # the verdict first: without it the run is one that was stopped
            (folder / name).unlink(missing_ok=True)
        return False
    return True


_LONGEST_NAME = 220
"""Bytes of a run folder's name: file systems allow 255, and a study writes it under a longer, temporary one."""


def run_folder(audit: Audit, runs: Path | str, fingerprint: str) -> Path:
    """The folder of an audit's run: named for people, and after everything that decides its scores."""
    name = "-".join([_slug(audit.data.name), _slug(kind_of(audit.explainer)), _slug(audit.attack.kind)])
    identity = run_identity(audit, fingerprint)[:12]
    # Bytes, not letters, are counted by file systems; a cut may go through a letter.
    short = name.encode()[: _LONGEST_NAME - len(identity) - 1].decode(errors="ignore")
    return Path(runs) / f"{short}-{identity}"


def run_identity(audit: Audit, fingerprint: str) -> str:
    """What a run is known by: everything that decides its scores, and so not where somebody else may get the data."""
    described = audit.describe()
    data = {key: value for key, value in described["data"].items() if key != "source"}
    return digest([described | {"data": data}, audit.digests, RESULTS_VERSION, fingerprint])


def check_threads(count: int) -> None:
    """Refuse more threads than this machine has: they would take turns, and slow each other.

    Raises:
        InputError: there are not so many.
    """
    if count > (here := os.cpu_count() or 1):
        raise InputError(f"{count} threads are more than the {here} that this machine has; lower threads.")


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Compute as an audit does: with so many CPU threads, on which rounding depends, and kernels that can be differentiated twice."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with second_derivatives():
            yield
    finally:
        torch.set_num_threads(before)


def finish_run(
    audit: Audit, folder: Path, rows: Sequence[int], *, fingerprint: str, seconds: Mapping[str, float]
) -> Judgement:
    """Assemble the run's tables from its parts, judge them, and delete the parts.

    Args:
        audit: what was done.
        folder: the run folder, with the parts of all targets and arms.
        rows: the targets.
        fingerprint: of the data.
        seconds: time spent, by kind of work.
    """
    parts, data = Parts(folder), audit.data
    scores, goals = parts.assemble()
    path = read_json(folder / CODE_PATH)
    write_json(folder / "environment.json", {**_environment(audit, rows, fingerprint, seconds), "code_path": path})
    summary = judge(
        scores,
        attack=audit.attack.kind,
        titles=audit.titles,
        victims=audit.victims,
        accuracy_rows=len(data.validation) + len(data.test) - 1,
        threshold=audit.judging.threshold,
        label_threshold=audit.judging.label_kept,
        minimum_targets=audit.judging.minimum_targets,
    )
    write_json(
        folder / "verdict.json",
        {**summary, "case": _case_in_words(audit, goals), "about": audit.abouts, "notes": list(audit.data.notes)},
    )
    parts.discard()
    return judgement_of(folder)


def judgement_of(folder: Path) -> Judgement:
    """What a finished run was judged."""
    summary = read_json(folder / "verdict.json")
    return Judgement(folder, summary["verdict"], summary["sentence"], summary)


def _environment(audit: Audit, rows: Sequence[int], fingerprint: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    data = audit.data
    labels = [int(data.test.labels[row]) for row in rows]
    return {
        **provenance(audit.device),
        "run_id": run_identity(audit, fingerprint),
        "title": audit.title,
        "seconds": dict(seconds),
        "surplus_weights": dict(Counter(name.partition(".")[0] for name in audit.surplus)),
        "seeds": {
            "case": audit.seed,
            "victims": list(range(audit.victims)),
            "seed drift": list(range(audit.victims, 2 * audit.victims)),
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
            "space": audit.explainer.space(data.shape),
        },
        "targets": [
            {"row": row, "label": label, "class_name": data.classes[label]}
            for row, label in zip(rows, labels, strict=True)
        ],
    }


def _case_in_words(audit: Audit, goals: Sequence[str]) -> dict[str, str]:
    budget = audit.budget
    size = budget.size(len(audit.data.train))
    half = ", trained in bfloat16" if audit.recipe.precision == "bfloat16" else ""
    frozen = f", {audit.recipe.frozen_stages} stages frozen" if audit.recipe.frozen_stages else ""
    start = "scratch" if audit.recipe.start == "scratch" else "a checkpoint"
    if audit.recipe.starts > 1:
        start = f"one of {audit.recipe.starts} checkpoints"
    attacker = {} if audit.attacker is None else {"attacker": _otherwise(audit, audit.attacker)}
    return {
        **attacker,
        "data": audit.data.name,
        "model": type(audit.fresh()).__name__,
        "explainer": getattr(audit.explainer, "title", type(audit.explainer).__name__),
        "goal": goals[0] if len(goals) == 1 else goal_in_words(audit.goal),
        "budget": f"{size} samples ({size / len(audit.data.train):.1%} of the training set), epsilon {budget.epsilon} ({budget.norm}), {budget.mode}",
        "start": f"from {start}{frozen}{half}",
    }


def _otherwise(audit: Audit, supposed: Audit) -> str:
    """What an attacker supposes otherwise than it is."""
    mine, theirs = (one.describe() for one in (audit, supposed))
    parts = [f"the network {_in_words(theirs['model'])}"] if theirs["model"] != mine["model"] else []
    ours = settings_of(audit.recipe)
    parts += [f"{name} {value}" for name, value in settings_of(supposed.recipe).items() if value != ours[name]]
    return ", ".join(parts) or "the same"


def _in_words(settings: Mapping[str, Any]) -> str:
    others = ", ".join(f"{name} {value}" for name, value in settings.items() if name != "kind")
    return f"{settings['kind']} ({others})" if others else str(settings["kind"])


def goal_in_words(goal: Goal) -> str:
    """A goal and its settings, such as "region mid-left", or "features (count 6)"."""
    settings = {name: value for name, value in settings_of(goal).items() if name != "kind" and value}
    if set(settings) == {"name"}:
        return f"{kind_of(goal)} {settings['name']}"
    described = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"{kind_of(goal)} ({described})" if described else kind_of(goal)


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split()) or "unnamed"


def claim(audit: Audit, folder: Path, fingerprint: str) -> None:
    """Make the run folder this audit's, or refuse one that another case made; a case file of this audit that was damaged is written anew."""
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
