"""A study in its folder: begun, resumed, and concluded (docs/study-folder.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import polars as pl

from ..audit.case_file import read_yaml
from ..core import InputError, digest
from ..report import render_study
from ..storage import read_json, replacing, write_json, write_parquet, write_text
from .grid import Run, Study, expand
from .judge import Missing, answer, judge_cells
from .junit import write_junit
from .plan import Plan, Planned
from .study_file import StudyFile, gather_files, parse_study_file

_ENVIRONMENT = ("versions", "python", "platform", "device", "threads", "commit", "results_version")


def begin(file: StudyFile, root: Path) -> Study:
    """Claim a folder for the study and copy its files there, unless it is claimed already.

    Raises:
        InputError: the folder holds another study or something else.
        StorageError: it cannot be written.
    """
    path = root / "study.yaml"
    if not path.is_file() and root.is_dir() and any(not _ours(entry.name) for entry in root.iterdir()):
        raise InputError(f"{root} is not empty and holds no study; choose another folder with --folder.")
    study = expand(gather_files(file, root), str(path))
    if not path.is_file():
        write_text(path, study.text)
    elif not _is_study(path, study.text):
        if _is_untouched(root):  # the former file was refused when planned, and has been corrected
            write_text(path, study.text)
            return study
        raise InputError(f"{root} holds another study; choose another folder with --folder, or delete it.")
    return study


def _is_study(path: Path, text: str) -> bool:
    """Whether a file holds this study, in any spelling of YAML: other versions quote other texts."""
    try:
        known = path.read_text(encoding="utf-8")
        return known == text or read_yaml(known, str(path)) == read_yaml(text, str(path))
    except (UnicodeDecodeError, InputError):
        return False


def _is_untouched(root: Path) -> bool:
    """Whether no study was planned in the folder yet."""
    return not any((root / name).exists() for name in ("plan.json", "study.db", "runs", "shared", "pieces"))


def _ours(name: str) -> bool:
    """Whether a study killed at its beginning may have left this file."""
    return name == "files" or name.startswith(".partial-")


def reopen(root: Path) -> Study:
    """The study of a folder.

    Raises:
        InputError: the folder holds no study, or its `study.yaml` is damaged.
    """
    path = root / "study.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{root} holds no study; give the folder that `encircle study run` wrote.") from None
    file = parse_study_file(text, str(path))
    file.rename_files(lambda name: _inside(root, name))
    return expand(file, str(path))


def _inside(root: Path, name: str) -> str:
    if not (root / name).resolve().is_relative_to((root / "files").resolve()):
        raise InputError(f"{root / 'study.yaml'} names {name}, which is not a file of the study; start the study anew.")
    return name


def note_plan(root: Path, plan: Plan) -> None:
    """Save each run's last task and the device, so that results can be read without planning anew.

    Planning needs the data.
    """
    runs = [{"task": planned.task, "folder": planned.folder, "case": _known(planned.run)} for planned in plan.runs]
    write_json(root / "plan.json", {"runs": runs, "wanted": plan.wanted, "device": plan.device})


def noted_device(root: Path) -> str:
    """The device of a study's last plan; `"cpu"` without a plan.

    Raises:
        InputError: the note is damaged.
    """
    return str(_noted_plan(root).get("device", "cpu")) if (root / "plan.json").is_file() else "cpu"


def noted_runs(root: Path, study: Study) -> list[Planned]:
    """The runs of a study, as saved by `note_plan`.

    Raises:
        InputError: the note is missing, damaged, or of other cases, such as those before `study.yaml` was edited.
    """
    noted = _noted_plan(root)["runs"]
    if [row.get("case") for row in noted] != [_known(run) for run in study.runs]:
        raise InputError(
            f"{root / 'plan.json'} is of other cases than `study.yaml` now gives; run `encircle study resume {root}`."
        )
    return [Planned(run, row["task"], row["folder"]) for run, row in zip(study.runs, noted, strict=True)]


def _noted_plan(root: Path) -> dict[str, Any]:
    plan = read_json(root / "plan.json")
    noted = plan.get("runs") if isinstance(plan, dict) else None
    if not isinstance(noted, list) or not all(
        isinstance(row, dict) and {"task", "folder"} <= set(row) for row in noted
    ):
        raise InputError(
            f"{root / 'plan.json'} is damaged; run `encircle study resume {root} --device cpu` to write it anew, or with the other device that the study is on."
        )
    return dict(plan)


def _known(run: Run) -> str:
    return digest(run.case.model_dump(mode="json"))


@final
@dataclass(frozen=True)
class Conclusion:
    """The conclusion of a study.

    Attributes:
        root: its folder.
        verdict: the gravest of its cells: `"FAIL"`, `"ERROR"`, `"WARN"` or `"PASS"`.
        sentence: the answer for a non-specialist.
        summary: everything in `study.json`.
    """

    root: Path
    verdict: str
    sentence: str
    summary: dict[str, Any]


def conclude(
    root: Path,
    study: Study,
    missing: Mapping[str, Missing],
    *,
    counts: Mapping[str, Mapping[str, int]],
    seconds: Mapping[str, float],
) -> Conclusion:
    """Judge the finished runs and write the results: `study.json`, tables, JUnit XML and the report.

    Args:
        root: the study's folder.
        study: the study; runs outside its cells are ignored.
        missing: the reason why a run is not finished, by the id of its task.
        counts: tasks by kind and state.
        seconds: time spent by kind of task.

    Raises:
        InputError: the plan is damaged, or of other cases.
        StorageError: the folder cannot be written.
    """
    runs = noted_runs(root, study)
    asked = {index for cell in study.cells for index in cell.runs}
    finished = [run for index, run in enumerate(runs) if index in asked and run.task not in missing]
    cells = judge_cells(study, runs, root, missing)
    verdict, sentence = answer(study, cells)
    summary: dict[str, Any] = {
        "title": study.title,
        "verdict": verdict,
        "sentence": sentence,
        "advice": next((cell["advice"] for cell in cells if cell["verdict"] == verdict), []),
        "axes": [
            {
                "name": axis.name,
                "title": axis.title,
                "labels": list(axis.labels),
                "values": None if axis.numbers is None else list(axis.numbers),
            }
            for axis in study.axes
        ],
        "dose": None if study.dose is None else study.dose.name,
        "family": sum(cell["p"] is not None or cell["verdict"] == "ERROR" for cell in cells),
        "threshold": study.runs[0].case.judging.threshold,
        "cells": cells,
        "counts": {"runs": len(runs), "finished": len(finished), "tasks": counts},
        "seconds": dict(seconds),
        "environment": _environment(root, finished),
        "study": study.text,
    }
    write_json(root / "study.json", summary)
    _write_tables(root, study, cells, runs, finished)
    write_junit(root / "junit.xml", study.title, cells)
    render_study(root)
    return Conclusion(root, verdict, sentence, summary)


def _environment(root: Path, finished: Sequence[Planned]) -> dict[str, Any] | None:
    if not finished:
        return None
    known = read_json(root / "runs" / finished[0].folder / "environment.json")
    return {name: known[name] for name in _ENVIRONMENT if name in known}


def _write_tables(
    root: Path,
    study: Study,
    cells: Sequence[Mapping[str, Any]],
    runs: Sequence[Planned],
    finished: Sequence[Planned],
) -> None:
    """Write `cells.parquet` (one row per cell) and `scores.parquet` (all scores of the cells' finished runs)."""
    rows = []
    for cell in cells:
        row: dict[str, Any] = {
            name: cell[name] for name in ("title", "verdict", "sentence", "attack", "p", "p_adjusted")
        }
        row |= {name: cell[name] for name in ("smallest_detectable_shift", "label_kept", "targets", "victims")}
        for name in ("shift", "drift", "jaccard_clean", "jaccard_attack", "l1_clean", "l1_attack", "accuracy_change"):
            row |= {f"{name}_{end}": cell[name][end] for end in ("mean", "low", "high")}
        at = zip(study.axes, cell["at"], strict=True)
        labels = {f"axis {axis.name}" if axis.name in row else axis.name: axis.labels[index] for axis, index in at}
        rows.append(labels | row)
    write_parquet(root / "cells.parquet", pl.DataFrame(rows, infer_schema_length=None))
    if not finished:
        return
    titles = {runs[run].task: cell.title for cell in study.cells for run in cell.runs}
    frames = [
        pl.scan_parquet(root / "runs" / run.folder / "scores.parquet", glob=False).select(
            pl.lit(titles[run.task]).alias("cell"),
            pl.lit(run.folder).alias("run"),
            pl.lit(run.run.case.seed).alias("case_seed"),
            pl.all(),
        )
        for run in finished
    ]
    with replacing(root / "scores.parquet") as temporary:
        pl.concat(frames).sink_parquet(temporary)
