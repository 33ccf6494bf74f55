"""The command `encircle`: commands and exit codes, no logic.

Exit codes: 0 every verdict PASS or WARN, 1 some verdict FAIL, 2 bad input, 3 something did not finish (ERROR).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, final

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from .audit import Audit, Case, Judgement, embedded_cases, read_case
from .audit.case import AnyAttack, AnyData, AnyExplainer, AnyGoal, AnyModel, options
from .audit.goal_context import rehearse
from .audit.many import run_cases
from .audit.progress import Estimate, Reporter
from .core import EncircleError, InputError, unknown_name
from .data.poison import find_marked
from .report import render
from .storage import write_text

PRIORS = {"model": 1.0, "craft": 10.0, "control": 0.2, "victim": 0.7}
"""Seconds a piece of work is thought to take before one has been timed."""

app = typer.Typer(
    name="encircle",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How far can poisoned training data bend a model's explanations? Audit models that you own or may study.",
    epilog="Exit codes: 0 every verdict PASS or WARN; 1 some verdict FAIL; 2 bad input; 3 something did not finish.",
)
messages = Console(stderr=True, highlight=False)
answers = Console(highlight=False)


@final
class _Board:
    """Progress of several audits: bars and time left on a terminal, a line now and then elsewhere."""

    def __init__(self, titles: Sequence[str], jobs: int) -> None:
        self._jobs = jobs
        self._lines = dict(enumerate(titles))
        self._now: dict[int, str] = {}
        self._estimates = {place: Estimate(PRIORS) for place in self._lines}
        self._full: dict[int, float] = {}
        self._ended: set[int] = set()
        self._started = self._told = time.monotonic()

    def reporter(self, place: int) -> Reporter:
        """The reporter of one audit."""
        return _Row(self, place)

    def note(self, place: int, what: str) -> None:
        """Say what an audit is doing; off a terminal, every 15 seconds."""
        self._now[place] = what
        if not messages.is_terminal and time.monotonic() - self._told > 15:
            self._told = time.monotonic()
            messages.print(
                escape(f"[{self._elapsed()}] {self._lines[place]}: {what}; about {_clock(self.left())} left")
            )

    def left(self) -> float:
        """Seconds until all audits are done; one that has not begun is thought to be like those that have."""
        each = [estimate.left for estimate in self._estimates.values()]
        begun = [full for full in self._full.values() if full]
        waiting = (len(self._lines) - len(begun)) * (sum(begun) / len(begun) if begun else 0.0)
        return max((sum(each) + waiting) / self._jobs, max(each, default=0.0))

    def _elapsed(self) -> str:
        return _clock(time.monotonic() - self._started)

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for place, title in self._lines.items():
            left = self._estimates[place].left
            full = self._full.get(place, 0.0)
            done = 1.0 if place in self._ended else (max(1 - left / full, 0.0) if full else 0.0)
            state = "done" if place in self._ended else escape(self._now.get(place, "waiting"))
            table.add_row(escape(title), ProgressBar(total=1, completed=done, width=24), f"{done:4.0%}", state)
        remaining = f"about {_clock(self.left())} left" if self._full else "time left not known yet"
        table.add_row(f"[dim]{self._elapsed()} so far, {remaining}[/dim]")
        return table

    def begin(self, place: int, work: dict[str, int]) -> None:
        """An audit begins, that consists of so many pieces of each kind of work."""
        self._estimates[place].plan(work)
        self._full[place] = self._estimates[place].left

    def estimate(self, place: int) -> Estimate:
        """The estimate of one audit."""
        return self._estimates[place]

    def end(self, place: int) -> None:
        """An audit is done."""
        self._ended.add(place)


@final
class _Row:
    """The reporter of one audit on the board."""

    def __init__(self, board: _Board, place: int) -> None:
        self._board, self._place = board, place
        self._left = 0

    def plan(self, title: str, work: dict[str, int]) -> None:
        self._left = sum(work.values())
        self._board.begin(self._place, work)

    def begin(self, kind: str, label: str) -> None:
        self._board.estimate(self._place).begin(kind)
        self._board.note(self._place, label)

    def advance(self, done: int, planned: int) -> None:
        self._board.estimate(self._place).advance(done / planned)

    def finish(self, kind: str, *, reused: bool = False) -> None:
        self._board.estimate(self._place).finish(kind, reused=reused)
        self._left -= 1
        if self._left <= 0:
            self._board.end(self._place)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


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
    report_to: Annotated[Path | None, typer.Option("--report", help="Also write one report of all runs here.")] = None,
    title: Annotated[str | None, typer.Option(help="Title of that report.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit with 0 whatever the verdicts, if every audit finished.")
    ] = False,
) -> None:
    """Audit: craft poison, export it, retrain victims on it, explain them, judge, and write a report.

    Running the same command again resumes a run that was stopped, with the same scores.
    """
    loaded = [_load(name, overrides or []) for name in cases or ["digits-cam"]]
    if dry_run:
        for case in loaded:
            planned = Audit.from_case(case)
            rehearse(planned)
            work = planned.plan()
            answers.print(escape(f"{case.title}: " + ", ".join(f"{count} x {kind}" for kind, count in work.items())))
        return
    board = _Board([case.title for case in loaded], min(jobs, len(loaded)))
    with Live(board, console=messages, refresh_per_second=4, transient=True, auto_refresh=messages.is_terminal):
        results = run_cases(loaded, runs, jobs, board.reporter)
    judged = [result for result in results if isinstance(result, Judgement)]
    errors = [result for result in results if isinstance(result, EncircleError)]
    for judgement in judged:
        render([judgement.folder], judgement.folder / "report.html")
    answers.print(_verdict_table(loaded, results))
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


def _load(name: str, overrides: list[str]) -> Case:
    path, embedded = Path(name), embedded_cases()
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{path} cannot be read as UTF-8 text; give a YAML file.") from None
        return read_case(text, overrides, str(path))
    if name in embedded:
        return read_case(embedded[name], overrides, name)
    raise InputError(
        f"there is no case file {name}; write one with `encircle init`, or name one of: {', '.join(embedded)}."
    )


def _verdict_table(cases: Sequence[Case], results: Sequence[Judgement | EncircleError]) -> Table:
    table = Table(
        title="Can the explanation be bent?",
        title_justify="left",
        caption="Mean over targets and victims of fresh seeds, with 95 % intervals where they are claimed.",
        caption_justify="left",
    )
    for heading in ("case", "arm", "Jaccard", "change", "L1", "label kept"):
        table.add_column(heading, no_wrap=heading != "case")
    for case, result in zip(cases, results, strict=True):
        if isinstance(result, EncircleError):
            table.add_row(escape(f"{case.title}: ERROR"), "", "", "", "", "", end_section=True)
            continue
        for place, arm in enumerate(result.summary["arms"]):
            name = escape(f"{case.title}: {result.verdict}") if place == 0 else ""
            change = "" if arm["arm"] == "clean" else _estimate(arm["jaccard_change"], signed=True)
            table.add_row(
                name,
                escape(arm["title"]),
                _estimate(arm["jaccard"]),
                change,
                _estimate(arm["l1"]),
                f"{arm['label_kept']['mean'] or 0:.0%}",
                end_section=place == len(result.summary["arms"]) - 1,
            )
    return table


def _estimate(entry: dict[str, Any], *, signed: bool = False) -> str:
    if entry["mean"] is None:
        return "undefined"
    style = "+.2f" if signed else ".2f"
    span = "" if entry["low"] is None else f" \\[{entry['low']:{style}}, {entry['high']:{style}}]"
    return f"{entry['mean']:{style}}{span}"


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


_LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "attacks": lambda: _described(AnyAttack),
    "explainers": lambda: _described(AnyExplainer),
    "goals": lambda: _described(AnyGoal),
    "datasets": lambda: _described(AnyData),
    "models": lambda: _described(AnyModel),
    "cases": lambda: {name: read_case(text, [], name).title for name, text in embedded_cases().items()},
}


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="attacks, explainers, goals, datasets, models or cases.", metavar="WHAT")],
) -> None:
    """List what a case can name."""
    if what not in _LISTS:
        raise unknown_name("list", what, _LISTS)
    table = Table.grid(padding=(0, 2))
    for name, meaning in _LISTS[what]().items():
        table.add_row(escape(name), escape(meaning))
    answers.print(table)


def _described(union: Any) -> dict[str, str]:
    return {name: (member.__doc__ or "").strip().splitlines()[0] for name, member in options(union).items()}


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The case file to write.")] = Path("case.yaml"),
) -> None:
    """Write a commented case file to start from."""
    if path.exists():
        raise InputError(f"{path} already exists; choose another name or delete it.")
    write_text(path, embedded_cases()["template"])
    answers.print(f"Wrote {path}. Try: encircle audit {path} --dry-run", markup=False, soft_wrap=True)


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


def main() -> NoReturn:
    """Run the command line, with one clear sentence for every error that was foreseen."""
    try:
        app()
    except EncircleError as error:
        messages.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        messages.print("stopped; run the same command again to resume.", markup=False)
        sys.exit(130)
    except Exception as error:
        messages.print(
            f"error: internal error {type(error).__name__}: {error}; please report it.", style="red", markup=False
        )
        sys.exit(3)
    sys.exit(0)
