"""The report: one HTML file drawn from saved runs (see docs/run-folder.md), without torch and without the model."""

from __future__ import annotations

from .load import SavedRun, load_run
from .render import render, to_html

__all__ = ["SavedRun", "load_run", "render", "to_html"]
