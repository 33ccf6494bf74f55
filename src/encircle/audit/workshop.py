"""The trained models of an audit, each trained once: checkpoint, clean victims, the attacker's own models, victims."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import nn

from ..core import RESULTS_VERSION, digest
from ..data import Samples
from ..seeds import derive_seed
from ..training import Ensemble, Source, fit
from .audit import Audit
from .cache import ModelCache
from .progress import Reporter


@final
class Workshop:
    """Trains what an audit needs, when it is first needed.

    Args:
        audit: its settings.
        cache: folder of models that several audits share.
        fingerprint: of the data.
        reporter: told about each model.

    Attributes:
        seconds: time spent so far, by kind of work.
    """

    def __init__(self, audit: Audit, cache: Path, fingerprint: str, reporter: Reporter) -> None:
        self.audit = audit
        self.reporter = reporter
        self.seconds: dict[str, float] = {}
        self._folder = cache
        self._fingerprint = fingerprint
        self._ensembles: dict[tuple[int, bool], Ensemble] = {}

    @contextmanager
    def work(self, kind: str, label: str) -> Iterator[None]:
        """Time a piece of work and report its beginning and end."""
        self.reporter.begin(kind, label)
        started = time.monotonic()
        yield
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - started
        self.reporter.finish(kind)

    @cached_property
    def cache(self) -> ModelCache:
        """Models shared with other audits of the same data, network, starting weights and versions."""
        audit = self.audit
        identity = [
            RESULTS_VERSION,
            self._fingerprint,
            audit.describe()["model"],
            audit.digests,
            repr(audit.pretraining),
        ]
        return ModelCache(self._folder, digest([*identity, audit.threads, torch.__version__, str(audit.device)]))

    @cached_property
    def source(self) -> Source:
        """Where models start; learns the checkpoint first where the case says so."""
        audit, apart = self.audit, self.audit.data.pretrain
        if audit.pretraining is None or apart is None:
            return Source(audit.build, audit.checkpoint, audit.device)
        with self.work("model", "learning the starting weights"):
            fresh = Source(audit.build, device=audit.device)
            model = self.cache.fit(fresh, audit.pretraining, apart, "pretraining", audit.seed, "")
        return Source(audit.build, {name: value.cpu() for name, value in model.state_dict().items()}, audit.device)

    def _clean_models(self, role: str, label: str, count: int) -> list[nn.Module]:
        source, models = self.source, []  # the starting weights are work of their own, done before
        for seed in range(count):
            with self.work("model", f"{label} {seed + 1}"):
                train = self.audit.data.train
                models.append(self.cache.fit(source, self.audit.recipe, train, role, self._victim_seed(seed), "clean"))
        return models

    def _victim_seed(self, seed: int) -> int:
        return derive_seed(self.audit.seed, seed)

    @cached_property
    def clean_victims(self) -> list[nn.Module]:
        """Clean victims: of the seeds of the arms, and as many again for the seed drift."""
        return self._clean_models("victim", "clean victim", 2 * self.audit.victims)

    @cached_property
    def references(self) -> list[nn.Module]:
        """The attacker's own clean models; their seeds are of another role than any victim's."""
        return self._clean_models("reference", "attacker's model", self.audit.references)

    def ensemble(self, members: int, staggered: bool) -> Ensemble:
        """A fresh copy of the attacker's K models, pre-trained on the clean set."""
        key = (members, staggered)
        if key not in self._ensembles:
            self._ensembles[key] = Ensemble.pretrained(
                self.source,
                self.audit.recipe,
                self.audit.data.train,
                members=members,
                staggered=staggered,
                seed=self.audit.seed,
            )
        return self._ensembles[key].copy()

    def victim(self, samples: Samples, seed: int, content: str, *, keep: bool) -> nn.Module:
        """A victim, trained on a set with poison in it.

        Args:
            samples: the poisoned set.
            seed: which victim.
            content: identifies the poison; `"clean"` for none.
            keep: whether other audits may need the same victim, because its poison does not depend on the explainer.
        """
        recipe, number = self.audit.recipe, self._victim_seed(seed)
        if keep:
            return self.cache.fit(self.source, recipe, samples, "victim", number, content)
        return fit(self.source, recipe, samples, "victim", number)
