"""All commands, and the exit codes of their errors."""

from __future__ import annotations

from contextlib import suppress

from ..core import EncircleError
from ..storage import file_error
from . import audits, reproduction, strength, studies
from .interrupts import drop
from .terminal import ClosedStreamError, StoppedError, answers, app, messages

__all__ = ["app", "audits", "reproduction", "run", "strength", "studies"]

CLOSED = 141
"""The exit code after a closed output stream, as in shells; 1 would be a FAIL."""


def run() -> int:
    """Run the command line, and print every error as one sentence.

    Returns:
        The exit code.

    Raises:
        KeyboardInterrupt: the command was stopped.
    """
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except StoppedError:
        raise KeyboardInterrupt from None
    except ClosedStreamError:
        for stream in (answers, messages):
            drop(stream.file)
        return CLOSED
    except OSError as problem:
        return _refuse(file_error(problem))
    except EncircleError as error:
        return _refuse(error)
    except Exception as error:
        return _refuse(EncircleError(f"internal error {type(error).__name__}: {error}; please report it."))
    return 0


def _refuse(error: EncircleError) -> int:
    with suppress(ClosedStreamError, OSError):  # the exit code still reports the error
        messages.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
    return error.exit_code
