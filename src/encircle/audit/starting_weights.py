"""Where an audit's models start: a checkpoint that is given, one or several that are learnt first, or nowhere."""

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
    """The start of all models of an audit; what must be learnt is learnt when it is first needed.

    Args:
        audit: its settings.
        cache: keeps what was learnt.
        log: told about the work.
    """

    def __init__(self, audit: Audit, cache: Cache, log: WorkLog) -> None:
        self._audit, self._cache, self._log = audit, cache, log

    @cached_property
    def source(self) -> Source:
        """Where models start."""
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
        """What the weights that must be learnt first are known by; nothing where there are none."""
        recipe = self._audit.settings.pretraining
        return [] if recipe is None else [self._cache.key(recipe, "pretraining", seed, "") for seed in self._seeds]

    @property
    def _seeds(self) -> list[int]:
        seed, starts = self._audit.settings.seed, self._audit.settings.recipe.starts
        # None of several is the only one of another audit: an attacker with several has not the victims' among them.
        return [seed] if starts == 1 else [derive_seed("pretraining", seed, index) for index in range(starts)]
