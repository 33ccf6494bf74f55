"""Processes that another one starts for itself. Loads nothing, so that they begin at once."""

from __future__ import annotations

import os
import signal
import threading
import time


def leave_with_parent(parent: int) -> None:
    """End this process as soon as its parent is gone: one that is killed leaves no process behind. Interrupts are left to the parent.

    Args:
        parent: its process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
