"""Turn a reproduction into committed results: `python tools/kdd21.py runs/kdd21-standard`.

Copies what was collected there to `results/kdd21/`, and makes `docs/kdd21.md` and its pictures from that. With no folder, page and pictures are
made again from what is committed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from encircle.reproduce.gather import gather
from encircle.reproduce.kdd21 import PARTS
from encircle.reproduce.packed import pack, unpack
from encircle.reproduce.page import page as text_of
from encircle.reproduce.page import write_page
from encircle.reproduce.results import FIGURE4

HERE = Path(__file__).resolve().parent.parent
RESULTS = HERE / "results" / "kdd21"


def collect(folder: Path) -> None:
    """Copy the results of the studies that are there, finished cells only; notes beside them stay."""
    studies = [name for name in PARTS if (folder / name / "study.json").is_file()]
    for cell, why in gather(folder, studies, "standard").items():
        sys.stdout.write(f"not finished: {cell}: {why}\n")
    results = folder / "results"
    for name in studies:
        pack(unpack(results / name), RESULTS / name)
    if (results / FIGURE4).is_file():
        shutil.copy(results / FIGURE4, RESULTS / FIGURE4)


def page() -> str:
    """The page as Markdown."""
    return text_of(RESULTS)


def main() -> None:
    """Collect if a folder is given, then write what is generated."""
    if len(sys.argv) > 1:
        collect(Path(sys.argv[1]))
    write_page(RESULTS, HERE / "docs")


if __name__ == "__main__":
    main()
