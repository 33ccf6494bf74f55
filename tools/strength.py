"""Keep finished ablations and write the page about strength: `python tools/strength.py studies/digits-cam-ablation ...`.

Copies each folder's `ablation.json` to `results/strength/`, and makes `docs/strength.md` from what is there. With no folder, the page is made again.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from encircle.storage import write_text
from encircle.strength.page import page as text_of

HERE = Path(__file__).resolve().parent.parent
RESULTS = HERE / "results" / "strength"


def page() -> str:
    """The page as Markdown."""
    return text_of(RESULTS)


def main() -> None:
    """Copy what is named, then write what is generated."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:]:
        folder = Path(name)
        shutil.copy(folder / "ablation.json", RESULTS / f"{folder.name.removesuffix('-ablation')}.json")
    write_text(HERE / "docs" / "strength.md", page())


if __name__ == "__main__":
    main()
