"""The page templates, which escape all texts, and the hash that allows a page its one script."""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """The templates of this package; inserted text is escaped, and an undefined name is an error."""
    return Environment(
        loader=PackageLoader("encircle.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_hash(script: str) -> str:
    """The SHA-256 of a script, in the form of a content security policy."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
