"""Defences against poison, each one file and one row of `ALL`."""

from .base import Defence
from .none import NoDefence

ALL: tuple[type[Defence], ...] = (NoDefence,)
"""Every defence that a case can name."""

__all__ = ["ALL", "Defence", "NoDefence"]
