"""The answer and the tables about how strong an attack can be made; the same files give the same text, byte for byte."""

from __future__ import annotations

from .answer import answer
from .committed import COMMANDS, commands_of, results_of, selections_of
from .page import page

__all__ = ["COMMANDS", "answer", "commands_of", "page", "results_of", "selections_of"]
