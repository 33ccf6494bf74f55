"""Ctrl-C and SIGTERM at any moment: one sentence, exit code 130, no traceback. No slow imports."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import IO, Any, NoReturn, final

STOPPED = 130
"""The exit code of a stopped command, as in shells."""

RESUME = "stopped; run the same command again to resume."

_RESUMABLE = (["audit"], ["ablate"], ["reach"], ["budget"], ["reproduce"])
_RESUMABLE_STUDY = (["study", "run"], ["study", "resume"], ["study", "retry"])
_PATIENCE = 20.0
"""Seconds allowed for a clean stop; Ray needs the longest."""

_MOMENT = 0.05
"""Seconds until a swallowed interrupt is raised again."""


def words_for(arguments: Sequence[str]) -> str:
    """The message when this command is stopped.

    Args:
        arguments: of the command line, without the program.
    """
    names = [argument for argument in arguments if not argument.startswith("-")]
    resumable = names[:1] in _RESUMABLE or names[:2] in _RESUMABLE_STUDY
    return RESUME if resumable and not {"--dry-run", "--help"} & set(arguments) else "stopped."


@final
class Interrupts:
    """A context in which the first interrupt raises `KeyboardInterrupt`, and a second ends the process at once.

    Args:
        words: printed when the process ends at once.

    Attributes:
        clean: whether there is work to end cleanly. Until then the first interrupt ends the process too, because libraries turn a
            `KeyboardInterrupt` during their import into errors of their own.
        heard: whether there was an interrupt. It is the cause of every later exception.
    """

    def __init__(self, words: str) -> None:
        self._words = words
        self.clean = False
        self.heard = False
        self._swallowed = False
        self._handlers: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    def __enter__(self) -> Interrupts:
        """Begin to catch interrupts."""
        if threading.current_thread() is threading.main_thread():  # other threads cannot
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as set by a shell for background jobs
                    self._handlers[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop catching interrupts."""
        if self.heard:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = self._hook
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def say(self) -> None:
        """Print the words, once."""
        words, self._words = self._words, ""
        if words:
            with suppress(OSError):  # not by sys.stderr: the interrupt may have come during a write to it
                shown_again = "\x1b[?25h" if os.isatty(2) else ""  # progress bars hide the cursor
                os.write(2, f"{shown_again}{words}\n".encode())

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.clean or self.heard:
            self._leave()
        self.heard = True
        self._handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._wake)
        sys.unraisablehook = self._unraised
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        raise KeyboardInterrupt

    def _unraised(self, facts: Any) -> None:
        """Handle an exception in a destructor, which Python swallows: an interrupt is raised again a moment later."""
        if isinstance(facts.exc_value, KeyboardInterrupt):
            self._swallowed = True
            signal.setitimer(signal.ITIMER_REAL, _MOMENT)

    def _wake(self, *_: object) -> None:
        if not self._swallowed:  # no wait may last for ever
            self._leave()
        self._swallowed = False
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        raise KeyboardInterrupt

    def _leave(self) -> NoReturn:
        # Files are complete or absent at any moment, and workers leave with the process that started them.
        self.say()
        os._exit(STOPPED)


def hand_on(streams: Iterable[IO[str]]) -> None:
    """Flush the output, or drop it if its reader is gone: Python would complain at its end."""
    for stream in streams:
        try:
            stream.flush()
        except (OSError, ValueError):
            drop(stream)


def drop(stream: IO[str]) -> None:
    """Discard all further output of a stream."""
    with suppress(OSError, ValueError):  # the stream may not be a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
