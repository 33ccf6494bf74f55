"""Trained models that several audits share, kept by content in a bounded cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from torch import nn

from ..core import InputError, digest
from ..data import Samples
from ..training import Recipe, Source, fit, read_weights, save_weights

CACHE_BYTES = 2 << 30
"""The least recently used models are deleted when the cache grows beyond this."""


@final
class ModelCache:
    """Models by what they were trained from: the same start, recipe, data and seed give the same weights.

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
                os.utime(path)
                return model.to(source.device).eval()
        model = fit(source, recipe, samples, role, seed)
        save_weights(path, model)
        self._trim()
        return model

    def _trim(self) -> None:
        files = sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > self._limit:
                path.unlink(missing_ok=True)
