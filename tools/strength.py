"""Keep finished ablations, reaches and budgets, and write the page about strength: `python tools/strength.py studies/digits-cam-reach ...`.

Copies each folder's `ablation.json`, `reach.json` or `smallest.json` to `results/strength/`, and makes `docs/strength.md` from what is there. With no
folder, the page is made again.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from encircle.storage import write_text
from encircle.strength.page import page as text_of

HERE = Path(__file__).resolve().parent.parent
RESULTS = HERE / "results" / "strength"
FILES = {"ablation": "ablation.json", "reach": "reach.json", "budget": "smallest.json"}
"""What each command leaves for the page."""


def page() -> str:
    """The page as Markdown."""
    return text_of(RESULTS)


def main() -> None:
    """Copy what is named, then write what is generated."""
    for folder in map(Path, sys.argv[1:]):
        kind = next((kind for kind, file in FILES.items() if (folder / file).is_file()), None)
        if kind is None:
            sys.exit(
                f"{folder} holds none of {', '.join(FILES.values())}; name folders that `encircle ablate`, `reach` or `budget` finished."
            )
        (RESULTS / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / FILES[kind], RESULTS / kind / f"{folder.name.removesuffix(f'-{kind}')}.json")
    write_text(HERE / "docs" / "strength.md", page())


if __name__ == "__main__":
    main()
