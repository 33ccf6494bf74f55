"""The trained models of an audit, each trained once: checkpoint, clean victims, the attacker's own models, victims."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from ..core import RESULTS_VERSION, digest
from ..data import Samples
from ..seeds import derive_seed
from ..training import Ensemble, Source, fit
from .audit import Audit
from .cache import ModelCache
from .progress import Reporter

MODEL_DIGESTS = ("checkpoint", "network", "data")
"""Those of `Audit.digests` that a model's weights depend on."""


@final
class Workshop:
    """Trains what an audit needs, when it is first needed.

    Args:
        audit: its settings.
        fingerprint: of the data.
        reporter: told about each model.
        cache: folder of models that several audits share; None keeps none.
        found: folders of finished models and ensembles, which are only read.

    Attributes:
        seconds: time spent so far, by kind of work.
    """

    def __init__(
        self,
        audit: Audit,
        fingerprint: str,
        reporter: Reporter,
        *,
        cache: Path | None = None,
        found: Sequence[Path] = (),
    ) -> None:
        self.audit = audit
        self.reporter = reporter
        self.seconds: dict[str, float] = {}
        self._found = found
        self._models: dict[tuple[str, int], nn.Module] = {}
        self._ensembles: dict[tuple[int, bool], Ensemble] = {}
        identity = digest([*model_identity(audit), fingerprint])
        self._identity = identity
        self.cache = ModelCache(cache, identity, found=found)

    @contextmanager
    def work(self, kind: str, label: str) -> Iterator[None]:
        """Time a piece of work and report its beginning and end."""
        self.reporter.begin(kind, label)
        started = time.monotonic()
        yield
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - started
        self.reporter.finish(kind)

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
        models: list[nn.Module] = []
        _ = self.source  # the starting weights are work of their own, done before
        for seed in range(count):
            with self.work("model", f"{label} {seed + 1}"):
                models.append(self.clean_model(role, seed))
        return models

    def clean_model(self, role: str, seed: int) -> nn.Module:
        """One clean model: a `"victim"` or an attacker's `"reference"`, by number."""
        if (role, seed) not in self._models:
            recipe, train = self.audit.recipe, self.audit.data.train
            number = self._victim_seed(seed)
            self._models[role, seed] = self.cache.fit(self.source, recipe, train, role, number, "clean")
        return self._models[role, seed]

    @property
    def start_key(self) -> str | None:
        """What the starting weights that must be learnt first are known by; None where there are none."""
        recipe = self.audit.pretraining
        return None if recipe is None else self.cache.key(recipe, "pretraining", self.audit.seed, "")

    def model_key(self, role: str, seed: int) -> str:
        """What `clean_model` is known by."""
        return self.cache.key(self.audit.recipe, role, self._victim_seed(seed), "clean")

    def ensemble_key(self, members: int, staggered: bool) -> str:
        """What `ensemble` is known by."""
        return digest([self._identity, repr(self.audit.recipe), "ensemble", members, staggered, self.audit.seed])

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
        wanted = (members, staggered)
        if wanted not in self._ensembles:
            self._ensembles[wanted] = self._find_ensemble(members, staggered) or Ensemble.pretrained(
                self.source,
                self.audit.recipe,
                self.audit.data.train,
                members=members,
                staggered=staggered,
                seed=self.audit.seed,
            )
        return self._ensembles[wanted].copy()

    def _find_ensemble(self, members: int, staggered: bool) -> Ensemble | None:
        name = f"{self.ensemble_key(members, staggered)}.safetensors"
        path = next((folder / name for folder in self._found if (folder / name).is_file()), None)
        return None if path is None else Ensemble.load(path, self.source, self.audit.recipe)

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


def model_identity(audit: Audit) -> list[Any]:
    """What the weights of an audit's models depend on besides recipe and seed; no explainer, goal or attack."""
    return [
        RESULTS_VERSION,
        audit.describe()["model"],
        {name: audit.digests[name] for name in MODEL_DIGESTS if name in audit.digests},
        repr(audit.pretraining),
        audit.threads,
        torch.__version__,
        str(audit.device),
    ]
