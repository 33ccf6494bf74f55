"""The models of an audit, trained once: clean victims, the attacker's own, ensembles, victims of poison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import final

from torch import nn

from ..core import digest
from ..data.poison import Poison
from ..defences import Defence
from ..seeds import derive_seed
from ..storage import write_json
from ..training import CodePath, Ensemble, Recipe, Source
from ..training.fit import fit_on_features
from .audit import Audit
from .cache import Cache
from .code_paths import CODE_PATH, code_path_key, measured_path, possible_path, read_path
from .frozen_views import FrozenViews
from .identity import model_identity, settings_of
from .progress import WorkLog
from .starting_weights import StartingWeights


@final
class ModelStore:
    """Trains a model of an audit when it is first needed.

    Args:
        audit: its settings.
        fingerprint: of the data.
        log: receives the progress of each model.
        cache: folder shared by several audits; None: no cache.
        products: folders of finished models and ensembles; only read.
        home: folder in which the code path is saved; None: not saved.
        path: the code path, unless it is chosen here.
        recipe: how victims learn, if a defence changes it.
        starts: the starting weights, if shared with another store.

    Attributes:
        views: the frozen features of the data.
    """

    def __init__(
        self,
        audit: Audit,
        fingerprint: str,
        log: WorkLog,
        *,
        cache: Path | None = None,
        products: Sequence[Path] = (),
        home: Path | None = None,
        path: CodePath | None = None,
        recipe: Recipe | None = None,
        starts: StartingWeights | None = None,
    ) -> None:
        self.audit = audit
        self.recipe = recipe or audit.settings.recipe
        self.log = log
        self._fingerprint = fingerprint
        self._cache_folder, self._products, self._home = cache, products, home
        self._fixed_path = path or audit.settings.code_path
        self._identity = digest([*model_identity(audit), fingerprint])
        self.cache = Cache(cache, self._identity, products=products)
        self.starts = starts or StartingWeights(audit, self.cache, log)
        self.views = FrozenViews(audit, self.recipe, self.starts, self.cache, self._identity)
        self._defended: dict[str, ModelStore] = {}
        self._models: dict[tuple[str, int], nn.Module] = {}
        self._ensembles: dict[tuple[int, bool], Ensemble] = {}

    # -- stores beside this one ------------------------------------------------------------------------------------------

    @cached_property
    def attackers(self) -> ModelStore:
        """The store of the attacker's own models: this one, or one for the audit that the attacker supposes.

        A store for the supposed audit uses the obvious code path unless that audit names one: nothing is measured for it.
        """
        supposed = self.audit.attacker
        if supposed is None:
            return self
        path = supposed.settings.code_path or CodePath()
        cache, products = self._cache_folder, self._products
        return ModelStore(supposed, self._fingerprint, self.log, cache=cache, products=products, path=path)

    def under(self, defence: Defence) -> ModelStore:
        """The store of victims under a defence: this one, unless the defence changes how they learn.

        No code path is measured for another store.
        """
        recipe = defence.recipe(self.audit.settings.recipe)
        if recipe == self.recipe:
            return self
        if repr(recipe) not in self._defended:
            self._defended[repr(recipe)] = ModelStore(
                self.audit,
                self._fingerprint,
                self.log,
                cache=self._cache_folder,
                products=self._products,
                path=possible_path(self.audit.settings.code_path or CodePath(), recipe),
                recipe=recipe,
                starts=self.starts,
            )
        return self._defended[repr(recipe)]

    # -- clean models ----------------------------------------------------------------------------------------------------

    @property
    def source(self) -> Source:
        """The starting weights; learns the checkpoint first if the case says so."""
        return self.starts.source

    def clean_model(self, role: str, number: int) -> nn.Module:
        """One clean model: a `"victim"` or an attacker's `"reference"`, by number."""
        if (role, number) not in self._models:
            seeds = [self._seed(number)]
            (model,) = self.cache.fit(self.source, self.recipe, self.views.train, role, seeds, "clean")
            self._models[role, number] = model
        return self._models[role, number]

    def model_key(self, role: str, number: int) -> str:
        """The key of `clean_model`."""
        return self.cache.key(self.recipe, role, self._seed(number), "clean")

    @cached_property
    def clean_victims(self) -> list[nn.Module]:
        """Clean victims: those with the seeds of the arms, and as many again for the seed null."""
        return self._clean_models("victim", "clean victim", 2 * self.audit.settings.victims)

    @cached_property
    def references(self) -> list[nn.Module]:
        """The attacker's own clean models; their seeds are of another role than any victim's."""
        return self._clean_models("reference", "attacker's model", self.audit.settings.references)

    def _clean_models(self, role: str, label: str, count: int) -> list[nn.Module]:
        models: list[nn.Module] = []
        _ = self.source  # the starting weights are a separate step, done before
        for number in range(count):
            with self.log.work("model", f"{label} {number + 1}"):
                models.append(self.clean_model(role, number))
        return models

    def _seed(self, number: int) -> int:
        return derive_seed(self.audit.settings.seed, number)

    # -- ensembles -------------------------------------------------------------------------------------------------------

    def ensemble(self, members: int, staggered: bool) -> Ensemble:
        """A fresh copy of the attacker's K models, on the run's code path."""
        ensemble = self.pretrained(members, staggered).copy()
        ensemble.path = self.path
        return ensemble

    def pretrained(self, members: int, staggered: bool) -> Ensemble:
        """The attacker's K models, pre-trained on the clean set. Crafting needs copies."""
        if (members, staggered) not in self._ensembles:
            key = self.ensemble_key(members, staggered)
            ensemble = self.cache.read(key, lambda path: Ensemble.load(path, self.source, self.recipe))
            if ensemble is None:
                ensemble = Ensemble.pretrained(
                    self.source,
                    self.recipe,
                    self.audit.data.train,
                    members=members,
                    staggered=staggered,
                    seed=self.audit.settings.seed,
                    frozen_features=self.views.train(),
                )
                self.cache.write(key, ensemble.save)
            self._ensembles[members, staggered] = ensemble
        return self._ensembles[members, staggered]

    def ensemble_key(self, members: int, staggered: bool) -> str:
        """The key of `ensemble`."""
        seed = self.audit.settings.seed
        return digest([self._identity, repr(self.recipe), "ensemble", members, staggered, seed])

    # -- victims ---------------------------------------------------------------------------------------------------------

    def victims(self, poison: Poison, *, shared: bool) -> Callable[[int], nn.Module]:
        """Trains victims, by number, on the poisoned training set.

        If it is faster, all victims are trained when the first is needed.

        Args:
            poison: as read from its files.
            shared: whether other audits may need the same victims, because their poison does not depend on the explainer.
        """
        if not len(poison):  # an empty budget is the clean run, bit for bit
            return lambda number: self.clean_model("victim", number)
        way, trained = self.path.members, dict[int, nn.Module]()

        def train(numbers: Sequence[int]) -> list[nn.Module]:
            seeds = [self._seed(number) for number in numbers]
            if shared:
                content = f"{poison.content} ({way})"
                return self.cache.fit(
                    self.source, self.recipe, lambda: self.views.poisoned(poison), "victim", seeds, content, way
                )
            return fit_on_features(self.source, self.recipe, self.views.poisoned(poison), "victim", seeds, way)

        def victim(number: int) -> nn.Module:
            if way == "loop":
                return train([number])[0]
            if not trained:
                numbers = range(self.audit.settings.victims)
                trained.update(zip(numbers, train(numbers), strict=True))
            return trained.pop(number) if number in trained else train([number])[0]

        return victim

    # -- the code path ---------------------------------------------------------------------------------------------------

    @cached_property
    def path(self) -> CodePath:
        """The case's code path, or the one measured once for this device, network and number of models."""
        folders = [folder for folder in (self._home, *self._products) if folder is not None]
        noted = [folder / CODE_PATH for folder in folders if (folder / CODE_PATH).is_file()]
        path = self._fixed_path or (read_path(noted[0]) if noted else self._shared_path())
        if self._home is not None and not (self._home / CODE_PATH).is_file():
            write_json(self._home / CODE_PATH, settings_of(path))
        return path

    @property
    def path_key(self) -> str:
        """The key of the code path."""
        return code_path_key(self.audit, self._identity)

    def _shared_path(self) -> CodePath:
        """The code path for all audits of the same models."""
        path = self.cache.read(self.path_key, read_path, suffix=".json")
        if path is None:
            path = measured_path(self.audit, self.source)
            self.cache.write(self.path_key, lambda file: write_json(file, settings_of(path)), suffix=".json")
        return path
