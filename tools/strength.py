"""Keep finished ablations and reaches, and write the page about strength: `python tools/strength.py studies/digits-cam-ablation studies/digits-cam-reach ...`.

Copies each folder's `ablation.json` or `reach.json` to `results/strength/`, and makes `docs/strength.md` from what is there. With no folder, the page is
made again.
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
    for folder in map(Path, sys.argv[1:]):
        kind = next((kind for kind in ("ablation", "reach") if (folder / f"{kind}.json").is_file()), None)
        if kind is None:
            sys.exit(
                f"{folder} holds neither ablation.json nor reach.json; name folders that `encircle ablate` or `encircle reach` finished."
            )
        (RESULTS / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"{kind}.json", RESULTS / kind / f"{folder.name.removesuffix(f'-{kind}')}.json")
    write_text(HERE / "docs" / "strength.md", page())


if __name__ == "__main__":
    main()
