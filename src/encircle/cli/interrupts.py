"""Ctrl-C and SIGTERM at any moment: one sentence, exit code 130, no traceback. Loads nothing that takes long."""

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
"""The exit code of what was stopped, as shells have it."""

RESUME = "stopped; run the same command again to resume."

_RESUMABLE = (["audit"], ["ablate"], ["reach"], ["budget"], ["reproduce"])
_RESUMABLE_STUDY = (["study", "run"], ["study", "resume"], ["study", "retry"])
_PATIENCE = 20.0
"""Seconds that stopping cleanly may take; Ray needs the longest."""

_MOMENT = 0.05
"""Seconds until an interrupt that was swallowed is raised again."""


def words_for(arguments: Sequence[str]) -> str:
    """What to say when this command is stopped.

    Args:
        arguments: of the command line, without the program.
    """
    names = [argument for argument in arguments if not argument.startswith("-")]
    resumable = names[:1] in _RESUMABLE or names[:2] in _RESUMABLE_STUDY
    return RESUME if resumable and not {"--dry-run", "--help"} & set(arguments) else "stopped."


@final
class Interrupts:
    """While it is entered, the first interrupt raises `KeyboardInterrupt`, and a second ends the process at once.

    Args:
        words: said where the process is ended at once.

    Attributes:
        clean: whether there is anything to be ended cleanly; until then the first interrupt ends the process too: libraries that are
            being loaded turn a `KeyboardInterrupt` into errors of their own.
        heard: whether there was an interrupt. Whatever is raised after it comes of it.
    """

    def __init__(self, words: str) -> None:
        self._words = words
        self.clean = False
        self.heard = False
        self._swallowed = False
        self._handlers: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    def __enter__(self) -> Interrupts:
        """Listen."""
        if threading.current_thread() is threading.main_thread():  # others cannot
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # which a shell asks for where it puts jobs aside
                    self._handlers[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more."""
        if self.heard:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = self._hook
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def say(self) -> None:
        """Say the words, once."""
        words, self._words = self._words, ""
        if words:
            with suppress(OSError):  # not by sys.stderr, which may be what was interrupted
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
        """What is raised in a destructor, Python would print and forget; an interrupt is raised again a moment later."""
        if isinstance(facts.exc_value, KeyboardInterrupt):
            self._swallowed = True
            signal.setitimer(signal.ITIMER_REAL, _MOMENT)

    def _wake(self, *_: object) -> None:
        if not self._swallowed:  # nothing may wait for ever
            self._leave()
        self._swallowed = False
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        raise KeyboardInterrupt

    def _leave(self) -> NoReturn:
        # Every file is whole or absent whatever happens, and workers leave with the process that started them.
        self.say()
        os._exit(STOPPED)


def hand_on(streams: Iterable[IO[str]]) -> None:
    """Flush what was printed; where nobody reads it any more it is dropped, or Python itself would complain at its end."""
    for stream in streams:
        try:
            stream.flush()
        except (OSError, ValueError):
            drop(stream)


def drop(stream: IO[str]) -> None:
    """Send whatever is still printed to a stream nowhere."""
    with suppress(OSError, ValueError):  # it may be no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
