"""The command `encircle` itself: what all its commands share, and how errors end it.

Exit codes: 0 every verdict PASS or WARN, 1 some verdict FAIL, 2 bad input, 3 something did not finish (ERROR).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from ..core import EncircleError, InputError

app = typer.Typer(
    name="encircle",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How far can poisoned training data bend a model's explanations? Audit models that you own or may study.",
    epilog="Exit codes: 0 every verdict PASS or WARN; 1 some verdict FAIL; 2 bad input; 3 something did not finish.",
)
# Without emoji, or `:100:` in a path or a title would become one.
messages = Console(stderr=True, highlight=False, emoji=False)
answers = Console(highlight=False, emoji=False)


def read_file(path: Path) -> str:
    """The text of a file that the user names.

    Raises:
        InputError: it cannot be read as UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read as UTF-8 text; give a YAML file.") from None


def main() -> NoReturn:
    """Run the command line, with one clear sentence for every error that was foreseen."""
    try:
        app()
    except EncircleError as error:
        messages.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        messages.print("stopped; run the same command again to resume.", markup=False)
        sys.exit(130)
    except Exception as error:
        messages.print(
            f"error: internal error {type(error).__name__}: {error}; please report it.", style="red", markup=False
        )
        sys.exit(3)
    sys.exit(0)
