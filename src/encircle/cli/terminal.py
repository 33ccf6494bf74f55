"""Shared by all commands: the application, its two output streams, and the files that users name.

Exit codes: 0 every verdict PASS or WARN, 1 some verdict FAIL, 2 bad input, 3 unfinished work (ERROR).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, final

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from ..core import EncircleError, printable


@final
class StoppedError(Exception):
    """Ctrl-C or SIGTERM."""


@final
class ClosedStreamError(Exception):
    """The output's reader is gone, as in `encircle list cases | head -1`."""


@final
class _Commands(TyperGroup):
    """Commands that leave exits to `run`: Typer would end silently, or with the exit code of a FAIL."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        try:
            return super().make_context(*arguments, **settings)
        except KeyboardInterrupt:
            raise StoppedError from None

    def invoke(self, *arguments: Any, **settings: Any) -> Any:
        try:
            return super().invoke(*arguments, **settings)
        except KeyboardInterrupt:
            raise StoppedError from None
        except BrokenPipeError:
            raise ClosedStreamError from None
        except EOFError as error:
            raise EncircleError(f"internal error EOFError: {error}; please report it.") from error


@final
class Stream(Console):
    """A stream to a terminal or file; names in texts cannot move the cursor, colour text or begin a line."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """The shown form of a text."""
        return super().render_str(printable(text), **settings)

    def on_broken_pipe(self) -> NoReturn:
        """The reader is gone."""
        raise ClosedStreamError

    def json_line(self, facts: Mapping[str, Any]) -> None:
        """Write facts for programs, as one line."""
        try:
            self.file.write(json.dumps(facts) + "\n")
            self.file.flush()
        except BrokenPipeError:
            raise ClosedStreamError from None


app = typer.Typer(
    name="encircle",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How far can poisoned training data bend a model's explanations? Audit models that you own or may study.",
    epilog="Exit codes: 0 every verdict PASS or WARN; 1 some verdict FAIL; 2 bad input; 3 something did not finish.",
)
# Without emoji: `:100:` in a path or a title would become one.
messages = Stream(stderr=True, highlight=False, emoji=False)
answers = Stream(highlight=False, emoji=False)
