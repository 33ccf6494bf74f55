"""The page of a study: the answer, the table of all cells, curves, open cells. Every number is in words."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final
from urllib.parse import quote

from ..storage import write_text
from .formats import decimal, duration, estimate, known, p_value, percent
from .glossary import study_glossary
from .study_charts import Curves, curves
from .study_load import REASONS, SavedStudy, load_study
from .study_table import Table, table
from .study_thumbnails import Thumbnail, thumbnails
from .templating import script_hash, templates

_MOST_NAMED = 40
"""Number of open cells shown for a reason; the list of all cells has the rest."""


@final
@dataclass(frozen=True)
class RunLink:
    """A run of a cell: its report, and its folder."""

    href: str
    home: str
    folder: str
    seed: int
    verdict: str


@final
@dataclass(frozen=True)
class CellEntry:
    """A cell in the list of all cells."""

    number: int
    title: str
    verdict: str
    sentence: str
    shift: str
    facts: list[tuple[str, str]]
    thumbnails: list[Thumbnail]
    runs: list[RunLink]
    missing: list[tuple[str, str, str | None]]
    words: str


@final
@dataclass(frozen=True)
class Named:
    """A cell in a list of cells with a common property."""

    number: int
    title: str
    note: str
    log: str | None


@final
@dataclass(frozen=True)
class Open:
    """Cells that stay open for one reason."""

    reason: str
    meaning: str
    cells: list[Named]
    more: int


def render_study(folder: Path, destination: Path | None = None, *, title: str | None = None) -> Path:
    """Draw a saved study as one HTML file; only a complete new file replaces an earlier one.

    Args:
        folder: the study's folder.
        destination: the HTML file; by default `report.html` in the folder. Its links to the runs' reports are relative.
        title: heading of the page; by default the study's own.

    Returns:
        The file.

    Raises:
        InputError: `study.json` is missing, damaged or incomplete.
        StorageError: the file could not be written.
    """
    page = Path(destination) if destination is not None else Path(folder) / "report.html"
    write_text(page, study_to_html(load_study(folder), page.parent, title=title))
    return page


def study_to_html(study: SavedStudy, home: Path, *, title: str | None = None) -> str:
    """The page as text: the same study gives the same text, byte for byte.

    Args:
        study: the study.
        home: the folder the page will lie in; links are relative to it.
        title: heading of the page; by default the study's own.
    """
    facts, cells = study.facts, study.cells
    base = quote(Path(os.path.relpath(study.folder, home)).as_posix())
    pages = templates()
    script = pages.get_template("study.js").render()
    counts = Counter(cell["verdict"] for cell in cells)
    entries = [_entry(study, number, base) for number in range(len(cells))]
    links = [entry.runs[0].href if len(entry.runs) == 1 else f"#cell-{entry.number}" for entry in entries]
    heat: Table = table(study.axes, cells, facts["dose"], links)
    drawn: Curves | None = (
        None if facts["dose"] is None else curves(study.axes, cells, facts["dose"], float(facts["threshold"]))
    )
    return pages.get_template("study.html.j2").render(
        title=title or facts["title"],
        facts=facts,
        counts=[(verdict, counts[verdict]) for verdict in ("FAIL", "WARN", "PASS", "ERROR") if counts[verdict]],
        unfinished=facts["counts"]["runs"] - facts["counts"]["finished"],
        demonstration=any(cell["demonstration"] for cell in cells),
        heat=heat,
        curves=drawn,
        threshold=decimal(facts["threshold"]),
        opened=_open(cells, entries),
        quiet=_quiet(cells)[:_MOST_NAMED],
        quieter=max(counts["PASS"] - _MOST_NAMED, 0),
        entries=entries,
        provenance=_provenance(study),
        work=_work(study),
        glossary=study_glossary(),
        script_hash=script_hash(script),
    )


def _entry(study: SavedStudy, number: int, base: str) -> CellEntry:
    cell = study.cells[number]
    homes = [f"{base}/runs/{quote(run['folder'])}/" for run in cell["runs"]]
    runs = [
        RunLink(f"{home}report.html", home, run["folder"], run["seed"], run["verdict"])
        for home, run in zip(homes, cell["runs"], strict=True)
    ]
    logs = [
        (missing["title"], missing["why"], None if missing["log"] is None else f"{base}/{quote(missing['log'])}")
        for missing in cell["missing"]
    ]
    return CellEntry(
        number=number + 1,
        title=cell["title"],
        verdict=cell["verdict"],
        sentence=cell["sentence"],
        shift="" if cell["verdict"] == "ERROR" else estimate(cell["shift"], signed=True),
        facts=[] if cell["verdict"] == "ERROR" else _numbers(cell),
        thumbnails=thumbnails(study.folder / "runs" / runs[0].folder) if runs else [],
        runs=runs,
        missing=logs,
        words=f"{cell['title']} {cell['verdict']}".lower(),
    )


def _numbers(cell: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("Effect beyond the seed null", estimate(cell["shift"], signed=True)),
        ("Adjusted p (p by itself)", f"{p_value(cell['p_adjusted'])} ({p_value(cell['p'])})"),
        ("Would have been claimed from", _at_least(cell["smallest_detectable_shift"])),
        ("Seed null: clean against clean", estimate(cell["drift"], signed=True)),
    ]
    if cell["control"] is not None:
        rows.append(
            (f"Strongest control: {cell['control']['title']}", estimate(cell["control"]["change"], signed=True))
        )
    accuracy = estimate(cell["accuracy_change"], signed=True, scale=100, digits=1)
    return [
        *rows,
        ("Jaccard: clean, attacked", f"{estimate(cell['jaccard_clean'])}, {estimate(cell['jaccard_attack'])}"),
        ("L1: clean, attacked", f"{estimate(cell['l1_clean'])}, {estimate(cell['l1_attack'])}"),
        ("Label kept", percent(cell["label_kept"])),
        ("Accuracy change (points)", accuracy if cell["accuracy_resolvable"] else f"{accuracy}, too few rows to tell"),
        ("Evidence", f"{cell['targets']} targets, {cell['victims']} victims each"),
    ]


def _at_least(value: Any) -> str:
    """The smallest effect that would have been claimed; none for zero, which means equal scores."""
    number = known(value)
    return decimal(max(number, 0.01)) if number else "not known"


def _open(cells: Sequence[Mapping[str, Any]], entries: Sequence[CellEntry]) -> list[Open]:
    """Cells without a claim, by reason, the gravest first."""
    by_reason: dict[str, list[Named]] = {}
    for cell, entry in zip(cells, entries, strict=True):
        if cell["verdict"] in {"WARN", "ERROR"}:
            reason = cell["reason"]
            note, log = _note(cell, moved=reason in _MOVED), None
            if entry.missing:
                _, why, log = entry.missing[0]
                note = why if len(entry.missing) == 1 else f"{why} ({len(entry.missing)} runs did not finish)"
            by_reason.setdefault(reason, []).append(Named(entry.number, cell["title"], note, log))
    return [
        Open(*_REASONS[reason], named[:_MOST_NAMED], max(len(named) - _MOST_NAMED, 0))
        for reason in REASONS
        if (named := by_reason.get(reason))
    ]


_REASONS = {
    "error": ("Did not finish", "Nothing is known about these; “encircle study retry” tries them again."),
    "few": (
        "Too few targets or victims for a claim",
        "These are demonstrations; raise the number of targets, and of victims to two or more.",
    ),
    "undefined": ("Undefined explanations", "The map was constant for too many targets to say anything."),
    "chance": (
        "May be chance",
        "The interval excludes zero, but among all comparisons of the study such an effect may be chance. More targets would tell.",
    ),
    "label": ("The attack gave itself away", "The explanation moved, but too many victims changed their prediction."),
    "small": ("An effect smaller than the threshold", "It is there, and smaller than what was set to count."),
    "away": ("Moved, but away from the attacker’s map", "Not steered, but not stable either."),
    "weak": (
        "Too little evidence to call it nothing",
        "No effect was found, but one of the threshold’s size might have been missed. More targets would tell.",
    ),
    "some": (
        "Undefined for some targets",
        "No effect was found, but for some targets the map was constant, and nothing is known about those.",
    ),
    "open": (
        "The threshold is not ruled out",
        "No effect was found, but the interval still holds one of the threshold’s size. More targets would tell.",
    ),
    "same": ("The same score everywhere", "Every score was the same, which says nothing of what would be seen."),
}
_MOVED = {"label", "small", "away"}
"""Reasons of cells with an effect; their smallest claimable effect is not shown."""


def _note(cell: Mapping[str, Any], *, moved: bool = False) -> str:
    smallest = cell["smallest_detectable_shift"]
    detectable = (
        "" if moved or not known(smallest) else f"; one of {_at_least(smallest)} or more would have been claimed"
    )
    return f"{estimate(cell['shift'], signed=True)}{detectable}"


def _quiet(cells: Sequence[Mapping[str, Any]]) -> list[Named]:
    """Cells without an effect, and the smallest effect that would have been claimed."""
    return [
        Named(number, cell["title"], _note(cell), None)
        for number, cell in enumerate(cells, start=1)
        if cell["verdict"] == "PASS"
    ]


def _provenance(study: SavedStudy) -> list[tuple[str, str]]:
    facts = study.facts
    environment: Mapping[str, Any] = facts["environment"] or {}
    versions = environment.get("versions", {})
    rows = [
        ("Runs", f"{facts['counts']['finished']} of {facts['counts']['runs']} finished"),
        ("Cells", f"{len(facts['cells'])}, of which {facts['family']} make a claim that is corrected for (Holm)"),
        ("Machine", ", ".join(str(environment[name]) for name in ("platform", "device") if environment.get(name))),
        ("Commit", str(environment.get("commit") or "")),
        ("Python", str(environment.get("python") or "")),
        (
            "Versions",
            ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, dict) else "",
        ),
        ("Results version", str(environment.get("results_version") or "")),
    ]
    return [(name, value) for name, value in rows if value]


def _work(study: SavedStudy) -> list[tuple[str, str, str, str]]:
    """Kinds of task: numbers of done and other tasks, and their time."""
    rows = []
    for kind, states in study.facts["counts"]["tasks"].items():
        done = int(states.get("done", 0))
        remaining = sum(int(number) for number in states.values()) - done
        seconds = study.facts["seconds"].get(kind)
        rows.append((str(kind), str(done), str(remaining), "" if seconds is None else duration(seconds)))
    return sorted(rows)
