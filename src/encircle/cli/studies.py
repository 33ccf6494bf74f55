"""Commands about studies: run, status, resume, retry, report. No logic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..core import InputError
from ..jobs.task import Executor, Tally
from ..report.text_table import cells_table
from ..storage import check_length, write_text
from ..study.dry_run import outlook_of_rest, outlook_of_study
from ..study.folder import Conclusion, begin, noted_device, reopen
from ..study.grid import expand, refuse_equal_runs
from ..study.run import conclude_now, executor_of, go_on, standing
from ..study.study_file import embedded_studies, named_study_file
from ..study.task_kinds import TASK_KINDS
from .board import clock
from .interrupts import STOPPED
from .options import Address, Cpus, Device, DryRun, Gpus, Json, Kind, Minutes, SameDevice, Zero
from .outlooks import say_timing, show_study
from .study_board import StudyBoard
from .tables import show
from .terminal import answers, app, messages

study_app = typer.Typer(
    no_args_is_help=True, help="Many audits as one study: a grid, resumable, judged and reported as a whole."
)
app.add_typer(study_app, name="study")

_Folder = Annotated[Path, typer.Argument(help="The study's folder.", metavar="FOLDER")]


@study_app.command()
def run(
    name: Annotated[
        str,
        typer.Argument(
            help="A study file, or the name of an embedded study (`encircle list studies`).", metavar="STUDY"
        ),
    ],
    folder: Annotated[
        Path | None, typer.Option(help="The study's folder; default: studies/<name of the file>.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key of every run's case, such as targets=3.", metavar="KEY=VALUE"),
    ] = None,
    dry_run: DryRun = False,
    executor: Kind = "local",
    address: Address = None,
    cpus: Cpus = None,
    minutes: Minutes = None,
    device: Device = "cpu",
    gpus: Gpus = 0.0,
    as_json: Json = False,
    exit_zero: Zero = False,
    outside: Annotated[
        bool, typer.Option("--allow-outside", help="Let the study name files outside of its own folder.")
    ] = False,
) -> None:
    """Run a study, or what is left of it: every run crafted, retrained, explained and judged; then the report of all."""
    file = named_study_file(name, overrides or [], outside=outside)
    refuse_equal_runs(expand(file, name), name)
    root = folder or Path("studies") / Path(name).stem
    check_length(root)
    if dry_run:
        show_study(outlook_of_study(file, name, cpus=cpus, device=device, say=say_timing), as_json=as_json)
        return
    begin(file, root)
    _go_on(root, executor_of(executor, address, cpus), minutes, device, gpus, as_json=as_json, exit_zero=exit_zero)


@study_app.command()
def resume(
    root: _Folder,
    dry_run: DryRun = False,
    executor: Kind = "local",
    address: Address = None,
    cpus: Cpus = None,
    minutes: Minutes = None,
    device: SameDevice = None,
    gpus: Gpus = 0.0,
    as_json: Json = False,
    exit_zero: Zero = False,
) -> None:
    """Go on with a study that was stopped, by whatever; what is recorded is not done again."""
    chosen, here = executor_of(executor, address, cpus), device or noted_device(root)
    if dry_run:
        _show_rest(root, cpus, here, again=False, as_json=as_json)
        return
    _go_on(root, chosen, minutes, here, gpus, as_json=as_json, exit_zero=exit_zero)


@study_app.command()
def retry(
    root: _Folder,
    dry_run: DryRun = False,
    executor: Kind = "local",
    address: Address = None,
    cpus: Cpus = None,
    minutes: Minutes = None,
    device: SameDevice = None,
    gpus: Gpus = 0.0,
    as_json: Json = False,
    exit_zero: Zero = False,
) -> None:
    """Go on with a study and try its failed tasks again."""
    chosen, here = executor_of(executor, address, cpus), device or noted_device(root)
    if dry_run:
        _show_rest(root, cpus, here, again=True, as_json=as_json)
        return
    _go_on(root, chosen, minutes, here, gpus, as_json=as_json, exit_zero=exit_zero, again=True)


@study_app.command()
def status(root: _Folder, as_json: Json = False) -> None:
    """Say how a study stands; also while it runs."""
    study = reopen(root)
    tally, running = standing(root)
    if as_json:
        facts = {"title": study.title, "counts": tally.counts, "running": running, "failures": tally.failures}
        answers.json_line(facts)
        return
    answers.print(_counts(study.title, tally))
    for label, since in running:
        answers.print(f"at work for {clock(time.time() - since)}: {label}", markup=False, soft_wrap=True)
    _say_failures(root, tally)


@study_app.command()
def report(root: _Folder, as_json: Json = False, exit_zero: Zero = False) -> None:
    """Judge what is finished and draw the study's report again; needs neither the models nor the data."""
    _answer(conclude_now(root), as_json=as_json, exit_zero=exit_zero)


@study_app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The study file to write.")] = Path("study.yaml"),
) -> None:
    """Write a commented study file to start from."""
    if path.exists():
        raise InputError(f"{path} already exists; choose another name or delete it.")
    write_text(path, embedded_studies()["how-much"])
    answers.print(f"Wrote {path}. Try: encircle study run {path} --dry-run", markup=False, soft_wrap=True)


def _show_rest(root: Path, cpus: int | None, device: str, *, again: bool, as_json: bool) -> None:
    rest = outlook_of_rest(root, cpus=cpus, device=device, again=again, say=say_timing)
    show_study(rest, as_json=as_json)


def _go_on(
    root: Path,
    executor: Executor,
    minutes: float | None,
    device: str,
    gpus: float,
    *,
    as_json: bool,
    exit_zero: bool,
    again: bool = False,
) -> None:
    stopped = f"stopped; go on with: encircle study resume {root}"
    conclusion = watched(root, executor, minutes, device, gpus, as_json=as_json, again=again, stopped=stopped)
    _answer(conclusion, as_json=as_json, exit_zero=exit_zero)


def watched(
    root: Path,
    executor: Executor,
    minutes: float | None,
    device: str,
    gpus: float,
    *,
    as_json: bool,
    stopped: str,
    again: bool = False,
) -> Conclusion:
    """Resume a study and show its progress; Ctrl-C ends it cleanly, with the words `stopped`."""
    board = StudyBoard(as_json=as_json)
    with stoppable(stopped), board:
        return go_on(root, executor, listener=board.hear, minutes=minutes, device=device, gpus=gpus, again=again)


@contextmanager
def stoppable(words: str) -> Iterator[None]:
    """Print these words after an interrupt has ended the work cleanly."""
    try:
        yield
    except KeyboardInterrupt:
        messages.print(words, markup=False, soft_wrap=True)
        raise typer.Exit(STOPPED) from None


def _answer(conclusion: Conclusion, *, as_json: bool, exit_zero: bool) -> None:
    """Print the study's conclusion, and exit with its code."""
    summary, root = conclusion.summary, conclusion.root
    if as_json:
        facts = {name: summary[name] for name in ("title", "verdict", "sentence", "counts")}
        cells = [{name: cell[name] for name in ("title", "verdict", "sentence")} for cell in summary["cells"]]
        answers.json_line({"event": "concluded", **facts, "cells": cells})
    else:
        show(cells_table(summary))
        answers.print(f"{conclusion.verdict}: {conclusion.sentence}", markup=False, soft_wrap=True)
        for cell in summary["cells"]:
            for missing in cell["missing"]:
                messages.print(
                    f"error: {missing['title']}: {missing['why']}", style="red", markup=False, soft_wrap=True
                )
        answers.print(f"Report: {root / 'report.html'}", markup=False, soft_wrap=True)
    verdicts = {cell["verdict"] for cell in summary["cells"]}
    code = 3 if "ERROR" in verdicts else int("FAIL" in verdicts and not exit_zero)
    raise typer.Exit(code)


def _counts(title: str, tally: Tally) -> Table:
    states = ("done", "running", "waiting", "blocked", "failed")
    table = Table("", *states, title=escape(title), title_justify="left")
    for kind, row in TASK_KINDS.items():
        if kind in tally.counts:
            table.add_row(row.words, *(str(tally.counts[kind].get(state, 0) or "") for state in states))
    return table


def _say_failures(root: Path, tally: Tally) -> None:
    for label, why, log in tally.failures:
        where = "" if log is None else f" (log: {root / log})"
        messages.print(f"failed: {label}: {why}{where}", style="red", markup=False, soft_wrap=True)
    if tally.failures:
        messages.print(f"try again with: encircle study retry {root}", markup=False, soft_wrap=True)
