"""From finished studies to results that can be committed, pictures and a page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..run_folder import SavedRun
from ..storage import write_json
from .kdd21 import PresetName
from .page import write_page
from .results import collect, keep_figure4


def gather(place: Path, studies: Iterable[str], preset: PresetName) -> dict[str, str]:
    """Collect what is finished into `place/results/`, and write `place/kdd21.md` and its pictures.

    Args:
        place: holds the studies' folders.
        studies: which of them.
        preset: their size.

    Returns:
        Why cells are not finished, by name.

    Raises:
        InputError: a run folder is damaged.
    """
    left: dict[str, str] = {}
    run: SavedRun | None = None
    results = place / "results"
    write_json(results / "preset.json", {"preset": preset})
    for name in studies:
        unfinished = collect(place / name, results / name, history=name == "figure5")
        left |= {f"{name}, {cell}": why for cell, why in unfinished.items()}
        if name == "table1":
            run = keep_figure4(place / name, results)
    write_page(results, place, run)
    return left
