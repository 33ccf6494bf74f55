"""The command that runs published experiments again. No logic."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.markup import escape
from rich.table import Table

from ..core import InputError, unknown_name
from ..data.source import DATA_FOLDER
from ..reproduce.gather import gather
from ..reproduce.kdd21 import PARTS, PRESETS, Part, PresetName, make_smoke_data, studies
from ..reproduce.tables import TABLES, Row, rows_of
from ..storage import check_length
from ..study.folder import begin
from ..study.run import executor_of
from .interrupts import RESUME
from .options import Address, Cpus, Device, Gpus, Json, Kind, Minutes
from .studies import say_what_would_be_done, watched
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and about how long it takes, and stop.")
    ] = False,
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
    place = folder or Path("studies") / f"{experiment}-{preset}"
    check_length(place)
    for part in only or []:
        if part not in PARTS:
            raise unknown_name("part of the experiments", part, PARTS)
    if preset == "smoke":
        data = place / "data"
        weights = make_smoke_data(data)
    if data is not None:
        if not data.is_dir():
            raise InputError(f"the data folder {data} does not exist; docs/data.md says what goes into it.")
        os.environ[DATA_FOLDER] = str(data.resolve())  # worker processes inherit it
    wanted = studies(preset, cast(list[Part], only or []), weights)
    if dry_run:
        for name, file in wanted.items():
            say_what_would_be_done(file, name, cpus, device)
        return
    for name, file in wanted.items():
        begin(file, place / name)
    end = None if minutes is None else time.monotonic() + 60 * minutes
    for name in wanted:
        chosen = executor_of(executor, address, cpus)
        left = None if end is None else max(end - time.monotonic(), 0) / 60
        watched(place / name, chosen, left, device, gpus, as_json=as_json, stopped=RESUME)
    raise typer.Exit(_show(place, gather(place, wanted, preset), as_json=as_json))


def _show(place: Path, left: dict[str, str], *, as_json: bool) -> int:
    """Print the tables and what is not finished; returns the exit code."""
    tables = {name: rows_of(place / "results", name) for name in TABLES}
    if as_json:
        rows: dict[str, Any] = {name: [row.entries for row in found] for name, found in tables.items()}
        answers.json_line({"event": "reproduced", **rows, "not finished": left})
        return 3 if left else 0
    for name, found in tables.items():
        if found:
            answers.print(_table(name, found))
    for cell, why in left.items():
        messages.print(f"not finished: {cell}: {why}", style="red", markup=False, soft_wrap=True)
    answers.print(f"Page: {place / 'kdd21.md'}", markup=False, soft_wrap=True)
    return 3 if left else 0


def _table(name: Part, rows: list[Row]) -> Table:
    table = Table(title=escape(PARTS[name]), title_justify="left")
    for heading in ("", "L1 GRAD", "L1 CAM", "Jaccard GRAD", "Jaccard CAM"):
        table.add_column(heading)
    for row in rows:
        entries = (escape(entry.replace("**", "")) for entry in row.entries)
        table.add_row(*entries, style="dim" if row.published else None)
    return table
