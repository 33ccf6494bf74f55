"""What an audit trains, each once: starting weights, clean victims, the attacker's own models, victims; and what their frozen stages see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from ..core import RESULTS_VERSION, InputError, digest
from ..data import Samples, TensorSamples
from ..data.poison import Poison
from ..seeds import derive_seed
from ..storage import read_json, write_json
from ..training import CodePath, Ensemble, Source, read_weights, save_tensors
from ..training.code_path import measured
from ..training.fit import fit_on_features
from ..training.frozen import frozen_features_of, frozen_forward, frozen_samples
from .audit import Audit
from .cache import Cache
from .identity import settings_of
from .progress import Reporter

CODE_PATH = "code_path.json"
"""Where a run keeps the code path that it was begun with: a resumed run must not choose again."""

MEASURED_MODELS = 4
"""How many models a code path is measured with, whatever the attack asks for: arms of several attacks share their victims."""

MODEL_DIGESTS = ("checkpoint", "network", "data")
"""Those of `Audit.digests` that a model's weights depend on."""


@final
class Workshop:
    """Trains what an audit needs, when it is first needed.

    Args:
        audit: its settings.
        fingerprint: of the data.
        reporter: told about each model.
        cache: folder of what several audits share; None keeps none.
        found: folders of finished models, ensembles and the like, which are only read.
        home: folder that remembers the code path; None remembers none.
        path: the code path, where it is not to be chosen here.

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
        home: Path | None = None,
        path: CodePath | None = None,
    ) -> None:
        self.audit = audit
        self.fingerprint = fingerprint
        self.reporter = reporter
        self._kept = cache
        self._found = found
        self._given_path = path or audit.code_path
        self.seconds: dict[str, float] = {}
        self._places = [folder for folder in (home, *found) if folder is not None]
        self._home = home
        self._seen: dict[str, Samples] = {}
        self._models: dict[tuple[str, int], nn.Module] = {}
        self._ensembles: dict[tuple[int, bool], Ensemble] = {}
        identity = digest([*model_identity(audit), fingerprint])
        self._identity = identity
        self.cache = Cache(cache, identity, found=found)

    @cached_property
    def attackers(self) -> Workshop:
        """Where the attacker's own models are trained: here, or in a workshop of the audit as the attacker supposes it to be.

        That one's models are computed in the obvious way unless its audit says otherwise: nothing is measured for them.
        """
        supposed = self.audit.attacker
        if supposed is None:
            return self
        path = supposed.code_path or CodePath()
        other = Workshop(supposed, self.fingerprint, self.reporter, cache=self._kept, found=self._found, path=path)
        other.seconds = self.seconds
        return other

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
        fresh, learnt = Source(audit.build, device=audit.device), list[dict[str, Tensor]]()
        frozen_features = lambda: apart  # noqa: E731 - nothing is frozen yet
        for place, seed in enumerate(self._start_seeds):
            with self.work("model", "learning the starting weights" + f" {place + 1}" * (audit.recipe.starts > 1)):
                (model,) = self.cache.fit(fresh, audit.pretraining, frozen_features, "pretraining", [seed], "")
                learnt.append({name: value.cpu() for name, value in model.state_dict().items()})
        return Source(audit.build, learnt[0], audit.device, others=learnt[1:])

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
            numbers = [self._victim_seed(seed)]
            (model,) = self.cache.fit(self.source, self.audit.recipe, self.frozen_features, role, numbers, "clean")
            self._models[role, seed] = model
        return self._models[role, seed]

    @property
    def start_keys(self) -> list[str]:
        """What the starting weights that must be learnt first are known by; nothing where there are none."""
        recipe = self.audit.pretraining
        return [] if recipe is None else [self.cache.key(recipe, "pretraining", seed, "") for seed in self._start_seeds]

    @property
    def _start_seeds(self) -> list[int]:
        seed, starts = self.audit.seed, self.audit.recipe.starts
        # None of several is the only one of another audit: an attacker with several has not the victims' among them.
        return [seed] if starts == 1 else [derive_seed("pretraining", seed, place) for place in range(starts)]

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
        """Clean victims: of the seeds of the arms, and as many again for the seed null."""
        return self._clean_models("victim", "clean victim", 2 * self.audit.victims)

    @cached_property
    def references(self) -> list[nn.Module]:
        """The attacker's own clean models; their seeds are of another role than any victim's."""
        return self._clean_models("reference", "attacker's model", self.audit.references)

    def ensemble(self, members: int, staggered: bool) -> Ensemble:
        """A fresh copy of the attacker's K models, on the run's code path."""
        found = self.pretrained(members, staggered).copy()
        found.path = self.path
        return found

    def pretrained(self, members: int, staggered: bool) -> Ensemble:
        """The attacker's K models, pre-trained on the clean set; crafting needs copies."""
        wanted = (members, staggered)
        if wanted not in self._ensembles:
            key = self.ensemble_key(*wanted)
            recipe = self.audit.recipe
            found = self.cache.read(key, lambda path: Ensemble.load(path, self.source, recipe))
            if found is None:
                clean = self.audit.data.train
                found = Ensemble.pretrained(
                    self.source,
                    recipe,
                    clean,
                    members=members,
                    staggered=staggered,
                    seed=self.audit.seed,
                    frozen_features=self.frozen_features(),
                )
                self.cache.write(key, found.save)
            self._ensembles[wanted] = found
        return self._ensembles[wanted]

    def victims(self, poison: Poison, content: str, *, keep: bool) -> Callable[[int], nn.Module]:
        """Trains victims, by number, on the training set with poison in it; where that pays, all of them when the first is asked for.

        Args:
            poison: as its files hold it.
            content: identifies the poison; `"clean"` for none.
            keep: whether other audits may need the same victims, because their poison does not depend on the explainer.
        """
        if content == "clean":  # a budget of nothing is the clean run, bit for bit
            return lambda number: self.clean_model("victim", number)
        recipe, way, trained = self.audit.recipe, self.path.members, dict[int, nn.Module]()

        def train(numbers: Sequence[int]) -> list[nn.Module]:
            seeds = [self._victim_seed(number) for number in numbers]
            if keep:
                frozen_features = lambda: self.poisoned(poison)  # noqa: E731
                return self.cache.fit(self.source, recipe, frozen_features, "victim", seeds, f"{content} ({way})", way)
            return fit_on_features(self.source, recipe, self.poisoned(poison), "victim", seeds, way)

        def victim(number: int) -> nn.Module:
            if way == "loop":
                return train([number])[0]
            if not trained:
                everyone = range(self.audit.victims)
                trained.update(zip(everyone, train(everyone), strict=True))
            return trained.pop(number) if number in trained else train([number])[0]

        return victim

    # -- what frozen stages see ----------------------------------------------------------------------------------------

    @property
    def trunk_key(self) -> str:
        """What the training set as the frozen stages see it is known by."""
        frozen = self.audit.recipe.shared_stages
        return digest([self._identity, "frozen stages", frozen, self.audit.seed if self.start_keys else 0])

    def frozen_features(self) -> Samples:
        """The training set as the frozen stages see it: worked out once, and shared between audits where it fits in memory."""
        train = self.audit.data.train
        if self.audit.recipe.shared_stages == 0:
            return train
        if "train" not in self._seen:
            found = self.cache.read(self.trunk_key, lambda path: _frozen_features_in(path, train))
            if found is not None:
                self._seen["train"] = TensorSamples(found.inputs.to(self.audit.device), found.labels)
            elif isinstance(self._through("train", train), TensorSamples):
                self.cache.write(self.trunk_key, self.save_frozen_features)
        return self._seen["train"]

    def save_frozen_features(self, path: Path) -> None:
        """Write the training set as the frozen stages see it, if it fits in memory, and nothing otherwise."""
        frozen_features = self._through("train", self.audit.data.train)
        save_tensors(path, {"hidden": frozen_features.inputs} if isinstance(frozen_features, TensorSamples) else {})

    def held_out(self) -> list[Samples]:
        """The validation and test parts as the frozen stages see them; empty parts left out."""
        parts = {"validation": self.audit.data.validation, "test": self.audit.data.test}
        return [self._through(name, part) for name, part in parts.items() if len(part)]

    def poisoned(self, poison: Poison) -> Samples:
        """The training set with poison in it as the frozen stages see it: only the poison goes through them anew."""
        train, frozen = self.audit.data.train, self.audit.recipe.shared_stages
        frozen_features = self.frozen_features()
        if frozen and not isinstance(frozen_features, TensorSamples):
            whole = train.with_poison(poison.inputs, poison.labels, poison.overwritten)
            return frozen_samples(self._trunk, whole, frozen)
        inputs = poison.inputs
        if frozen and len(poison):
            inputs = frozen_features_of(self._trunk, inputs, frozen)
        return (
            frozen_features.with_poison(inputs, poison.labels, poison.overwritten) if len(poison) else frozen_features
        )

    def _through(self, name: str, samples: Samples) -> Samples:
        if name not in self._seen:
            self._seen[name] = frozen_samples(self._trunk, samples, self.audit.recipe.shared_stages)
        return self._seen[name]

    @cached_property
    def _trunk(self) -> nn.Module:
        """A model whose frozen stages are everybody's."""
        return self.source.model(self.audit.recipe, "victim", 0)

    # -- how it is computed --------------------------------------------------------------------------------------------

    @cached_property
    def path(self) -> CodePath:
        """The case's code path, or the one that was measured once for this device, network and number of models."""
        places = [folder / CODE_PATH for folder in self._places if (folder / CODE_PATH).is_file()]
        path = self._given_path or (_read_path(places[0]) if places else self._shared_path())
        if self._home is not None and not (self._home / CODE_PATH).is_file():
            write_json(self._home / CODE_PATH, settings_of(path))
        return path

    @property
    def path_key(self) -> str:
        """What the code path is known by."""
        recipe = self.audit.recipe
        about = [recipe.start, recipe.frozen_stages, recipe.starts, recipe.batch_size, recipe.augmentation]
        return digest([self._identity, "code path", *about, repr(self.audit.code_path)])

    def _shared_path(self) -> CodePath:
        """What audits of the same models share the choice of, or the choice."""
        path = self.cache.read(self.path_key, _read_path, suffix=".json")
        if path is None:
            path = self._measured()
            self.cache.write(self.path_key, lambda file: write_json(file, settings_of(path)), suffix=".json")
        return path

    def _measured(self) -> CodePath:
        recipe, train = self.audit.recipe, self.audit.data.train
        rows = torch.arange(min(recipe.batch_size, len(train)))
        models = [self.source.model(recipe, "measured", member) for member in range(MEASURED_MODELS)]
        with torch.no_grad():
            frozen_features = frozen_forward(models[0], train.batch(rows).to(self.audit.device), recipe.shared_stages)
        path = measured(models, frozen_features, train.labels[rows].to(self.audit.device), recipe.shared_stages)
        # Augmentation draws for each model by itself, so that a victim's does not depend on which others there are; frozen stages of their own do not stack.
        by_themselves = recipe.augmentation is not None or recipe.starts > 1
        return replace(path, members="loop") if by_themselves else path


def _read_path(file: Path) -> CodePath:
    content = read_json(file)
    try:
        return TypeAdapter(CodePath).validate_python(content)
    except ValueError:
        raise InputError(f"{file} names no code path of this version; delete it and run again.") from None


def _frozen_features_in(path: Path, samples: Samples) -> TensorSamples:
    try:
        return TensorSamples(read_weights(path)["hidden"], samples.labels)
    except KeyError:
        raise InputError(f"{path} holds nothing that frozen stages see.") from None


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
