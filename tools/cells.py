"""Write the cells of the paper's tables as case files, for `encircle audit`, `ablate`, `reach` and `budget`: `python tools/cells.py FOLDER [--weights FILE]`.

The dogs' cases need the weights and name them where they are: give `--allow-outside` to the commands. Where the data are, `ENCIRCLE_DATA` says.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from encircle.core import InputError
from encircle.reproduce.kdd21 import CELLS, case_of
from encircle.storage import write_text


def main() -> None:
    """Write every cell that can be written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, help="ImageNet weights of ResNet-18, for the dogs")
    asked = parser.parse_args()
    for cell in CELLS:
        if cell.startswith("fractures") or asked.weights:
            try:
                case = {"title": cell} | case_of(cell, "standard", asked.weights and asked.weights.resolve())
            except InputError as error:
                sys.exit(str(error))
            write_text(asked.folder / f"{cell}.yaml", yaml.safe_dump(case, sort_keys=False, allow_unicode=True))


if __name__ == "__main__":
    main()
