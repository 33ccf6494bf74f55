"""The report: one HTML file drawn from saved runs or a saved study, without torch and without the model.

The pages docs/run-folder.md and docs/study-folder.md describe the files that it reads.
"""

from __future__ import annotations

from ..run_folder import SavedRun, load_run
from .render import render, to_html
from .study_page import render_study

__all__ = ["SavedRun", "load_run", "render", "render_study", "to_html"]
