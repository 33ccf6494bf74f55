"""Options that every command which trains has alike."""

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
        raise InputError(f"--cpus {cpus} is more than this machine can do at a time; give at most {most}.")
    return cpus


_MOST_PER_PROCESSOR = 8
"""Workers a processor: more only take each other's memory."""

Cpus = Annotated[
    int | None,
    typer.Option(min=1, callback=_sane, help="Threads that this machine's workers share; default: all that it has."),
]
Minutes = Annotated[
    float | None, typer.Option(min=0, help="Begin nothing new after so many minutes; go on later with `resume`.")
]
Json = Annotated[bool, typer.Option("--json", help="Progress and results as JSON lines on stdout.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say how many runs and shared pieces there are and what they would take, and stop."),
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
