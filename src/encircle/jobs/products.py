"""A task's product: a folder of files and their hashes. It appears complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..core import StorageError
from ..storage import replacing_folder, sha256_of, write_json
from .task import Task

MANIFEST = "product.json"
"""The file of a product that lists the others."""


def seal(out: Path, task: Task) -> None:
    """Write the product's manifest: every file's size and SHA-256.

    Raises:
        StorageError: a file cannot be read or the manifest not written, or the work left other things than files.
    """
    files: dict[str, list[Any]] = {}
    try:
        for path in sorted(out.rglob("*")):
            if path.is_symlink():
                raise StorageError(
                    f"the task {task.label} left a link ({path.name}) in its product; it may leave files only."
                )
            if path.is_file() and path != out / MANIFEST:
                files[path.relative_to(out).as_posix()] = [path.stat().st_size, sha256_of(path)]
    except OSError as error:
        raise StorageError(f"cannot read {out}: {error.strerror or error}; run again.") from error
    write_json(out / MANIFEST, {"task": task.id, "kind": task.kind, "files": files})


def commit(out: Path, destination: Path) -> None:
    """Move a sealed product to its folder, after its bytes are on the disk; a former product is replaced.

    Raises:
        StorageError: the disk is full, the folder is read-only, or the like.
    """
    with replacing_folder(destination) as temporary:
        temporary.rmdir()
        for path in out.rglob("*"):
            if path.is_file():
                _sync(path)
        out.replace(temporary)


def is_complete(folder: Path, task: str, *, thorough: bool = False) -> bool:
    """Whether a folder holds the complete product of a task.

    Args:
        folder: the product.
        task: the id of the task.
        thorough: compare sizes and hashes, not only names. A report may have been drawn again since.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["task"] != task:
            return False
        for name, (size, sha256) in manifest["files"].items():
            path = folder / _inner(name)
            if not path.is_file() or (thorough and (path.stat().st_size != size or sha256_of(path) != sha256)):
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StorageError):
        return False
    return True


def remove(folder: Path) -> None:
    """Delete a product. If the process is killed meanwhile, the rest has a temporary name."""
    outgoing = folder.with_name(f".partial-{os.getpid()}-{folder.name}")
    try:
        folder.replace(outgoing)
    except OSError:
        return
    shutil.rmtree(outgoing, ignore_errors=True)


def pack(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name, to be sent elsewhere."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of `pack` into a folder.

    Raises:
        StorageError: a name leads out of the folder.
    """
    for name, content in files.items():
        path = folder / _inner(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _inner(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise StorageError(
            f"a product names the file {name!r}, which lies outside of its folder; delete it and run again."
        )
    return path


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
