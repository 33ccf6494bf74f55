"""Commands about how strong an attack can be made: ablate, reach, budget. No logic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..audit.case_file import assign_text
from ..core import unknown_name
from ..report.formats import UNDEFINED, points
from ..scoring import facts_of
from ..storage import check_length
from ..strength import (
    LADDER,
    Ablation,
    Reached,
    ablate,
    choices_of,
    phase_study,
    reach,
    reach_study,
    shares_study,
    smallest_budget,
)
from ..strength.ablation import FACTORS
from ..strength.reached import SELECTION, WITHIN_THE_PAPER
from ..study.run import executor_of
from .audits import load_case
from .interrupts import RESUME
from .options import Address, Cpus, Device, DryRun, Gpus, Json, Kind, Zero
from .studies import say_what_would_be_done, stoppable
from .study_board import StudyBoard
from .tables import estimate_cell, name_cell, number_table, show
from .terminal import answers, app

_Case = Annotated[
    str, typer.Argument(help="A case file, or the name of an embedded case (`encircle list cases`).", metavar="CASE")
]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the case, such as targets=6.", metavar="KEY=VALUE"),
]
_Outside = Annotated[
    bool, typer.Option("--allow-outside", help="Let the case file name files outside of its own folder.")
]


@app.command("ablate")
def ablate_command(
    name: _Case = "digits-cam",
    overrides: _Set = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--factor",
            help=f"Only this factor; may be given several times. T is the target. One of: {'; '.join(FACTORS)}.",
            show_default="all",
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where everything goes; default: studies/<case>-ablation.")
    ] = None,
    dry_run: DryRun = False,
    executor: Kind = "local",
    address: Address = None,
    cpus: Cpus = None,
    device: Device = "cpu",
    gpus: Gpus = 0.0,
    outside: _Outside = False,
    as_json: Json = False,
    exit_zero: Zero = False,
) -> None:
    """Try an attack's choices one at a time and together, and report the best on a draw that chose nothing.

    Ends with status 1 if an attack of that report bent the explanation. Running the same command again resumes what was stopped, with the same scores.
    """
    content = load_case(name, overrides or [], outside=outside).model_dump(mode="json")
    for factor in only or []:
        if factor not in FACTORS:
            raise unknown_name("factor", factor, FACTORS)
    place = folder or Path("studies") / f"{Path(name).stem}-ablation"
    check_length(place)
    factors = {factor: FACTORS[factor] for factor in only or FACTORS}
    if dry_run:
        say_what_would_be_done(phase_study(content, "choice", choices_of(content, factors)), name, cpus, device)
        answers.print("and at most five attacks more: those that helped together, then the best on another draw")
        return
    with _watched(as_json) as board:
        found = ablate(
            content,
            place,
            lambda: executor_of(executor, address, cpus),
            factors=factors,
            listener=board.hear,
            device=device,
            gpus=gpus,
        )
    if as_json:
        rows = [{"name": row.name, "phase": row.phase, "gain": facts_of(row.gain)} for row in found.rows]
        answers.json_line({"event": "ablated", "chosen": found.chosen, "rows": rows})
    else:
        show(_rows(found))
        answers.print(f"Best where settings are chosen: {found.chosen}", markup=False, soft_wrap=True)
        answers.print(f"Report: {place / 'report' / 'report.html'}", markup=False, soft_wrap=True)
    bent = any(row.cell["verdict"] == "FAIL" for row in found.rows if row.phase == "report")
    raise typer.Exit(int(bent and not exit_zero))


@app.command("reach")
def reach_command(
    name: _Case = "digits-cam",
    overrides: _Set = None,
    selected: Annotated[
        list[str] | None,
        typer.Option(
            "--selected",
            help="A setting of the selected attack, such as kind=influence or other_share=0.5; what is not given is as the case has it, or, where that is "
            "IMF, " + ", ".join(f"{key}={value}" for key, value in (WITHIN_THE_PAPER | SELECTION).items()) + ".",
            metavar="KEY=VALUE",
        ),
    ] = None,
    supposed: Annotated[
        list[str] | None,
        typer.Option(
            "--supposed",
            help="A key of the recipe as an attacker supposes it who does not know it, such as epochs=10; the selected attack is then also crafted so.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="The study's folder; default: studies/<case>-reach.")] = None,
    dry_run: DryRun = False,
    executor: Kind = "local",
    address: Address = None,
    cpus: Cpus = None,
    device: Device = "cpu",
    gpus: Gpus = 0.0,
    outside: _Outside = False,
    as_json: Json = False,
    exit_zero: Zero = False,
) -> None:
    """Set the selected attack beside IMF as published and IMF with the case's other settings on the paper's bases, all beside the ceiling.

    The selected attack is also tried with a fifth of the poison, and with `--set attacker.model=...` crafted on that network, and with `--supposed` for that
    recipe. Ends with status 1 if any of them bent the explanation. Running the same command again resumes what was stopped, with the same scores.
    """
    content = load_case(name, overrides or [], outside=outside).model_dump(mode="json")
    place = folder or Path("studies") / f"{Path(name).stem}-reach"
    check_length(place)
    selection: dict[str, Any] = {}
    for setting in selected or []:
        assign_text(selection, setting, "--selected")
    guess: dict[str, Any] = {}
    for setting in supposed or []:
        assign_text(guess, setting, "--supposed")
    if dry_run:
        say_what_would_be_done(reach_study(content, selection, guess), name, cpus, device)
        return
    with _watched(as_json) as board:
        found = reach(
            content,
            place,
            lambda: executor_of(executor, address, cpus),
            selection=selection,
            supposed=guess,
            listener=board.hear,
            device=device,
            gpus=gpus,
        )
    if as_json:
        rows = [{"name": row.name, "gain": facts_of(row.gain), "share_of_way": row.share} for row in found]
        answers.json_line({"event": "reached", "rows": rows})
    else:
        show(_reached(found))
        answers.print(f"Report: {place / 'report.html'}", markup=False, soft_wrap=True)
    raise typer.Exit(int(any(row.cell["verdict"] == "FAIL" for row in found) and not exit_zero))


@app.command("budget")
def budget_command(
    name: _Case = "digits-cam",
    overrides: _Set = None,
    shares: Annotated[
        list[float] | None,
        typer.Option(
            "--share",
            help="A share of the training set to try; may be given several times. Less than one sample is left out.",
            show_default=", ".join(map(str, LADDER)),
        ),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="The study's folder; default: studies/<case>-budget.")] = None,
    dry_run: DryRun = False,
    executor: Kind = "local",
    address: Address = None,
    cpus: Cpus = None,
    device: Device = "cpu",
    gpus: Gpus = 0.0,
    outside: _Outside = False,
    as_json: Json = False,
    exit_zero: Zero = False,
) -> None:
    """Find the smallest share of poisoned data that bends the explanation past the threshold, beyond what another seed does.

    Ends with status 1 if a share was enough. Running the same command again resumes what was stopped, with the same scores.
    """
    content = load_case(name, overrides or [], outside=outside).model_dump(mode="json")
    place = folder or Path("studies") / f"{Path(name).stem}-budget"
    check_length(place)
    if dry_run:
        study = shares_study(content, shares or LADDER)
        say_what_would_be_done(study, name, cpus, device)
        answers.print("of which a search by halves asks for few")
        return
    with _watched(as_json) as board:
        found = smallest_budget(
            content,
            shares or LADDER,
            place,
            lambda: executor_of(executor, address, cpus),
            listener=board.hear,
            device=device,
            gpus=gpus,
        )
    if as_json:
        facts = {"share": found.share, "below": found.below, "tried": found.tried, "sentence": found.sentence}
        answers.json_line({"event": "searched", **facts})
    else:
        show(_doses(found.conclusion.summary))
        answers.print(found.sentence, markup=False, soft_wrap=True)
        answers.print(f"Report: {place / 'report.html'}", markup=False, soft_wrap=True)
    raise typer.Exit(int(found.share is not None and not exit_zero))


@contextmanager
def _watched(as_json: bool) -> Iterator[StudyBoard]:
    board = StudyBoard(as_json=as_json)
    with stoppable(RESUME), board:
        yield board


def _plain(value: Mapping[str, float | None]) -> str:
    return UNDEFINED if value["mean"] is None else f"{value['mean']:.2f}"


def _rows(found: Ablation) -> Table:
    table = number_table(
        "attack",
        ["gain", "change", "L1", "kept", "points"],
        group="",
        title=escape(found.title),
        caption="Gain: of Jaccard over the attack as given, paired by target and seed; change: beyond the seed drift; "
        "kept: the label; points: the change of accuracy; 95 % intervals. "
        "Rows of `report` are of the case's own split, targets and seeds, all others of a draw that served to choose.",
    )
    phase = ""
    for row in found.rows:
        if phase and row.phase != phase:
            table.add_row()
        label_kept = row.cell["label_kept"]
        table.add_row(
            "" if row.phase == phase else row.phase,
            name_cell(row.name),
            estimate_cell(facts_of(row.gain)),
            estimate_cell(row.cell["shift"]),
            " → ".join(_plain(row.cell[name]) for name in ("l1_clean", "l1_attack")),
            "" if label_kept is None else f"{label_kept:.0%}",
            points(row.cell["accuracy_change"]),
        )
        phase = row.phase
    return table


def _reached(rows: tuple[Reached, ...]) -> Table:
    table = number_table(
        "attack",
        ["gain", "change", "of way", "L1 (unbounded WM)", "kept", "points"],
        title="How far it reaches",
        caption="Gain: of Jaccard over IMF as published, paired by target and seed; change: beyond the seed drift; of way: of the way from clean to the "
        "ceiling, which bends the model itself; L1: clean → poisoned, in brackets the unbounded WM's; kept: the label; points: the change of accuracy; "
        "95 % intervals.",
    )
    for row in rows:
        label_kept, way = row.cell["label_kept"], row.share["mean"]
        table.add_row(
            name_cell(row.name),
            estimate_cell(facts_of(row.gain)),
            estimate_cell(row.cell["shift"]),
            UNDEFINED if way is None else f"{way:.0%}",
            f"{_plain(row.cell['l1_clean'])} → {_plain(row.cell['l1_attack'])} ({_plain({'mean': row.watermark_l1})})",
            "" if label_kept is None else f"{label_kept:.0%}",
            points(row.cell["accuracy_change"]),
        )
    return table


def _doses(summary: Mapping[str, Any]) -> Table:
    table = number_table(
        "poisoned", ["verdict", "change", "label kept", "accuracy, points"], title=escape(summary["title"])
    )
    for cell in summary["cells"]:
        label_kept = "" if cell["label_kept"] is None else f"{cell['label_kept']:.0%}"
        table.add_row(
            name_cell(cell["title"]),
            cell["verdict"],
            estimate_cell(cell["shift"]),
            label_kept,
            points(cell["accuracy_change"]),
        )
    return table
