"""Options of every command that trains: the device, parallel work, time limit, a dry run, and JSON."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from ..core import InputError

Kind = Annotated[
    Literal["local", "ray"],
    typer.Option("--executor", help="Worker processes on this machine, or a Ray cluster (extra `ray`)."),
]
Address = Annotated[
    str | None, typer.Option(help="host:port of a running Ray cluster; without it Ray is started here, on loopback.")
]


def _sane(cpus: int | None) -> int | None:
    most = _MOST_PER_PROCESSOR * (os.cpu_count() or 1)
    if cpus is not None and cpus > most:
        raise InputError(f"--jobs or --cpus {cpus} is more than this machine can do at a time; give at most {most}.")
    return cpus


_MOST_PER_PROCESSOR = 8
"""Workers per processor: more would only use memory."""

Jobs = Annotated[
    int, typer.Option("--jobs", min=1, callback=_sane, help="Audits at a time, each in a process of its own.")
]
Cpus = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "--cpus",
        min=1,
        callback=_sane,
        help="Threads that this machine's workers share, one a task unless its case says more; default: all that it has.",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Begin nothing new after so many minutes, and keep what is finished; ends with status 3 if something is left, which the same command resumes.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Instead of tables one JSON object on stdout, as its last line; a study prints one for each event before.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be done and about how long it takes, and stop: nothing is written."),
]
Zero = Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 whatever the verdicts, if every run finished.")]
Device = Annotated[str, typer.Option(help="Where models are trained: cpu or cuda. Another device means other runs.")]
SameDevice = Annotated[
    str | None,
    typer.Option(
        "--device", help="Where models are trained: cpu or cuda; default: as before. Another device means other runs."
    ),
]
Gpus = Annotated[float, typer.Option(min=0, help="Share of an accelerator that a task takes, for Ray.")]
