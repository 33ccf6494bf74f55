"""The report: one HTML file drawn from saved runs (docs/run-folder.md) or a saved study (docs/study-folder.md), without torch and without the model."""

from __future__ import annotations

from ..run_folder import SavedRun, load_run
from .render import render, to_html
from .study_page import render_study

__all__ = ["SavedRun", "load_run", "render", "render_study", "to_html"]
