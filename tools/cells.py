"""Write the cells of the paper's tables as case files, for `encircle audit`, `ablate`, `reach` and `budget`: `python tools/cells.py FOLDER [--weights FILE]`.

The dogs' cases need the weights and name them where they are: give `--allow-outside` to the commands. Where the data are, `ENCIRCLE_DATA` says. Beside the
tables' ten breeds at 64 px there are the same at 112 px, and ten others of the 120 (a folder of small pictures, `stanford-dogs-64`).
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import yaml

from encircle.audit.case_file import assign
from encircle.core import InputError
from encircle.reproduce.kdd21 import CELLS, case_of
from encircle.storage import write_text

OTHERS = (
    "Blenheim spaniel",
    "redbone",
    "American Staffordshire terrier",
    "cairn",
    "Lhasa",
    "clumber",
    "komondor",
    "Appenzeller",
    "basenji",
    "toy poodle",
)
"""Every twelfth of the 120 breeds in the order of their synsets, from the sixth on; none is among the tables' ten."""

BESIDE = {
    "-112": {"data.side": 112},
    "-others": {"data.folder": "stanford-dogs-64", "data.breeds": list(OTHERS)},
}
"""What else is made of the dogs' cells: how their names end, and the keys that differ."""

TITLES = {
    "dogs": "Dogs of ten breeds",
    "dogs-112": "Dogs of ten breeds at 112 px",
    "dogs-others": "Dogs of ten other breeds",
    "fractures": "Fracture table",
}
EXPLAINERS = {
    "dogs-cam": "CAM",
    "dogs-grad": "GRAD",
    "fractures-cam": "CAM over hidden units",
    "fractures-grad": "GRAD",
}
"""What cells are called in reports."""


def main() -> None:
    """Write every cell that can be written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, help="ImageNet weights of ResNet-18, for the dogs")
    asked = parser.parse_args()
    for cell in CELLS:
        if cell.startswith("fractures") or asked.weights:
            try:
                case = case_of(cell, "standard", asked.weights and asked.weights.resolve())
            except InputError as error:
                sys.exit(str(error))
            _write(asked.folder, cell, "", case)
            for end, changes in BESIDE.items() if cell.startswith("dogs") else ():
                other = copy.deepcopy(case)
                for key, value in changes.items():
                    assign(other, key, value)
                _write(asked.folder, cell, end, other)


def _write(folder: Path, cell: str, end: str, case: dict[str, Any]) -> None:
    title = f"{TITLES[cell.partition('-')[0] + end]}, {EXPLAINERS[cell]}"
    text = yaml.safe_dump({"title": title, **case}, sort_keys=False, allow_unicode=True)
    write_text(folder / f"{cell}{end}.yaml", text)


if __name__ == "__main__":
    main()
