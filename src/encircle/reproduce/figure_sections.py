"""The sections of the paper's Figures 4 and 5: the pictures, and what they show in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..run_folder import SavedRun
from ..scoring import score
from .figures import figure4, figure5
from .gates import is_nearer
from .kdd21 import PARTS
from .paper import STABLE_EPOCHS
from .results import Convergence, convergence, read_cells, read_figure4

NAME = "kdd21"
"""Of the page and of its pictures."""


def draw_figures(results: Path, pictures: Path, run: SavedRun | None) -> None:
    """Draw what there is of both figures.

    Args:
        results: what was collected.
        pictures: the folder for the pictures.
        run: the CAM run of Table 1, for a Figure 4 with the photographs in it.
    """
    if (maps := read_figure4(results)) is not None:
        figure4(maps, pictures / f"{NAME}-figure4.png", run)
    if (levels := _convergence(results)) is not None:
        figure5(levels, pictures / f"{NAME}-figure5.png")


def figure4_section(results: Path) -> list[str]:
    """Figure 4, in paragraphs; none without its maps."""
    if (maps := read_figure4(results)) is None:
        return []
    return [
        f"## {PARTS['figure4']}",
        f"![Maps of one dog before and after the attack, the mid-left outlined](pictures/{NAME}-figure4.png)",
        "The first target whose desired region, drawn by the seeded rule, is the mid-left (outlined): the map of a clean victim and of one trained "
        "on the poison, each on its own scale; GRAD at full resolution, CAM on its grid. The photographs of Stanford Dogs may not be passed on: "
        "the command draws the dog and one poison sample into the picture in its own folder. One dog is an example and no evidence: "
        f"{_map_scores(maps)}",
    ]


def _map_scores(maps: Mapping[str, NDArray[np.float32]]) -> str:
    """What the scores say about the maps in the picture."""
    sentences = []
    for explainer in ("grad", "cam"):
        before, after = (
            score(maps[f"{explainer}/{kind}/scored"], maps[f"{explainer}/goal"]) for kind in ("normal", "manipulated")
        )
        nearer = "nearer to" if is_nearer(after, before) else "no nearer to"
        sentences.append(
            f"with {explainer.upper()} these maps came {nearer} the desired region (Jaccard {before['jaccard']:.2f} → {after['jaccard']:.2f}, "
            f"L1 {before['l1']:.2f} → {after['l1']:.2f})"
        )
    return f"{', '.join(sentences)}."


def figure5_section(results: Path) -> list[str]:
    """Figure 5, in paragraphs; none without its run."""
    levels = _convergence(results)
    if levels is None:
        return []
    upper, lower = (levels.stable_from(level) for level in ("upper", "lower"))
    return [
        f"## {PARTS['figure5']}",
        f"![Both levels of the objective against epochs](pictures/{NAME}-figure5.png)",
        f"One dog of five breeds, CAM, one model pre-trained to the end and learning on at a constant rate, {levels.epochs[-1]} epochs of crafting. "
        "A level counts as stable from the first epoch on after which it stays within a tenth of its whole range of its mean in the last five. "
        f"By that the upper level is stable from epoch {upper} (the paper: about "
        f"{STABLE_EPOCHS['upper']}), {_course(levels.epochs, levels.upper)}; the lower from epoch {lower} (the paper: about "
        f"{STABLE_EPOCHS['lower']}), {_course(levels.epochs, levels.lower)}. A level that turns up stable only within the last five epochs has no plateau that "
        "these epochs show.",
    ]


def _convergence(results: Path) -> Convergence | None:
    for cell in read_cells(results / "figure5").values():
        return convergence(cell.table("history"))
    return None


def _course(epochs: Sequence[int], values: Sequence[float]) -> str:
    """Where a level began, was lowest and ended."""
    lowest = min(values)
    return f"from {values[0]:.3f} over {lowest:.3f} (epoch {epochs[values.index(lowest)]}) to {values[-1]:.3f}"
