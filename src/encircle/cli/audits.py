"""Commands about single audits: audit, report, list, init, check-poison. No logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ..audit import Case, Judgement, embedded_cases, read_case
from ..audit.cache import clear
from ..audit.case_file import named_case
from ..audit.kinds import KINDS, Kinds, summary_of
from ..audit.several import run_cases
from ..audit.time_limit import TimeLimit
from ..core import EncircleError, InputError, unknown_name
from ..data.poison import find_marked
from ..report import render
from ..report.text_table import arms_table
from ..storage import check_length, write_text
from ..study.dry_run import outlook_of_case
from ..study.study_file import embedded_studies, parse_study_file
from .board import Board
from .options import Device, DryRun, Jobs, Json, Minutes, Zero
from .outlooks import say_timing, show_audits
from .tables import show
from .terminal import answers, app, messages


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
    jobs: Jobs = 1,
    minutes: Minutes = None,
    device: Device = "cpu",
    report_to: Annotated[Path | None, typer.Option("--report", help="Also write one report of all runs here.")] = None,
    title: Annotated[str | None, typer.Option(help="Title of that report.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    exit_zero: Zero = False,
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
    loaded = [named_case(name, overrides or [], outside=outside) for name in cases or ["digits-cam"]]
    if dry_run:
        show_audits([outlook_of_case(case, device, say_timing) for case in loaded], as_json=as_json)
        return
    board = Board([case.title for case in loaded], min(jobs, len(loaded)))
    with Live(board, console=messages, refresh_per_second=4, transient=True, auto_refresh=messages.is_terminal):
        results = run_cases(loaded, runs, jobs, board.reporter, device=device, limit=TimeLimit.starting_now(minutes))
    judged = [result for result in results if isinstance(result, Judgement)]
    errors = [result for result in results if isinstance(result, EncircleError)]
    for judgement in judged:
        render([judgement.folder], judgement.folder / "report.html")
    shown: Path | None = None
    if judged:
        shown = judged[0].folder / "report.html"
        if report_to is not None:
            failures = [
                (case.title, str(result))
                for case, result in zip(loaded, results, strict=True)
                if isinstance(result, EncircleError)
            ]
            shown = render([judgement.folder for judgement in judged], report_to, title=title, failures=failures)
    if as_json:
        answers.json_line(_facts(loaded, results, shown))
    else:
        _show_verdicts(loaded, results)
    for error in dict.fromkeys(map(str, errors)):
        messages.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
    if shown is not None and not as_json:
        answers.print(f"Report: {shown}", markup=False, soft_wrap=True)
    codes = [error.exit_code for error in errors]
    if not codes and not exit_zero:
        codes = [int(any(judgement.verdict == "FAIL" for judgement in judged))]
    raise typer.Exit(max(codes, default=0))


def _show_verdicts(cases: Sequence[Case], results: Sequence[Judgement | EncircleError]) -> None:
    """Print one line per case, over the full width, and below it the results of each arm."""
    answers.print("Can the explanation be bent?", style="italic")
    for case, result in zip(cases, results, strict=True):
        verdict = "ERROR" if isinstance(result, EncircleError) else result.verdict
        answers.print()
        answers.print(f"{case.title}: {verdict}", style="bold", markup=False, soft_wrap=True)
        if isinstance(result, EncircleError):
            continue
        show(arms_table(result.summary))
        for note in result.summary.get("notes", []):
            answers.print(note, markup=False, soft_wrap=True)
    words = "Mean over targets and victims of fresh seeds, with 95 % intervals where they are claimed."
    answers.print()
    answers.print(words, style="italic")


def _facts(
    cases: Sequence[Case], results: Sequence[Judgement | EncircleError], report_page: Path | None
) -> dict[str, Any]:
    """Every audit's verdict or error, for programs."""
    audits: list[dict[str, Any]] = []
    for case, result in zip(cases, results, strict=True):
        if isinstance(result, EncircleError):
            audits.append({"title": case.title, "verdict": "ERROR", "error": str(result)})
        else:
            facts = {"verdict": result.verdict, "sentence": result.sentence, "folder": str(result.folder)}
            audits.append({"title": case.title, **facts, "arms": result.summary["arms"]})
    return {"event": "audited", "audits": audits, "report": None if report_page is None else str(report_page)}


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
        str,
        typer.Argument(
            help="attacks, defences, explainers, goals, datasets, models, cases or studies.", metavar="WHAT"
        ),
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
    poison = find_marked(folder)
    for path in poison.marked:
        answers.print(str(path), markup=False, soft_wrap=True)
    answers.print(
        f"{len(poison.marked)} of {poison.looked_at} files are marked as poison made by encircle.", markup=False
    )
    raise typer.Exit(int(bool(poison.marked)))
