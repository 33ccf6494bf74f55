"""The command that runs published experiments again. No logic."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, cast

import typer
from rich.markup import escape
from rich.table import Table

from ..audit.time_limit import TimeLimit
from ..core import InputError, unknown_name
from ..data.source import DATA_FOLDER
from ..reproduce.gather import gather
from ..reproduce.kdd21 import PARTS, PRESETS, Part, PresetName, make_smoke_data, studies
from ..reproduce.tables import TABLES, Row, rows_of
from ..storage import check_length
from ..study.dry_run import outlook_of_study
from ..study.folder import begin
from ..study.run import executor_of
from .interrupts import RESUME
from .options import Address, Cpus, Device, DryRun, Gpus, Json, Kind, Minutes
from .outlooks import say_timing, show_studies
from .studies import watched
from .terminal import answers, app, messages


@app.command()
def reproduce(
    experiment: Annotated[Literal["kdd21"], typer.Argument(help="kdd21: Zhang, Gao & Su, the paper of IMF.")],
    preset: Annotated[
        PresetName, typer.Option(help="; ".join(f"{name}: {size.summary}" for name, size in PRESETS.items()) + ".")
    ] = "quick",
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Only this ({', '.join(PARTS)}); may be given several times.", show_default="all"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help=f"The folder of the data sets (docs/data.md); default: ${DATA_FOLDER}, or ./data."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="ImageNet weights of ResNet-18, torchvision's names; the dogs need them.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Where everything goes; default: studies/kdd21-<preset>.")] = None,
    dry_run: DryRun = False,
    executor: Kind = "local",
    address: Address = None,
    cpus: Cpus = None,
    minutes: Minutes = None,
    device: Device = "cpu",
    gpus: Gpus = 0.0,
    as_json: Json = False,
) -> None:
    """Run a published experiment again and show its tables beside ours.

    Running the same command again resumes what was stopped, with the same scores.
    """
    root = folder or Path("studies") / f"{experiment}-{preset}"
    check_length(root)
    for part in only or []:
        if part not in PARTS:
            raise unknown_name("part of the experiments", part, PARTS)
    with ExitStack() as stack:
        if preset == "smoke":
            home = Path(stack.enter_context(TemporaryDirectory())) if dry_run else root
            data = home / "data"
            weights = make_smoke_data(data)
        if data is not None:
            if not data.is_dir():
                raise InputError(f"the data folder {data} does not exist; docs/data.md says what goes into it.")
            os.environ[DATA_FOLDER] = str(data.resolve())  # worker processes inherit it
        asked = studies(preset, cast(list[Part], only or []), weights)
        if dry_run:
            outlooks = {
                name: outlook_of_study(file, name, cpus=cpus, device=device, say=say_timing)
                for name, file in asked.items()
            }
            show_studies(outlooks, as_json=as_json)
            return
    for name, file in asked.items():
        begin(file, root / name)
    limit = TimeLimit.starting_now(minutes)
    for name in asked:
        chosen = executor_of(executor, address, cpus)
        watched(root / name, chosen, limit.remaining, device, gpus, as_json=as_json, stopped=RESUME)
    unfinished = gather(root, asked, preset)
    _show(root, unfinished, as_json=as_json)
    if unfinished and limit.is_over:
        messages.print(limit.sentence, markup=False, soft_wrap=True)
    raise typer.Exit(3 if unfinished else 0)


def _show(root: Path, unfinished: dict[str, str], *, as_json: bool) -> None:
    """Print the tables and the unfinished parts."""
    tables = {name: rows_of(root / "results", name) for name in TABLES}
    if as_json:
        entries: dict[str, Any] = {name: [row.entries for row in rows] for name, rows in tables.items()}
        answers.json_line({"event": "reproduced", **entries, "not finished": unfinished})
        return
    for name, rows in tables.items():
        if rows:
            answers.print(_table(name, rows))
    for cell, why in unfinished.items():
        messages.print(f"not finished: {cell}: {why}", style="red", markup=False, soft_wrap=True)
    answers.print(f"Page: {root / 'kdd21.md'}", markup=False, soft_wrap=True)


def _table(name: Part, rows: list[Row]) -> Table:
    table = Table(title=escape(PARTS[name]), title_justify="left")
    for heading in ("", "L1 GRAD", "L1 CAM", "Jaccard GRAD", "Jaccard CAM"):
        table.add_column(heading)
    for row in rows:
        entries = (escape(entry.replace("**", "")) for entry in row.entries)
        table.add_row(*entries, style="dim" if row.published else None)
    return table
