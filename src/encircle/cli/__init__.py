"""The command `encircle`: commands and exit codes, no logic."""

from . import audits, reproduction, strength, studies
from .app import app, main

__all__ = ["app", "audits", "main", "reproduction", "strength", "studies"]
