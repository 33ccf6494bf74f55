"""Saves the tables anew: only when scores are meant to change, with a new version of results."""

import tempfile
from pathlib import Path

from . import make, save

with tempfile.TemporaryDirectory() as folder:
    save(make(Path(folder)))
