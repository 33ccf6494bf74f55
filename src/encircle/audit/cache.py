"""What several audits share (trained models, ensembles, outputs of frozen stages), kept by content in a bounded cache."""

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
"""The least recently used files are deleted when the cache grows beyond this."""

_PARTIAL = ".partial-"
"""How names begin that other processes are writing under (`storage.replacing`)."""

_STALE_SECONDS = 24 * 60 * 60
"""What is still partial after this was left by a process that was killed."""

_NAME = re.compile(r"[0-9a-f]{64}\.(safetensors|json)")
"""How the files of a cache are called."""

_T = TypeVar("_T")


@final
class Cache:
    """Files by what they were made from: the same start, recipe, data and seed give the same weights.

    Worker processes share the folder, so any file in it may vanish at any time.

    Args:
        folder: where files are kept, and may be deleted at any time; None keeps none.
        identity: what else they depend on (data, architecture, threads, versions).
        products: folders that may hold them too, which are only read.
        limit: bytes to keep.
    """

    def __init__(
        self, folder: Path | None, identity: str, *, products: Sequence[Path] = (), limit: int = CACHE_BYTES
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._products = products
        self._limit = limit

    def key(self, recipe: Recipe, role: str, seed: int, content: str) -> str:
        """What a model's weights are known by (SHA-256, hex).

        Args:
            recipe: how it learns.
            role: what it is for.
            seed: its seed.
            content: identifies the samples beyond the data set (which poison).
        """
        return digest([self._identity, repr(recipe), role, seed, content])

    def read(self, key: str, load: Callable[[Path], _T], *, suffix: str = ".safetensors") -> _T | None:
        """What `load` makes of the file, or None if there is none that it can read.

        Args:
            key: what the file is known by.
            load: reads it; an error of ours means that it is damaged, and it is deleted from the cache.
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
        """Keep what `save` writes, and make room for it.

        Args:
            key: what the file is known by.
            save: writes it, whole or not at all.
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
        """Like `training.fit.fit_on_features`, but reads the weights that are there.

        Args:
            source: where the models start.
            recipe: how they learn.
            frozen_features: gives what they learn from, as the frozen stages see it.
            role: what they are for.
            seeds: their seeds.
            content: identifies the samples beyond the data set (which poison).
            way: models that are trained at once are trained at once whichever of them are there: rounding may depend on it.
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
    """Delete what a `Cache` keeps in a folder, and nothing else that may lie there.

    Returns:
        How many files, and how many bytes.
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
