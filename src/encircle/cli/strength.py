"""Commands about how strong an attack can be made: ablate, reach, budget. No logic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..audit.case_file import assign_text, named_case
from ..core import unknown_name
from ..report.text_table import doses_table
from ..scoring import facts_of
from ..storage import check_length
from ..strength import (
    LADDER,
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
from ..strength.side_by_side import title_of
from ..strength.text_tables import ablation_table, reach_table
from ..study.dry_run import outlook_of_study
from ..study.run import executor_of
from .interrupts import RESUME
from .options import Address, Cpus, Device, DryRun, Gpus, Json, Kind, Minutes, Zero
from .outlooks import say_timing, show_study
from .studies import stoppable
from .study_board import StudyBoard
from .tables import show
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
    minutes: Minutes = None,
    device: Device = "cpu",
    gpus: Gpus = 0.0,
    outside: _Outside = False,
    as_json: Json = False,
    exit_zero: Zero = False,
) -> None:
    """Try an attack's choices one at a time and together, and report the best on a draw that chose nothing.

    Ends with status 1 if an attack of that report bent the explanation. Running the same command again resumes what was stopped, with the same scores.
    """
    content = named_case(name, overrides or [], outside=outside).model_dump(mode="json")
    for factor in only or []:
        if factor not in FACTORS:
            raise unknown_name("factor", factor, FACTORS)
    root = folder or Path("studies") / f"{Path(name).stem}-ablation"
    check_length(root)
    factors = {factor: FACTORS[factor] for factor in only or FACTORS}
    if dry_run:
        study = phase_study(content, "choice", choices_of(content, factors))
        more = "and at most five attacks more: those that helped together, then the best on another draw"
        show_study(outlook_of_study(study, name, cpus=cpus, device=device, say=say_timing), more, as_json=as_json)
        return
    with _watched(as_json) as board:
        ablation = ablate(
            content,
            root,
            lambda: executor_of(executor, address, cpus),
            factors=factors,
            listener=board.hear,
            device=device,
            gpus=gpus,
            minutes=minutes,
        )
    if as_json:
        rows = [{"name": row.name, "phase": row.phase, "gain": facts_of(row.effect_over_own)} for row in ablation.rows]
        answers.json_line({"event": "ablated", "chosen": ablation.chosen, "rows": rows})
    else:
        show(ablation_table(ablation))
        answers.print(f"Best where settings are chosen: {title_of(ablation.chosen)}", markup=False, soft_wrap=True)
        answers.print(f"Report: {root / 'report' / 'report.html'}", markup=False, soft_wrap=True)
    bent = any(row.cell["verdict"] == "FAIL" for row in ablation.rows if row.phase == "report")
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
    minutes: Minutes = None,
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
    content = named_case(name, overrides or [], outside=outside).model_dump(mode="json")
    root = folder or Path("studies") / f"{Path(name).stem}-reach"
    check_length(root)
    selection: dict[str, Any] = {}
    for setting in selected or []:
        assign_text(selection, setting, "--selected")
    guess: dict[str, Any] = {}
    for setting in supposed or []:
        assign_text(guess, setting, "--supposed")
    if dry_run:
        study = reach_study(content, selection, guess)
        show_study(outlook_of_study(study, name, cpus=cpus, device=device, say=say_timing), as_json=as_json)
        return
    with _watched(as_json) as board:
        attacks = reach(
            content,
            root,
            lambda: executor_of(executor, address, cpus),
            selection=selection,
            supposed=guess,
            listener=board.hear,
            device=device,
            gpus=gpus,
            minutes=minutes,
        )
    if as_json:
        rows = [
            {"name": row.name, "gain": facts_of(row.effect_over_published), "share_of_way": row.share}
            for row in attacks
        ]
        answers.json_line({"event": "reached", "rows": rows})
    else:
        show(reach_table(attacks))
        answers.print(f"Report: {root / 'report.html'}", markup=False, soft_wrap=True)
    raise typer.Exit(int(any(row.cell["verdict"] == "FAIL" for row in attacks) and not exit_zero))


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
    minutes: Minutes = None,
    device: Device = "cpu",
    gpus: Gpus = 0.0,
    outside: _Outside = False,
    as_json: Json = False,
    exit_zero: Zero = False,
) -> None:
    """Find the smallest share of poisoned data that bends the explanation past the threshold, beyond what another seed does.

    Ends with status 1 if a share was enough. Running the same command again resumes what was stopped, with the same scores.
    """
    content = named_case(name, overrides or [], outside=outside).model_dump(mode="json")
    root = folder or Path("studies") / f"{Path(name).stem}-budget"
    check_length(root)
    if dry_run:
        study = shares_study(content, shares or LADDER)
        fewer = "of which a search by halves asks for few"
        show_study(outlook_of_study(study, name, cpus=cpus, device=device, say=say_timing), fewer, as_json=as_json)
        return
    with _watched(as_json) as board:
        smallest = smallest_budget(
            content,
            shares or LADDER,
            root,
            lambda: executor_of(executor, address, cpus),
            listener=board.hear,
            device=device,
            gpus=gpus,
            minutes=minutes,
        )
    if as_json:
        facts = {
            "share": smallest.share,
            "below": smallest.below,
            "tried": smallest.tried,
            "sentence": smallest.sentence,
        }
        answers.json_line({"event": "searched", **facts})
    else:
        show(doses_table(smallest.conclusion.summary))
        answers.print(smallest.sentence, markup=False, soft_wrap=True)
        answers.print(f"Report: {root / 'report.html'}", markup=False, soft_wrap=True)
    raise typer.Exit(int(smallest.share is not None and not exit_zero))


@contextmanager
def _watched(as_json: bool) -> Iterator[StudyBoard]:
    board = StudyBoard(as_json=as_json)
    with stoppable(RESUME), board:
        yield board
