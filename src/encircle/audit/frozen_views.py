"""The frozen features of an audit's data: computed once, and shared between audits if they fit in memory."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import final

from torch import nn

from ..core import InputError, digest
from ..data import Samples, TensorSamples
from ..data.poison import Poison
from ..training import Recipe, read_weights, save_tensors
from ..training.frozen import frozen_features_of, frozen_samples
from .audit import Audit
from .cache import Cache
from .starting_weights import StartingWeights


@final
class FrozenViews:
    """The frozen features of an audit's samples.

    Args:
        audit: its settings.
        recipe: how many stages are frozen.
        starts: give the weights of the frozen stages.
        cache: stores the features of the training set.
        identity: the dependencies of weights besides recipe and seed.
    """

    def __init__(self, audit: Audit, recipe: Recipe, starts: StartingWeights, cache: Cache, identity: str) -> None:
        self._audit, self._recipe, self._starts, self._cache = audit, recipe, starts, cache
        self._identity = identity
        self._views: dict[str, Samples] = {}

    @property
    def key(self) -> str:
        """The key of the training set's frozen features."""
        seed = self._audit.settings.seed if self._starts.keys else 0
        return digest([self._identity, "frozen stages", self._recipe.shared_stages, seed])

    def train(self) -> Samples:
        """The training set."""
        samples = self._audit.data.train
        if self._recipe.shared_stages == 0:
            return samples
        if "train" not in self._views:
            stored = self._cache.read(self.key, lambda path: _stored(path, samples))
            if stored is not None:
                self._views["train"] = TensorSamples(stored.inputs.to(self._audit.device), stored.labels)
            elif isinstance(self._view("train", samples), TensorSamples):
                self._cache.write(self.key, self.save)
        return self._views["train"]

    def save(self, path: Path) -> None:
        """Write the training set's frozen features, only if they fit in memory."""
        view = self._view("train", self._audit.data.train)
        save_tensors(path, {"hidden": view.inputs} if isinstance(view, TensorSamples) else {})

    def held_out(self) -> list[Samples]:
        """The validation and test parts; empty ones left out."""
        parts = {"validation": self._audit.data.validation, "test": self._audit.data.test}
        return [self._view(name, part) for name, part in parts.items() if len(part)]

    def poisoned(self, poison: Poison) -> Samples:
        """The training set with poison: only the poison passes the frozen stages anew."""
        frozen, view = self._recipe.shared_stages, self.train()
        if frozen and not isinstance(view, TensorSamples):
            samples = self._audit.data.train.with_poison(poison.inputs, poison.labels, poison.overwritten)
            return frozen_samples(self._trunk, samples, frozen)
        if not len(poison):
            return view
        inputs = frozen_features_of(self._trunk, poison.inputs, frozen) if frozen else poison.inputs
        return view.with_poison(inputs, poison.labels, poison.overwritten)

    def _view(self, name: str, samples: Samples) -> Samples:
        if name not in self._views:
            self._views[name] = frozen_samples(self._trunk, samples, self._recipe.shared_stages)
        return self._views[name]

    @cached_property
    def _trunk(self) -> nn.Module:
        """A model that holds the shared frozen stages."""
        return self._starts.source.model(self._recipe, "victim", 0)


def _stored(path: Path, samples: Samples) -> TensorSamples:
    try:
        return TensorSamples(read_weights(path)["hidden"], samples.labels)
    except KeyError:
        raise InputError(f"{path} holds no frozen features; delete it and run again.") from None
