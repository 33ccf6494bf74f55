"""The starting weights of an audit's models: a given checkpoint, learnt ones, or none."""

from __future__ import annotations

from functools import cached_property
from typing import final

from ..seeds import derive_seed
from ..training import Source
from .audit import Audit
from .cache import Cache
from .progress import WorkLog


@final
class StartingWeights:
    """The start of all models of an audit. Weights that must be learnt are learnt when first needed.

    Args:
        audit: its settings.
        cache: stores learnt weights.
        log: receives progress.
    """

    def __init__(self, audit: Audit, cache: Cache, log: WorkLog) -> None:
        self._audit, self._cache, self._log = audit, cache, log

    @cached_property
    def source(self) -> Source:
        """The starting weights."""
        audit, settings, samples = self._audit, self._audit.settings, self._audit.data.pretrain
        if settings.pretraining is None or samples is None:
            return Source(audit.build, audit.checkpoint, audit.device)
        fresh, checkpoints = Source(audit.build, device=audit.device), []
        for index, seed in enumerate(self._seeds):
            with self._log.work(
                "model", "learning the starting weights" + f" {index + 1}" * (settings.recipe.starts > 1)
            ):
                (model,) = self._cache.fit(fresh, settings.pretraining, lambda: samples, "pretraining", [seed], "")
                checkpoints.append({name: value.cpu() for name, value in model.state_dict().items()})
        return Source(audit.build, checkpoints[0], audit.device, others=checkpoints[1:])

    @property
    def keys(self) -> list[str]:
        """The keys of weights that must be learnt first; empty if there are none."""
        recipe = self._audit.settings.pretraining
        return [] if recipe is None else [self._cache.key(recipe, "pretraining", seed, "") for seed in self._seeds]

    @property
    def _seeds(self) -> list[int]:
        seed, starts = self._audit.settings.seed, self._audit.settings.recipe.starts
        # No start of several equals the single start of another audit: an attacker with several does not have the victims'.
        return [seed] if starts == 1 else [derive_seed("pretraining", seed, index) for index in range(starts)]
