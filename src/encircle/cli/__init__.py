"""The command `encircle`: commands and exit codes, no logic."""

from . import audits, studies
from .app import app, main

__all__ = ["app", "audits", "main", "studies"]
