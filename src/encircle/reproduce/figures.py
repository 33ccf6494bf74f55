"""The paper's Figures 4 and 5 from what was kept of the runs."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..goals import REGIONS
from ..run_folder import SavedRun
from ..storage import write_bytes
from .results import Convergence, figure4_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UPPER, _LOWER = "#a8330f", "#1a55a8"


def figure4(maps: Mapping[str, NDArray[np.float32]], path: Path, run: SavedRun | None = None) -> None:
    """A dog's maps before and after, the desired region outlined; with the run also the dog and a poison sample.

    Args:
        maps: what `results.keep_figure4` kept.
        path: the PNG.
        run: the CAM run; without it there is no photograph in the picture, as the pictures of Stanford Dogs may not be passed on.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load, and most commands draw nothing
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    shown: list[tuple[str, NDArray[np.float32], bool]] = []
    if run is not None:
        row = figure4_target(run)
        shown.append(("the dog", np.asarray(run.maps[f"{row}/input"]), False))
    for explainer, title in (("grad", "GRAD"), ("cam", "CAM")):
        shown += [(f"{title}, {kind}", maps[f"{explainer}/{kind}"], True) for kind in ("normal", "manipulated")]
    if run is not None:
        shown.append(("a poison sample", np.asarray(run.maps[f"{row}/{run.attack}/poison"]), False))
    figure = Figure(figsize=(2.1 * len(shown), 2.5), dpi=130, layout="constrained")
    axes: Any = figure.subplots(1, len(shown))
    for ax, (title, values, is_map) in zip(axes, shown, strict=True):
        ax.set_title(title, fontsize=10)
        ax.set_xticks([])
        ax.set_yticks([])
        if is_map:
            ax.imshow(values, cmap="inferno", extent=(0, 1, 1, 0))
            y0, x0, y1, x1 = REGIONS["mid-left"]
            box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="#4fd1ff", linewidth=2)
            ax.add_patch(box)
        else:
            ax.imshow(np.clip(values.transpose(1, 2, 0), 0, 1), extent=(0, 1, 1, 0))
    save(figure, path)


def figure5(levels: Convergence, path: Path) -> None:
    """Both levels of the objective against the epochs of crafting, and from when on each is stable."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load, and most commands draw nothing

    figure = Figure(figsize=(8.4, 3.0), dpi=130, layout="constrained")
    axes: Any = figure.subplots(1, 2)
    panels = (("upper", "upper level, L_adv", _UPPER), ("lower", "lower level, L_train", _LOWER))
    for ax, (level, title, colour) in zip(axes, panels, strict=True):
        _draw(ax, levels.epochs, getattr(levels, level), levels.stable_from(level), colour)
        ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
    save(figure, path)


def _draw(ax: Axes, epochs: list[int], values: list[float], stable: int, colour: str) -> None:
    ax.plot(epochs, values, color=colour, marker="o", markersize=3.5, linewidth=1.8)
    ax.axvline(stable, color="#4a4d53", linewidth=1, linestyle="--")
    early = stable <= (epochs[0] + epochs[-1]) / 2
    ax.annotate(
        f"stable from epoch {stable}",
        (stable, max(values)),
        xytext=(4 if early else -4, 6),
        textcoords="offset points",
        fontsize=9,
        ha="left" if early else "right",
    )
    ax.set_xlabel("epoch of crafting")
    ax.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG without anything in it that differs from one machine to the next."""
    png = BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    with Image.open(png) as image:
        out = BytesIO()
        image.convert("RGB").save(out, format="PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, out.getvalue())
