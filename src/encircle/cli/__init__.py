"""The command `encircle`: commands and exit codes, no logic."""

from . import audits, reproduction, studies
from .app import app, main

__all__ = ["app", "audits", "main", "reproduction", "studies"]
