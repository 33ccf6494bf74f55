"""A bounded cache of models, ensembles and frozen features that several audits share, named by content."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, final

from torch import nn

from ..core import EncircleError, digest
from ..data import Samples
from ..models import Way
from ..training import Recipe, Source, read_weights, save_weights
from ..training.fit import fit_on_features

CACHE_BYTES = 2 << 30
"""Bytes. Beyond them the least recently used files are deleted."""

_PARTIAL = ".partial-"
"""Prefix of the temporary names under which other processes write (`storage.replacing`)."""

_STALE_SECONDS = 24 * 60 * 60
"""Seconds. An older temporary file was left by a killed process."""

_NAME = re.compile(r"[0-9a-f]{64}\.(safetensors|json)")
"""Names of the files of a cache."""

_T = TypeVar("_T")


@final
class Cache:
    """Files named by a hash of their sources: the same start, recipe, data and seed give the same weights.

    Worker processes share the folder, so any file in it may vanish at any time.

    Args:
        folder: where files are kept, and may be deleted at any time; None keeps none.
        identity: their other dependencies (data, architecture, threads, versions).
        products: further folders with such files; only read.
        limit: size in bytes.
    """

    def __init__(
        self, folder: Path | None, identity: str, *, products: Sequence[Path] = (), limit: int = CACHE_BYTES
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._products = products
        self._limit = limit

    def key(self, recipe: Recipe, role: str, seed: int, content: str) -> str:
        """The key of a model's weights (SHA-256, hex).

        Args:
            recipe: how it learns.
            role: its purpose.
            seed: its seed.
            content: identifies the samples beyond the data set (which poison).
        """
        return digest([self._identity, repr(recipe), role, seed, content])

    def read(self, key: str, load: Callable[[Path], _T], *, suffix: str = ".safetensors") -> _T | None:
        """The value that `load` reads from the file, or None without a readable file.

        Args:
            key: the file's key.
            load: reads the file. An `EncircleError` means that the file is damaged, and deletes it from the cache.
            suffix: of its name.
        """
        for folder in [*([self._folder] if self._folder else []), *self._products]:
            path = folder / f"{key}{suffix}"
            if not path.is_file():
                continue
            try:
                content = load(path)
            except (EncircleError, RuntimeError):
                if folder == self._folder:
                    path.unlink(missing_ok=True)  # a cache may be damaged: make it anew
                continue
            with suppress(OSError):  # another process may just have trimmed it
                os.utime(path)
            return content
        return None

    def write(self, key: str, save: Callable[[Path], None], *, suffix: str = ".safetensors") -> None:
        """Keep the file that `save` writes, and make room for it.

        Args:
            key: the file's key.
            save: writes the file, completely or not at all.
            suffix: of its name.
        """
        if self._folder:
            save(self._folder / f"{key}{suffix}")
            self._trim(self._folder)

    def fit(
        self,
        source: Source,
        recipe: Recipe,
        frozen_features: Callable[[], Samples],
        role: str,
        seeds: Sequence[int],
        content: str,
        way: Way = "loop",
    ) -> list[nn.Module]:
        """Like `training.fit.fit_on_features`, but reads weights that are cached.

        Args:
            source: where the models start.
            recipe: how they learn.
            frozen_features: returns the frozen features of their training samples.
            role: their purpose.
            seeds: their seeds.
            content: identifies the samples beyond the data set (which poison).
            way: the code path. Models that train at once do so even if some of them are cached, because rounding may depend on it.
        """
        keys = {seed: self.key(recipe, role, seed, content) for seed in seeds}
        models = {seed: self.read(key, _reader(source, recipe, role, seed)) for seed, key in keys.items()}
        missing = [seed for seed, model in models.items() if model is None]
        if missing:
            trained = missing if way == "loop" else list(seeds)
            for seed, model in zip(
                trained, fit_on_features(source, recipe, frozen_features(), role, trained, way), strict=True
            ):
                models[seed] = model
                self.write(keys[seed], lambda path, model=model: save_weights(path, model))  # type: ignore[misc]
        return [model for model in models.values() if model is not None]

    def _trim(self, folder: Path) -> None:
        now, complete = time.time(), []
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                facts = path.stat()
                if _NAME.fullmatch(path.name):
                    complete.append((facts.st_mtime, facts.st_size, path))
                elif path.name.startswith(_PARTIAL) and now - facts.st_mtime > _STALE_SECONDS:
                    path.unlink()
        total = 0
        for _, size, path in sorted(complete, reverse=True):
            total += size
            if total > self._limit:
                path.unlink(missing_ok=True)


def clear(folder: Path) -> tuple[int, int]:
    """Delete the files of a `Cache` in a folder, and no other files there.

    Returns:
        Number of files, and number of bytes.
    """
    count = freed = 0
    for path in folder.iterdir() if folder.is_dir() else []:
        if _NAME.fullmatch(path.name) and path.is_file():
            freed += path.stat().st_size
            path.unlink()
            count += 1
    return count, freed


def _reader(source: Source, recipe: Recipe, role: str, seed: int) -> Callable[[Path], nn.Module]:
    def load(path: Path) -> nn.Module:
        model = source.model(recipe, role, seed)
        model.load_state_dict(read_weights(path))
        return model.to(source.device).eval()

    return load
