"""The environment of a run: versions, machine, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from ..core import RESULTS_VERSION
from ..run_folder import Provenance

_PACKAGES = ("encircle", "torch", "numpy", "scipy", "scikit-learn", "scikit-image", "polars", "pillow")


def provenance(device: torch.device) -> Provenance:
    """Versions, Python, platform, threads, device, commit and results version."""
    return {
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {_processor()}",
        "threads": torch.get_num_threads(),
        "device": _device(device),
        "commit": _commit(),
        "results_version": RESULTS_VERSION,
    }


def _device(device: torch.device) -> str:
    """The accelerator's name, if this machine has it."""
    here = device.type == "cuda" and torch.cuda.is_available()
    return torch.cuda.get_device_name(device) if here else device.type


def _processor() -> str:
    """The processor's name: rounding, and so bit-for-bit equality, depends on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown processor"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def _commit() -> str | None:
    """The commit of a source checkout, marked if the code was changed since.

    None for an installed package, even inside another repository.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    changed = _git(here.parent, "status", "--porcelain", "--", str(here.parent.parent))
    return f"{_git(here.parent, 'rev-parse', 'HEAD')}{' with changes' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
