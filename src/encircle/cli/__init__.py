"""The command `encircle`: commands and exit codes, no logic.

Slow imports happen when a command runs, so that Ctrl-C is answered from the first moment.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from .interrupts import STOPPED, Interrupts, hand_on, words_for

__all__ = ["app", "main"]


def main() -> NoReturn:
    """Run the command line, with one clear sentence for every expected error and for Ctrl-C."""
    with Interrupts(words_for(sys.argv[1:])) as interrupts:
        try:
            from .commands import run  # noqa: PLC0415 - takes seconds

            interrupts.clean = True
            code = run()
        except BaseException as error:
            if not interrupts.heard and not isinstance(error, KeyboardInterrupt):
                raise
            interrupts.say()
            code = STOPPED
        hand_on((sys.stdout, sys.stderr))
        if interrupts.heard and code == STOPPED:
            os._exit(code)  # Python's own shutdown could be interrupted
    sys.exit(code)


def __getattr__(name: str) -> Any:
    """The Typer application `app`, with all its commands."""
    if name == "app":
        from .commands import app  # noqa: PLC0415 - takes seconds

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
