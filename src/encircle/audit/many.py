"""Several audits at once: one worker process each, so that every core has a model to train."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any, final

from ..core import EncircleError
from ..jobs.parent import leave_with_parent
from ..storage import file_error
from .audit import Audit
from .case import Case
from .progress import Reporter
from .run import Judgement, run_audit

Event = tuple[int, str, tuple[Any, ...]]


@final
class _Forwarding:
    """A reporter in a worker: sends what it is told to the process that shows it."""

    def __init__(self, place: int, events: queue.Queue[Event]) -> None:
        self._place, self._events = place, events
        self._last = 0.0

    def plan(self, title: str, work: dict[str, int]) -> None:
        """Forwarded."""
        self._events.put((self._place, "plan", (title, work)))

    def begin(self, kind: str, label: str) -> None:
        """Forwarded."""
        self._events.put((self._place, "begin", (kind, label)))

    def advance(self, done: int, planned: int) -> None:
        """Forwarded, a few times a second at most."""
        if time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            self._events.put((self._place, "advance", (done, planned)))

    def finish(self, kind: str, *, reused: bool = False) -> None:
        """Forwarded."""
        self._events.put((self._place, "finish", (kind, reused)))


def run_cases(
    cases: Sequence[Case], runs: Path, jobs: int, reporter_of: Callable[[int], Reporter], *, device: str = "cpu"
) -> list[Judgement | EncircleError]:
    """Run audits, `jobs` at a time; one that fails does not stop the others.

    Args:
        cases: the audits.
        runs: folder of run folders; models that audits share are trained once and kept there.
        jobs: worker processes; 1 works in this process.
        reporter_of: the reporter of the audit at a place of `cases`.
        device: where models are trained.

    Returns:
        For each case its judgement, or the error that ended it.
    """
    if jobs == 1 or len(cases) == 1:
        return [_guarded(case, runs, reporter_of(place), device) for place, case in enumerate(cases)]
    context = multiprocessing.get_context("spawn")  # a forked torch hangs
    resource_tracker.ensure_running()  # which some versions of Python start with signals let through afterwards
    manager = SyncManager(ctx=context)
    with _deaf_children():
        manager.start(leave_with_parent, (os.getpid(),))
    with manager:
        events: queue.Queue[Event] = manager.Queue()
        reporters = {index: reporter_of(index) for index in range(len(cases))}
        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(
            jobs, mp_context=context, initializer=leave_with_parent, initargs=(os.getpid(),)
        ) as pool:
            try:
                with _deaf_children():
                    futures = [
                        pool.submit(_work, case, runs, index, events, device) for index, case in enumerate(cases)
                    ]
                while wait(futures, timeout=0.1).not_done:
                    _deliver(events, reporters)
                _deliver(events, reporters)
            except BaseException:  # such as an interrupt
                for worker in set(multiprocessing.active_children()) - others:
                    worker.kill()  # or leaving the pool would wait for what they are at
                raise
            return [_result(future) for future in futures]


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Start processes that Ctrl-C on the terminal does not reach, not even while they begin: the parent ends them.

    Its own interrupts wait meanwhile, or it could leave a process half started.
    """
    waiting: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):
                handlers[number] = signal.signal(number, lambda number, _: waiting.append(number))
    # What is blocked stays so in processes that are started, but may still reach another thread of this one.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for heard, handler in handlers.items():
            signal.signal(heard, handler)
    if waiting:
        signal.raise_signal(waiting[0])


def _deliver(events: queue.Queue[Event], reporters: dict[int, Reporter]) -> None:
    while True:
        try:
            index, name, arguments = events.get_nowait()
        except queue.Empty:
            return
        except (EOFError, ConnectionError):
            raise EncircleError("a helper process ended unexpectedly; run again to resume.") from None
        if name == "finish":
            reporters[index].finish(arguments[0], reused=arguments[1])
        else:
            getattr(reporters[index], name)(*arguments)


def _result(future: Future[Judgement | EncircleError]) -> Judgement | EncircleError:
    try:
        return future.result()
    except Exception as error:
        return EncircleError(f"a worker process ended unexpectedly ({type(error).__name__}); run again to resume.")


def _work(case: Case, runs: Path, place: int, events: queue.Queue[Event], device: str) -> Judgement | EncircleError:
    return _guarded(case, runs, _Forwarding(place, events), device)


def _guarded(case: Case, runs: Path, reporter: Reporter, device: str) -> Judgement | EncircleError:
    try:
        return run_audit(Audit.from_case(case, device), runs, reporter)
    except EncircleError as error:
        return error
    except OSError as error:
        return file_error(error, runs)
    except Exception as error:
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = (
            f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
            if where is not None
            else "unknown place"
        )
        return EncircleError(f"internal error {type(error).__name__} at {line}: {error}; please report it.")
