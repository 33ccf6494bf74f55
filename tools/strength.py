"""Keep finished ablations, reaches and budgets, and write the page about strength: `python tools/strength.py studies/digits-cam-reach ...`.

Takes each folder's `ablation.json`, `reach.json` or `smallest.json` into the file of its kind in `results/strength/`, and makes `docs/strength.md` and its
picture from what is there. With no folder, they are made again.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from encircle.core import InputError
from encircle.storage import read_json, write_json, write_text
from encircle.strength.page import page as text_of
from encircle.strength.page import results_of
from encircle.strength.reached import BEST_IMF, GUESSED, LITTLE, PUBLISHED, SELECTED, TRANSFERRED

HERE = Path(__file__).resolve().parent.parent
RESULTS = HERE / "results" / "strength"
FILES = {"ablation": "ablation.json", "reach": "reach.json", "budget": "smallest.json"}
"""What each command leaves for the page."""

LOOKS = {
    PUBLISHED: ("o", "#8b8f96"),
    BEST_IMF: ("s", "#3d6fb4"),
    LITTLE: ("v", "#d98e3a"),
    TRANSFERRED: ("D", "#5f9c5a"),
    GUESSED: ("^", "#7a5ba6"),
    SELECTED: ("o", "#a81e1e"),
}
"""Marker and colour of each attack, from the top of a case's band to its bottom."""

CONTROL = "strongest control of the selected"


def page() -> str:
    """The page as Markdown."""
    return text_of(RESULTS)


def picture() -> Figure:
    """How far each attack bends each case's explanation, with intervals where there are any."""
    cases: list[dict[str, Any]] = list(results_of(RESULTS, "reach").values())
    figure = Figure(figsize=(8.5, 1.1 + 0.62 * len(cases)), dpi=130, layout="constrained")
    ax = figure.subplots()
    for place in range(0, len(cases), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="#f3f4f6", zorder=0)
    for beside, (name, (marker, colour)) in enumerate(LOOKS.items()):
        heights, means, controls = list[float](), list[float](), list[tuple[float, float]]()
        for place, case in enumerate(cases):
            for row in (row for row in case["rows"] if row["name"] == name):
                height, shift = place + 0.14 * (beside - 2.5), row["shift"]
                heights.append(height)
                means.append(shift["mean"])
                if name == SELECTED and row.get("control"):
                    controls.append((row["control"]["change"]["mean"], height))
                if shift["low"] is not None:
                    ax.plot([shift["low"], shift["high"]], [height] * 2, color=colour, linewidth=1.6, zorder=2)
        if not means:
            continue
        ax.scatter(means, heights, s=30, marker=marker, color=colour, label=name, zorder=3)
        if controls:
            ax.scatter(*zip(*controls, strict=True), s=90, marker="|", color=colour, label=CONTROL, zorder=3)
    ax.axvline(0, color="#8b8f96", linewidth=0.8)
    ax.set_ylim(len(cases) - 0.5, -0.5)
    ax.set_yticks(range(len(cases)), [textwrap.fill(case["title"], 28) for case in cases])
    ax.set_xlabel("change of victims' Jaccard towards the desired map, beyond the seed drift")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    figure.legend(frameon=False, fontsize=9, ncols=3, loc="outside lower center")
    return figure


def main() -> None:
    """Copy what is named, then write what is generated."""
    for folder in map(Path, sys.argv[1:]):
        kind = next((kind for kind, file in FILES.items() if (folder / file).is_file()), None)
        if kind is None:
            sys.exit(
                f"{folder} holds none of {', '.join(FILES.values())}; name folders that `encircle ablate`, `reach` or `budget` finished."
            )
        name, result = folder.name.removesuffix(f"-{kind}"), read_json(folder / FILES[kind])
        write_json(RESULTS / f"{kind}.json", {**results_of(RESULTS, kind), name: result})
    try:
        text = page()
    except InputError as error:
        sys.exit(str(error))
    write_text(HERE / "docs" / "strength.md", text)
    picture().savefig(HERE / "docs" / "pictures" / "strength.png")


if __name__ == "__main__":
    main()
