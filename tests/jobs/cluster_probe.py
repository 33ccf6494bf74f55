"""What processes there are and where they listen, read from /proc."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path


def _stat(process: Path) -> tuple[str, int, int]:
    state, parent, _, session = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:4]
    return state, int(parent), int(session)


def living() -> dict[int, tuple[int, int]]:
    """Parent and session of every process that has not ended."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                state, parent, session = _stat(process)
                if state not in "ZX":
                    found[int(process.name)] = parent, session
    return found


def descendants(ancestor: int) -> set[int]:
    """A process and all that it started, as far as they still hang together."""
    found, processes = {ancestor}, living()
    while new := {process for process, (parent, _) in processes.items() if parent in found} - found:
        found |= new
    return found


def listening(processes: set[int]) -> list[str]:
    """Addresses at which any of the processes accepts connections."""
    inodes = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(descriptor.readlink().name)
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.append(_address(fields[1].partition(":")[0]))
    return found


def _address(text: str) -> str:
    raw = b"".join(bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
