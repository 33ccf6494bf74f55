"""The page templates, escaping everything, and the hash by which a page allows its one script."""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """The templates of this floor; text that is put into them is escaped, and a name they lack is an error."""
    return Environment(
        loader=PackageLoader("encircle.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_hash(script: str) -> str:
    """The SHA-256 of a script as a content security policy wants it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
