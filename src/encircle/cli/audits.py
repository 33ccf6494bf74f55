"""Commands about single audits: audit, report, list, init, check-poison. No logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ..audit import Audit, Case, Judgement, embedded_cases, read_case
from ..audit.cache import clear
from ..audit.goal_context import rehearse
from ..audit.kinds import KINDS, Kinds, summary_of
from ..audit.many import run_cases
from ..audit.run import check_threads
from ..core import EncircleError, InputError, unknown_name
from ..data.poison import find_marked
from ..report import render
from ..storage import check_length, write_text
from ..study.grid import expand
from ..study.plan import plan
from ..study.probe import forecast
from ..study.study_file import StudyFile, embedded_studies, parse_study_file
from .board import Board, clock
from .options import Device
from .tables import estimate_cell, name_cell, number_table, show
from .terminal import answers, app, messages, read_file


@app.command()
def audit(
    cases: Annotated[
        list[str] | None,
        typer.Argument(help="Case files, or names of embedded cases (`encircle list cases`).", metavar="CASE..."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key of every case, such as budget.fraction=0.05.", metavar="KEY=VALUE"),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    jobs: Annotated[int, typer.Option(min=1, help="Audits at a time, each in a process of its own.")] = 1,
    device: Device = "cpu",
    report_to: Annotated[Path | None, typer.Option("--report", help="Also write one report of all runs here.")] = None,
    title: Annotated[str | None, typer.Option(help="Title of that report.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit with 0 whatever the verdicts, if every audit finished.")
    ] = False,
    outside: Annotated[
        bool, typer.Option("--allow-outside", help="Let case files name files outside of their own folder.")
    ] = False,
) -> None:
    """Audit: craft poison, export it, retrain victims on it, explain them, judge, and write a report.

    Running the same command again resumes a run that was stopped, with the same scores.
    """
    for path in (runs, report_to):
        if path is not None:
            check_length(path)
    loaded = [load_case(name, overrides or [], outside=outside) for name in cases or ["digits-cam"]]
    if dry_run:
        for case in loaded:
            _say_what_would_be_done(case, device)
        return
    board = Board([case.title for case in loaded], min(jobs, len(loaded)))
    with Live(board, console=messages, refresh_per_second=4, transient=True, auto_refresh=messages.is_terminal):
        results = run_cases(loaded, runs, jobs, board.reporter, device=device)
    judged = [result for result in results if isinstance(result, Judgement)]
    errors = [result for result in results if isinstance(result, EncircleError)]
    for judgement in judged:
        render([judgement.folder], judgement.folder / "report.html")
    _show_verdicts(loaded, results)
    for error in errors:
        messages.print(f"error: {error}", style="red", markup=False)
    if judged:
        shown = judged[0].folder / "report.html"
        if report_to is not None:
            failures = [
                (case.title, str(result))
                for case, result in zip(loaded, results, strict=True)
                if isinstance(result, EncircleError)
            ]
            shown = render([judgement.folder for judgement in judged], report_to, title=title, failures=failures)
        answers.print(f"Report: {shown}", markup=False, soft_wrap=True)
    codes = [error.exit_code for error in errors]
    if not codes and not exit_zero:
        codes = [int(any(judgement.verdict == "FAIL" for judgement in judged))]
    raise typer.Exit(max(codes, default=0))


def _say_what_would_be_done(case: Case, device: str) -> None:
    planned = Audit.from_case(case, device)
    check_threads(case.threads)
    rehearse(planned)
    work = ", ".join(f"{count} x {kind}" for kind, count in planned.plan().items())
    notes = [work, planned.poison_in_words(), *planned.data.notes]
    if planned.surplus:
        stages = ", ".join(sorted({name.partition(".")[0] for name in planned.surplus}))
        notes.append(f"the checkpoint's {stages} have no place in the network and are left out")
    for note in notes:
        answers.print(escape(f"{case.title}: {note}"))
    study = expand(StudyFile(title=case.title, case=case.model_dump(mode="json")), case.title)
    todo = plan(study, Path(), device=device)
    expected = forecast(todo, Path(), 1, lambda what: messages.print(what, style="dim", markup=False))
    answers.print(escape(f"{case.title}: about {clock(expected.total)} on one processor, from a short probe"))


def load_case(name: str, overrides: list[str], *, outside: bool) -> Case:
    """The case of a file, or an embedded one, with some keys overridden."""
    path, embedded = Path(name), embedded_cases()
    if path.is_file():
        return read_case(read_file(path), overrides, str(path), folder=path.parent, outside=outside)
    if name in embedded:
        return read_case(embedded[name], overrides, name)
    raise InputError(
        f"there is no case file {name}; write one with `encircle init`, or name one of: {', '.join(embedded)}."
    )


def _show_verdicts(cases: Sequence[Case], results: Sequence[Judgement | EncircleError]) -> None:
    """Print a line a case, which has the whole width, and below it what became of each arm."""
    answers.print("Can the explanation be bent?", style="italic")
    for case, result in zip(cases, results, strict=True):
        verdict = "ERROR" if isinstance(result, EncircleError) else result.verdict
        answers.print()
        answers.print(f"{case.title}: {verdict}", style="bold", markup=False, soft_wrap=True)
        if isinstance(result, EncircleError):
            continue
        table = number_table("arm", ["Jaccard", "change", "L1", "label kept"])
        for arm in result.summary["arms"]:
            table.add_row(
                name_cell(arm["title"]),
                estimate_cell(arm["jaccard"], ".2f"),
                "" if arm["arm"] == "clean" else estimate_cell(arm["jaccard_change"]),
                estimate_cell(arm["l1"], ".2f"),
                f"{arm['label_kept']['mean'] or 0:.0%}",
            )
        show(table)
        for note in result.summary.get("notes", []):
            answers.print(note, markup=False, soft_wrap=True)
    words = "Mean over targets and victims of fresh seeds, with 95 % intervals where they are claimed."
    answers.print()
    answers.print(words, style="italic")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several make one report.", metavar="RUN...")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write it; by default report.html in the first run.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
) -> None:
    """Draw the report of saved runs again; needs neither the model nor the data."""
    answers.print(f"Report: {render(runs, out or runs[0] / 'report.html', title=title)}", markup=False, soft_wrap=True)


def _described(kinds: Kinds) -> dict[str, str]:
    return {name: summary_of(row) for name, row in kinds().items()}


_LISTS: dict[str, Callable[[], dict[str, str]]] = {
    **{kinds.plural: partial(_described, kinds) for kinds in KINDS.values()},
    "cases": lambda: {name: read_case(text, [], name).title for name, text in embedded_cases().items()},
    "studies": lambda: {name: parse_study_file(text, name).title for name, text in embedded_studies().items()},
}


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="attacks, explainers, goals, datasets, models, cases or studies.", metavar="WHAT")
    ],
) -> None:
    """List what a case can name, and the embedded cases and studies."""
    if what not in _LISTS:
        raise unknown_name("list", what, _LISTS)
    table = Table.grid(padding=(0, 2))
    for name, meaning in _LISTS[what]().items():
        table.add_row(escape(name), escape(meaning))
    answers.print(table)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The case file to write.")] = Path("case.yaml"),
) -> None:
    """Write a commented case file to start from."""
    if path.exists():
        raise InputError(f"{path} already exists; choose another name or delete it.")
    write_text(path, embedded_cases()["template"])
    answers.print(f"Wrote {path}. Try: encircle audit {path} --dry-run", markup=False, soft_wrap=True)


@app.command("clear-cache")
def clear_cache(
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
) -> None:
    """Delete the models and features that audits in a folder share; they are made again when needed."""
    count, freed = clear(runs / "cache")
    answers.print(f"Deleted {count} files, {freed / 2**20:.1f} MiB, of {runs / 'cache'}.", markup=False, soft_wrap=True)


@app.command("check-poison")
def check_poison(
    folder: Annotated[Path, typer.Argument(help="Folder to look through, with everything below it.")],
) -> None:
    """Find samples that this toolkit exported as poison; exits with 1 if there are any."""
    found = find_marked(folder)
    for path in found.marked:
        answers.print(str(path), markup=False, soft_wrap=True)
    answers.print(
        f"{len(found.marked)} of {found.looked_at} files are marked as poison made by encircle.", markup=False
    )
    raise typer.Exit(int(bool(found.marked)))
