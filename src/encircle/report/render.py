"""One self-contained HTML file from one or several saved runs: no network, no torch, no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core import InputError
from ..run_folder import SavedRun, load_run
from ..storage import write_text
from .formats import percent
from .glossary import glossary, parts_of
from .pictures import scale
from .sections import Section, section
from .targets import SHOWN_SEED
from .templating import script_hash, templates


def render(
    runs: Sequence[Path], destination: Path, *, title: str | None = None, failures: Sequence[tuple[str, str]] = ()
) -> Path:
    """Draw saved runs as one HTML file; only a complete new file replaces an earlier one.

    Args:
        runs: run folders, in the order of the page.
        destination: the HTML file to write.
        title: heading of the page; by default the run's own title, or the number of audits.
        failures: unfinished audits without a run to show: their title, and the reason.

    Returns:
        `destination`.

    Raises:
        InputError: no run was given, or a run folder is missing, damaged or incomplete.
        StorageError: the file could not be written.
    """
    page = to_html([load_run(folder) for folder in runs], title=title, failures=failures)
    write_text(Path(destination), page)
    return Path(destination)


def to_html(runs: Sequence[SavedRun], *, title: str | None = None, failures: Sequence[tuple[str, str]] = ()) -> str:
    """The page as text: the same runs give the same text, byte for byte.

    Raises:
        InputError: no run was given.
    """
    if not runs:
        raise InputError("a report needs at least one run; give the folder that `encircle audit` wrote.")
    sections = [section(run, number) for number, run in enumerate(runs, start=1)]
    titles = {name: arm_title for part in sections for name, arm_title in part.arm_titles.items()}
    pages = templates()
    script = pages.get_template("report.js").render()
    return pages.get_template("report.html.j2").render(
        title=title or (sections[0].title if len(sections) == 1 else f"{len(sections)} audits"),
        question=_question(sections),
        sections=sections,
        failures=failures,
        colours=scale(),
        glossary=glossary(
            titles,
            {name: text for part in sections for name, text in part.arm_abouts.items()},
            {name: text for run in runs for name, text in parts_of(run.verdict).items()},
        ),
        shown_seed=SHOWN_SEED,
        script_hash=script_hash(script),
    )


def _question(sections: Sequence[Section]) -> str:
    shares = [percent(share) for share in sorted(part.share for part in sections if part.share is not None)]
    if not shares:
        part = "a part"
    elif shares[0] == shares[-1]:
        part = shares[0]
    else:
        part = f"{shares[0]} to {shares[-1]}"
    return (
        f"If someone controls {part} of the training data, how far can they bend the model’s explanations "
        "without touching its accuracy?"
    )
