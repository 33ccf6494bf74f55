"""From finished studies to results that can be committed, pictures and a page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..run_folder import SavedRun
from ..storage import write_json
from .kdd21 import PresetName
from .page import write_page
from .results import collect, keep_figure4


def gather(folder: Path, studies: Iterable[str], preset: PresetName) -> dict[str, str]:
    """Collect what is finished into `folder/results/`, and write `folder/kdd21.md` and its pictures.

    Args:
        folder: holds the studies' folders.
        studies: which of them.
        preset: their size.

    Returns:
        Why cells are not finished, by name.

    Raises:
        InputError: a run folder is damaged.
    """
    unfinished_cells: dict[str, str] = {}
    run: SavedRun | None = None
    results = folder / "results"
    write_json(results / "preset.json", {"preset": preset})
    for name in studies:
        unfinished = collect(folder / name, results / name, history=name == "figure5")
        unfinished_cells |= {f"{name}, {cell}": why for cell, why in unfinished.items()}
        if name == "table1":
            run = keep_figure4(folder / name, results)
    write_page(results, folder, run)
    return unfinished_cells
