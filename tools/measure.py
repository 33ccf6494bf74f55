"""Run what `docs/strength.md` is made of again: `python tools/measure.py [NAME ...] [--weights FILE]`, with names such as `reach/digits-cam`; resumable.

The commands are those of `results/strength/commands.yaml`, and their folders `runs/strength/<name>-<kind>`. What finishes is kept in `results/strength/` and
the page made anew; what fails is named at the end and keeps no other from being run. Dogs need the weights; they and the fractures are found in the data
folder (`ENCIRCLE_DATA`).
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from encircle.data.source import DATA_FOLDER, data_folder
from pages.strength import commands_of

HERE = Path(__file__).resolve().parent.parent
RUNS = HERE / "runs" / "strength"
STOPPED = 130
"""How a command ends that was stopped from the keyboard."""


def main() -> None:
    """Run what is named, one after another; everything where nothing is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all, for many hours")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of ResNet-18, for the dogs")
    asked = parser.parse_args()
    commands = {
        f"{kind}/{name}": command
        for kind, named in commands_of(HERE / "results" / "strength").items()
        for name, command in named.items()
    }
    for name in asked.names:
        if name not in commands:
            sys.exit(f"{name!r} is none of {', '.join(commands)}.")
    os.environ[DATA_FOLDER] = str(
        data_folder().resolve()
    )  # commands run beside their case files, where a relative place would be another
    cells = RUNS / "cells"
    weights = ["--weights", str(asked.weights.resolve())] if asked.weights else []
    if _status([sys.executable, str(HERE / "tools" / "cells.py"), str(cells), *weights], HERE):
        sys.exit(1)
    unfinished = list[str]()
    for name in asked.names or commands:
        kind, _, case = name.partition("/")
        folder = RUNS / f"{case}-{kind}"
        sys.stderr.write(f"{name}: {commands[name]}\n")
        words = shlex.split(commands[name])[1:]
        if words[1].endswith(".yaml") and not (cells / words[1]).is_file():
            sys.stderr.write(f"{name} is left out: its network starts from weights; name them with --weights.\n")
            unfinished.append(name)
            continue
        run = [sys.executable, "-m", "encircle", *words, "--folder", str(folder), "--exit-zero"]
        keep = [sys.executable, str(HERE / "tools" / "strength.py"), str(folder)]
        if _status(run, cells) or _status(keep, HERE):
            unfinished.append(name)
    if unfinished:
        sys.exit(f"not finished: {', '.join(unfinished)}; the same command goes on where it was.")


def _status(command: list[str], folder: Path) -> int:
    status = subprocess.run(command, cwd=folder, check=False).returncode
    if status == STOPPED or status < 0:
        sys.exit(STOPPED)  # whoever stops one run wants no other to begin
    return status


if __name__ == "__main__":
    main()
