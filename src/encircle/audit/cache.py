"""Trained models that several audits share, kept by content in a bounded cache."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

from torch import nn

from ..core import InputError, digest
from ..data import Samples
from ..training import Recipe, Source, fit, read_weights, save_weights

CACHE_BYTES = 2 << 30
"""The least recently used models are deleted when the cache grows beyond this."""

_PARTIAL = ".partial-"
"""How names begin that other processes are writing under (`storage.replacing`)."""

_STALE_SECONDS = 24 * 60 * 60
"""What is still partial after this was left by a process that was killed."""


@final
class ModelCache:
    """Models by what they were trained from: the same start, recipe, data and seed give the same weights.

    Worker processes share the folder, so any file in it may vanish at any time.

    Args:
        folder: where weights are kept, and may be deleted at any time; None keeps none.
        identity: what else the weights depend on (data, architecture, threads, versions).
        found: folders that may hold weights too, which are only read.
        limit: bytes to keep.
    """

    def __init__(
        self, folder: Path | None, identity: str, *, found: Sequence[Path] = (), limit: int = CACHE_BYTES
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._found = found
        self._limit = limit

    def key(self, recipe: Recipe, role: str, seed: int, content: str) -> str:
        """What the weights are known by (SHA-256, hex); arguments as for `fit`."""
        return digest([self._identity, repr(recipe), role, seed, content])

    def fit(self, source: Source, recipe: Recipe, samples: Samples, role: str, seed: int, content: str) -> nn.Module:
        """Like `training.fit`, but reads the weights if they are there.

        Args:
            source: where the model starts.
            recipe: how it learns.
            samples: what it learns from.
            role: what it is for.
            seed: its seed.
            content: identifies `samples` beyond the data set (which poison).
        """
        name = f"{self.key(recipe, role, seed, content)}.safetensors"
        for folder in [*([self._folder] if self._folder else []), *self._found]:
            if (path := folder / name).is_file():
                model = source.model(recipe, role, seed)
                try:
                    model.load_state_dict(read_weights(path))
                except (InputError, RuntimeError):
                    if folder == self._folder:
                        path.unlink(missing_ok=True)  # a cache may be damaged: train anew
                    continue
                with suppress(OSError):  # another process may just have trimmed it
                    os.utime(path)
                return model.to(source.device).eval()
        model = fit(source, recipe, samples, role, seed)
        if self._folder:
            save_weights(self._folder / name, model)
            self._trim(self._folder)
        return model

    def _trim(self, folder: Path) -> None:
        now, whole = time.time(), []
        for path in folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                facts = path.stat()
                if not path.name.startswith(_PARTIAL):
                    whole.append((facts.st_mtime, facts.st_size, path))
                elif now - facts.st_mtime > _STALE_SECONDS:
                    path.unlink()
        total = 0
        for _, size, path in sorted(whole, reverse=True):
            total += size
            if total > self._limit:
                path.unlink(missing_ok=True)
