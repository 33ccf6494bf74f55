"""Trained models that several audits share, kept by content in a bounded cache."""

from __future__ import annotations

import os
import time
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
        folder: where weights are kept; may be deleted at any time.
        identity: what else the weights depend on (data, architecture, threads, versions).
        limit: bytes to keep.
    """

    def __init__(self, folder: Path, identity: str, *, limit: int = CACHE_BYTES) -> None:
        self._folder = folder
        self._identity = identity
        self._limit = limit

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
        path = self._folder / f"{digest([self._identity, repr(recipe), role, seed, content])}.safetensors"
        if path.is_file():
            model = source.model(recipe, role, seed)
            try:
                model.load_state_dict(read_weights(path))
            except (InputError, RuntimeError):
                path.unlink(missing_ok=True)  # a cache may be damaged: train anew
            else:
                with suppress(FileNotFoundError):  # another process may just have trimmed it
                    os.utime(path)
                return model.to(source.device).eval()
        model = fit(source, recipe, samples, role, seed)
        save_weights(path, model)
        self._trim()
        return model

    def _trim(self) -> None:
        now, whole = time.time(), []
        for path in self._folder.glob("*.safetensors"):
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
