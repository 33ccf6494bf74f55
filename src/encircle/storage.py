"""Files that are either whole or absent: everything is written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from polars.exceptions import PolarsError

from .core import EncircleError, InputError, StorageError

_TEMPORARY = ".partial-"
_PATIENCE = 4


def _temporary_name(path: Path) -> Path:
    return path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, delete it otherwise.

    Raises:
        StorageError: the disk is full, the folder is read-only, or the like.
    """
    temporary = _temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:  # what is renamed must not be lost with the power
            os.fsync(handle.fileno())
        temporary.replace(path)
    except (OSError, PolarsError, safetensors.SafetensorError) as error:
        if (problem := _system_error(error)) is None:
            raise
        raise StorageError(_cannot_write(path, problem)) from error
    finally:
        with suppress(OSError):  # gone already, or its folder could not be made
            temporary.unlink()


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Like `replacing`, for a whole folder; an existing folder of that name is replaced.

    Raises:
        StorageError: the disk is full, the parent is read-only, or the like.
    """
    temporary, outgoing = _temporary_name(path), _temporary_name(path.with_name(f"old-{path.name}"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            path.replace(outgoing)  # a process killed while deleting must not leave half a folder under its name
        try:
            temporary.replace(path)
        except OSError:
            if outgoing.exists():
                outgoing.replace(path)
            raise
    except (OSError, PolarsError, safetensors.SafetensorError) as error:
        if (problem := _system_error(error)) is None:
            raise
        raise StorageError(_cannot_write(path, problem)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(outgoing, ignore_errors=True)


def _system_error(error: Exception) -> OSError | None:
    """What the system said when a file was written; libraries that write by themselves tell of a full disk in words alone."""
    if isinstance(error, OSError):
        return error
    code = re.search(r"\b(?:os error |code: )(\d+)\b", str(error))
    problem = OSError(int(code[1]), os.strerror(int(code[1]))) if code else OSError()
    return problem if is_full(problem) else None


def _cannot_write(path: Path, error: OSError) -> str:
    remedy = _REMEDIES.get(error.errno or 0, "free some space or choose another folder, then run again.")
    return f"cannot write {path}: {error.strerror or error}; {remedy}"


_REMEDIES = {
    errno.ENAMETOOLONG: "choose a shorter name.",
    errno.EACCES: "choose another folder, or allow writing there, then run again.",
    errno.EROFS: "choose another folder, then run again.",
}


def file_error(error: OSError, path: Path | None = None) -> EncircleError:
    """What an error of the operating system is to people.

    Args:
        error: what was raised.
        path: the file, where the error does not know it.

    Returns:
        A `StorageError` where there is no space left, else an `InputError`: the path cannot be used.
    """
    name = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else path
    if is_full(error):
        return StorageError(_cannot_write(name or Path("a file"), error))
    return InputError(f"{name or 'a file'}: {error.strerror or error}; check the path.")


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no space left: on the disk, for the user, or for the file."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_length(path: Path) -> None:
    """Refuse a path that the file system cannot have, before hours of work end in it.

    Raises:
        InputError: it is too long.
    """
    try:
        _temporary_name(path).lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"the path {path} is too long for the file system; choose a shorter one.") from None


def sweep(folder: Path) -> None:
    """Delete what killed processes left under temporary names anywhere below `folder`."""
    for leftover in folder.rglob(f"{_TEMPORARY}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Write a table, whole or not at all."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    write_bytes(path, buffer.getvalue())


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str] | None = None) -> None:
    """Write arrays by name as safetensors, with facts beside them, whole or not at all.

    Args:
        path: the file.
        arrays: of any shapes, by name.
        facts: texts by name.

    Raises:
        StorageError: the file cannot be written.
    """
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_bytes(path, safetensors.numpy.save(plain, metadata=dict(facts or {})))


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read what `write_arrays` wrote: arrays by name, and facts.

    Raises:
        StorageError: the file is missing or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as handle:
            names = handle.keys()
            return {name: handle.get_tensor(name) for name in names}, dict(handle.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        raise StorageError(f"{path} is missing or damaged; delete it and run again.") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the operating system's lock of a folder, so that two processes never work in it at once.

    Raises:
        InputError: another process holds it.
        StorageError: the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as error:
        raise StorageError(_cannot_write(path, error)) from error
    with handle:
        for patience in range(_PATIENCE, -1, -1):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if not patience:
                    raise InputError(f"another process is at work in {folder}; wait for it or stop it.") from None
                time.sleep(0.05)  # it may only be asking, as `is_locked` does
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in a folder, that is, holds the lock of `exclusive_lock`."""
    try:
        with (folder / ".lock").open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; NaN and infinities become null, which every JSON reader understands."""
    write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (ValueError, UnicodeDecodeError):
        raise InputError(f"{path} is damaged (not JSON); delete it and run again.") from None
