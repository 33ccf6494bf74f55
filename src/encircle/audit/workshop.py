"""The trained models of an audit, each trained once: checkpoint, clean victims, the attacker's own models, victims."""

from __future__ import annotations

import hashlib
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
from ..training import Ensemble, Source, fit, read_weights
from .audit import Audit
from .progress import Reporter
from .victims import ModelCache


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
        start = self.audit.describe()["model"]
        given = self.audit.checkpoint
        weights = (
            hashlib.sha256(given.read_bytes()).hexdigest() if isinstance(given, Path) and given.is_file() else None
        )
        identity = digest(
            [
                *(RESULTS_VERSION, self._fingerprint, start, weights, repr(self.audit.pretraining)),
                *(self.audit.threads, torch.__version__, str(self.audit.device)),
            ]
        )
        return ModelCache(self._folder, identity)

    @cached_property
    def source(self) -> Source:
        """Where models start; learns the checkpoint first where the case says so."""
        audit = self.audit
        if isinstance(audit.checkpoint, Path):
            return Source(audit.build, read_weights(audit.checkpoint), audit.device)
        if audit.pretraining is None:
            return Source(audit.build, audit.checkpoint, audit.device)
        assert self.audit.data.pretrain is not None  # noqa: S101 - for the type checker; the audit has refused it
        with self.work("model", "learning the starting weights"):
            fresh = Source(audit.build, device=audit.device)
            model = self.cache.fit(fresh, audit.pretraining, self.audit.data.pretrain, "pretraining", audit.seed, "")
        return Source(audit.build, {name: value.cpu() for name, value in model.state_dict().items()}, audit.device)

    def _clean_model(self, role: str, seed: int) -> nn.Module:
        return self.cache.fit(
            self.source, self.audit.recipe, self.audit.data.train, role, self._victim_seed(seed), "clean"
        )

    def _victim_seed(self, seed: int) -> int:
        return derive_seed(self.audit.seed, seed)

    @cached_property
    def clean_victims(self) -> list[nn.Module]:
        """Clean victims: of the seeds of the arms, and as many again for the seed drift."""
        models = []
        for seed in range(2 * self.audit.victims):
            with self.work("model", f"clean victim {seed + 1}"):
                models.append(self._clean_model("victim", seed))
        return models

    @cached_property
    def references(self) -> list[nn.Module]:
        """The attacker's own clean models; their seeds are of another role than any victim's."""
        models = []
        for seed in range(self.audit.references):
            with self.work("model", f"attacker's model {seed + 1}"):
                models.append(self._clean_model("reference", seed))
        return models

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
        """A victim, trained on a set with poison in it; those of arms that do not depend on the explainer are kept for other audits of the same data."""
        audit = self.audit
        if len(samples) == len(self.audit.data.train) and content == digest([]):
            content, keep = "clean", True  # a budget of nothing is the clean run, bit for bit
        if keep:
            return self.cache.fit(self.source, audit.recipe, samples, "victim", self._victim_seed(seed), content)
        return fit(self.source, audit.recipe, samples, "victim", self._victim_seed(seed))
