"""The main job: craft, export, read back, retrain, explain, score, judge. It resumes where it was killed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
import yaml
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..attacks import IMF, Attack, BaseSamples, NoPoison, Problem, ProjectedWatermark, RandomNoise, Watch, Watermark
from ..attacks.base import base_inputs
from ..core import RESULTS_VERSION, InputError, StorageError, derive_seed, digest, generator
from ..data import DataSet, DatasetSamples, Samples
from ..data.poison import Poison
from ..explain import Explainer
from ..goals import DesiredMap, Goal, GoalContext, cells
from ..models import CamClassifier, predict
from ..scoring import cosine, distances, score
from ..storage import only_one, read_json, sweep, write_json, write_text
from ..threat import Budget, Legal
from ..training import Ensemble, Recipe, Source, accuracy, fit, read_weights
from .case import Case, Judging, use_threads
from .environment import provenance
from .parts import Arrays, Parts
from .progress import Reporter, Silent
from .verdicts import judge
from .victims import ModelCache

DRIFT_SAMPLES = 32
"""Other test samples whose explanations are watched for collateral drift."""


@final
@dataclass(frozen=True)
class Judgement:
    """What an audit ends with.

    Attributes:
        folder: the run folder.
        verdict: `"PASS"`, `"WARN"` or `"FAIL"`.
        sentence: the answer for a non-specialist.
        summary: everything in `verdict.json`.
    """

    folder: Path
    verdict: str
    sentence: str
    summary: dict[str, Any]


@final
class Audit:
    """One audit of a model you own or may study.

    Args:
        build: makes your network with fresh weights; it gives logits `(n, classes)` for inputs in [0, 1].
        data: the data set in its parts; or use `Audit.of` with your own `Dataset`s.
        recipe: how victims learn.
        explainer: what explanations come from.
        goal: the attacker's desired map.
        budget: how much poison, how far from its bases.
        attack: what is audited; the controls always run beside it.
        checkpoint: weights every model starts from, for a recipe that says so: a file, or tensors by name.
        pretraining: or how such weights are learnt on `data.pretrain`.
        targets: how many targets are drawn from the test set, or which of its rows.
        victims: victims per target and arm.
        references: the attacker's own clean models.
        seed: of everything.
        threads: CPU threads.
        judging: what a verdict needs.
        title: what it is called in reports.
        device: where models are trained.
        described: how the run's `case.yaml` describes data and model; made from `data` and the network otherwise.

    Raises:
        InputError: settings that do not fit together.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        data: DataSet,
        *,
        recipe: Recipe,
        explainer: Explainer,
        goal: Goal,
        budget: Budget,
        attack: Attack | None = None,
        checkpoint: Path | dict[str, Tensor] | None = None,
        pretraining: Recipe | None = None,
        targets: int | Sequence[int] = 10,
        victims: int = 3,
        references: int = 2,
        seed: int = 0,
        threads: int = 2,
        judging: Judging | None = None,
        title: str = "Audit",
        device: str = "cpu",
        described: dict[str, Any] | None = None,
    ) -> None:
        self.build = build
        self.data = data
        self.recipe = recipe
        self.explainer = explainer
        self.goal = goal
        self.budget = budget
        self.attack = attack if attack is not None else IMF()
        self.checkpoint = checkpoint
        self.pretraining = pretraining
        self.targets = targets
        self.victims = victims
        self.references = references
        self.seed = seed
        self.threads = threads
        self.judging = judging or Judging()
        self.title = title
        self.device = torch.device(device)
        self._described = described
        self._check_settings()

    @classmethod
    def from_case(cls, case: Case, device: str = "cpu") -> Audit:
        """The audit that a case file describes."""
        data = case.data.load(case.seed)
        return cls(
            lambda: case.model.build(data),
            data,
            recipe=case.recipe,
            explainer=case.explainer,
            goal=case.goal,
            budget=case.budget,
            attack=case.attack,
            checkpoint=case.checkpoint,
            pretraining=case.pretraining,
            targets=case.targets,
            victims=case.victims,
            references=case.references,
            seed=case.seed,
            threads=case.threads,
            judging=case.judging,
            title=case.title,
            device=device,
            described=case.model_dump(mode="json"),
        )

    @classmethod
    def of(
        cls,
        build: Callable[[], nn.Module],
        train: Dataset[Any],
        test: Dataset[Any],
        *,
        classes: Sequence[str],
        features: Sequence[str] = (),
        name: str = "my data",
        **settings: Any,
    ) -> Audit:
        """An audit of your own network on your own `Dataset`s of `(input in [0, 1], label)`.

        Images are `(c, h, w)`, rows of a table `(columns,)`. The second half of `test` is only used to read accuracy.

        Args:
            build: makes your network with fresh weights.
            train: what victims learn from.
            test: held-out samples, at least 4.
            classes: class names.
            features: column names of a table.
            name: of the data.
            settings: as for `Audit`.

        Raises:
            InputError: settings that do not fit together.
        """
        held = DatasetSamples(test)
        if len(held) < 4:
            raise InputError(f"{len(held)} test samples are too few to draw targets and read accuracy; give at least 4.")
        half = len(held) // 2
        samples = DatasetSamples(train)
        dims = samples.batch(torch.tensor([0])).dim() - 1
        data = DataSet(
            name=name,
            kind="image" if dims == 3 else "table",
            train=samples,
            validation=held.subset(torch.arange(half, len(held))),
            test=held.subset(torch.arange(half)),
            pretrain=None,
            classes=classes,
            features=list(features) or [f"feature {column}" for column in range(samples.batch(torch.tensor([0])).shape[1])],
        )
        return cls(build, data, **settings)

    def _check_settings(self) -> None:
        if self.data.kind == "image" and self.data.shape[0] not in {1, 3}:
            raise InputError(f"images of {self.data.shape[0]} channels cannot be exported as PNG; use 1 or 3 channels.")
        if self.recipe.start == "scratch" and self.explainer.needs_shared_start(self.data.shape):
            raise InputError(
                "CAM over hidden units compares units between networks, and units of separately initialised networks do not "
                "correspond; use a recipe with start: checkpoint, or the explainer grad."
            )
        if self.pretraining is not None and self.data.pretrain is None:
            raise InputError(f"{self.data.name} has no pre-training part; set its pretrain share above 0, or give a checkpoint.")

    def describe(self) -> dict[str, Any]:
        """Everything that decides the scores, as `case.yaml` holds it and the run's id is made from."""
        if self._described is not None:
            return self._described
        network = hashlib.sha256()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for name, value in self.build().state_dict().items():
                network.update(name.encode() + value.numpy().tobytes())
        pieces = {
            "recipe": self.recipe,
            "explainer": self.explainer,
            "goal": self.goal,
            "attack": self.attack,
            "budget": self.budget,
            "judging": self.judging,
        }
        return {
            "title": self.title,
            "data": {"kind": self.data.name},
            "model": {"kind": type(self.build()).__name__, "sha256": network.hexdigest()},
            **{name: _dumped(piece) for name, piece in pieces.items()},
            "pretraining": None if self.pretraining is None else _dumped(self.pretraining),
            "targets": self.targets if isinstance(self.targets, int) else list(self.targets),
            "victims": self.victims,
            "references": self.references,
            "seed": self.seed,
            "threads": self.threads,
        }

    @property
    def arms(self) -> list[Attack]:
        """What victims are trained with: no poison, the controls, and the audited attack."""
        share = getattr(self.attack, "target_share", 0.1)
        controls: list[Attack] = [NoPoison(), BaseSamples(target_share=share), RandomNoise(target_share=share)]
        controls += [Watermark(), ProjectedWatermark()]
        return [arm for arm in controls if arm.kind != self.attack.kind] + [self.attack]

    def plan(self) -> dict[str, int]:
        """How many pieces of each kind of work there are, for a dry run and for progress."""
        targets = self.targets if isinstance(self.targets, int) else len(self.targets)
        poisons = len(self.arms) - 1
        return {
            "model": 2 * self.victims + self.references + (self.pretraining is not None),
            "craft": targets,
            "control": targets * (poisons - 1),
            "victim": targets * poisons * self.victims,
        }

    def run(self, runs: Path | str = "runs", reporter: Reporter | None = None) -> Judgement:
        """Do the audit, or what is left of it, in `runs/<id>/`.

        Args:
            runs: folder of run folders.
            reporter: told about progress.

        Raises:
            InputError: something about the case cannot be audited.
            StorageError: a file could not be written; what was finished stays.
        """
        use_threads(self.threads)
        fingerprint = self.data.check()
        case = self.describe()
        identity = digest([case, RESULTS_VERSION, fingerprint])
        name = f"{_slug(self.data.name)}-{_slug(_kind(self.explainer))}-{_slug(self.attack.kind)}-{identity[:12]}"
        folder = Path(runs) / name
        with only_one(folder):
            sweep(folder)
            _claim(folder, case, identity)
            work = _Run(self, folder, fingerprint, identity, reporter or Silent())
            return work.finish()


@final
class _Run:
    """One audit at work in its folder; everything slow is done once and kept."""

    def __init__(self, audit: Audit, folder: Path, fingerprint: str, identity: str, reporter: Reporter) -> None:
        self.audit = audit
        self.data = audit.data
        self.folder = folder
        self.fingerprint = fingerprint
        self.identity = identity
        self.reporter = reporter
        self.parts = Parts(folder)
        self.seconds: dict[str, float] = {}
        self.legal = _legal(audit.data)
        self._ensembles: dict[tuple[int, bool], Ensemble] = {}
        self._clean_maps: dict[tuple[int, int], list[np.ndarray[Any, Any]]] = {}

    def finish(self) -> Judgement:
        """Whatever is left to do, and the judgement."""
        done = self.folder / "verdict.json"
        self.reporter.plan(self.audit.title, self.audit.plan())
        if not done.is_file():
            rows = self.rows
            for row in rows:
                self._target(row)
            scores = self.parts.assemble()
            self._write_environment(rows)
            summary = judge(
                scores,
                attack=self.audit.attack.kind,
                titles={arm.kind: arm.title for arm in self.audit.arms},
                victims=self.audit.victims,
                held_out=len(self.data.validation) + len(self.data.test) - 1,
                threshold=self.audit.judging.threshold,
                label_kept=self.audit.judging.label_kept,
                minimum_targets=self.audit.judging.minimum_targets,
            )
            write_json(done, {**summary, "case": self._case_in_words(rows[0])})
        else:
            for kind, count in self.audit.plan().items():
                for _ in range(count):
                    self.reporter.finish(kind, reused=True)
        summary = read_json(done)
        return Judgement(self.folder, summary["verdict"], summary["sentence"], summary)

    # -- models ------------------------------------------------------------------------------------------------------

    @cached_property
    def cache(self) -> ModelCache:
        start = self.audit.describe()["model"]
        given = self.audit.checkpoint
        weights = hashlib.sha256(given.read_bytes()).hexdigest() if isinstance(given, Path) and given.is_file() else None
        identity = digest(
            [RESULTS_VERSION, self.fingerprint, start, weights, repr(self.audit.pretraining), self.audit.threads]
            + [torch.__version__, str(self.audit.device)]
        )
        return ModelCache(self.folder.parent / "cache", identity)

    @cached_property
    def source(self) -> Source:
        """Where models start; learns the checkpoint first where the case says so."""
        audit = self.audit
        if isinstance(audit.checkpoint, Path):
            return Source(audit.build, read_weights(audit.checkpoint), audit.device)
        if audit.pretraining is None:
            return Source(audit.build, audit.checkpoint, audit.device)
        assert self.data.pretrain is not None  # noqa: S101 - for the type checker; the audit has refused it
        with self._work("model", "learning the starting weights"):
            fresh = Source(audit.build, device=audit.device)
            model = self.cache.fit(fresh, audit.pretraining, self.data.pretrain, "pretraining", audit.seed, "")
        return Source(audit.build, {name: value.cpu() for name, value in model.state_dict().items()}, audit.device)

    def _clean_model(self, role: str, seed: int) -> nn.Module:
        return self.cache.fit(self.source, self.audit.recipe, self.data.train, role, self._victim_seed(seed), "clean")

    def _victim_seed(self, seed: int) -> int:
        return derive_seed(self.audit.seed, seed)

    @cached_property
    def clean_victims(self) -> list[nn.Module]:
        """Clean victims: of the seeds of the arms, and as many again for the seed drift."""
        source = self.source
        del source  # learnt before the victims are counted
        models = []
        for seed in range(2 * self.audit.victims):
            with self._work("model", f"clean victim {seed + 1}"):
                models.append(self._clean_model("victim", seed))
        return models

    @cached_property
    def references(self) -> list[nn.Module]:
        """The attacker's own clean models; their seeds are of another role than any victim's."""
        models = []
        for seed in range(self.audit.references):
            with self._work("model", f"attacker's model {seed + 1}"):
                models.append(self._clean_model("reference", seed))
        return models

    def _ensemble(self, members: int, staggered: bool) -> Ensemble:
        key = (members, staggered)
        if key not in self._ensembles:
            self._ensembles[key] = Ensemble.pretrained(
                self.source, self.audit.recipe, self.data.train, members=members, staggered=staggered, seed=self.audit.seed
            )
        return self._ensembles[key].copy()

    # -- targets and goals -------------------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> list[int]:
        """The targets: rows of the test set, drawn among those that every clean victim of the arms gets right."""
        test, wanted = self.data.test, self.audit.targets
        right = torch.ones(len(test), dtype=torch.bool)
        for model in self.clean_victims[: self.audit.victims]:
            predicted = torch.cat([predict(model, chunk.to(self.audit.device)).cpu() for chunk in test.chunks()])
            right &= predicted == test.labels
        if not isinstance(wanted, int):
            for row in wanted:
                if not 0 <= row < len(test):
                    raise InputError(f"target {row} is not a row of the test set (0..{len(test) - 1}); choose another.")
                if not right[row]:
                    raise InputError(f"a clean model gets the class of target {row} wrong, so there is no right explanation to bend; choose another.")
            return sorted(set(wanted))
        pool = right.nonzero()[:, 0]
        if len(pool) < wanted:
            raise InputError(f"the clean models get only {len(pool)} test samples right, fewer than {wanted} targets; train longer or ask for fewer.")
        order = torch.randperm(len(pool), generator=generator("targets", self.audit.seed))
        return sorted(int(pool[place]) for place in order[:wanted])

    def _input(self, row: int) -> Tensor:
        return self.data.test.batch(torch.tensor([row])).to(self.audit.device)

    def _explain_by_references(self, sample: Tensor, label: int) -> Tensor:
        chosen = torch.tensor([label], device=self.audit.device)
        maps = [self.audit.explainer.attribute(model, sample.to(self.audit.device), chosen)[0] for model in self.references]
        return torch.stack([one.detach().cpu() for one in maps]).mean(dim=0)

    def _desired(self, row: int) -> DesiredMap:
        """The desired map of a target: resolved once, on the attacker's own models, and the same for every arm and victim."""
        target, label = self._input(row), int(self.data.test.labels[row])
        shape = tuple(self._explain_by_references(target, label).shape)
        return self.audit.goal.resolve(
            GoalContext(
                shape=shape,
                explain=self._explain_by_references,
                target=target,
                label=label,
                activity=self._activity(target, shape),
                features=self.data.features if shape == (len(self.data.features),) else (),
                box=self.data.boxes.get(row),
                of_class=lambda wanted: self._of_class(wanted, row),
                draw=derive_seed("goal", self.audit.seed, row),
            )
        )

    @torch.no_grad()
    def _activity(self, target: Tensor, shape: tuple[int, ...]) -> Tensor | None:
        """Entries of a map over hidden units that are active at the target on every one of the attacker's models."""
        features = [model.features(target)[0] for model in self.references if isinstance(model, CamClassifier)]
        if len(shape) != 1 or not features or features[0].shape != shape or shape == self.data.shape:
            return None
        return torch.stack([one.cpu() != 0 for one in features]).all(dim=0)

    def _of_class(self, label: int, row: int) -> Tensor:
        pool = (self.data.train.labels == label).nonzero()[:, 0]
        if not len(pool):
            raise InputError(f"the goal names class {label}, of which there is no training sample; choose from 0..{len(self.data.classes) - 1}.")
        place = torch.randint(len(pool), (1,), generator=generator("goal-sample", self.audit.seed, row))
        return self.data.train.batch(pool[place])

    # -- one target --------------------------------------------------------------------------------------------------

    def _target(self, row: int) -> None:
        desired = self._desired(row)
        if not self.parts.has(f"{row}"):
            mask = np.ones(desired.values.shape, bool) if desired.mask is None else desired.mask.numpy()
            maps = {f"{row}/goal": desired.values.numpy(), f"{row}/mask": mask, f"{row}/input": _float(self._input(row)[0])}
            self.parts.write(f"{row}", maps, [], "none")
        for seed, model in enumerate(self.clean_victims):
            self._score(row, desired, "clean", seed, lambda model=model: model)
        for arm in self.audit.arms[1:]:
            self._arm(row, desired, arm)

    def _arm(self, row: int, desired: DesiredMap, arm: Attack) -> None:
        kind = "craft" if arm is self.audit.attack else "control"
        folder = self.folder / "poison" / str(row) / arm.kind
        if folder.is_dir():
            self.reporter.finish(kind, reused=True)
        else:
            with self._work(kind, f"target {row}: {arm.title}"):
                self._craft(row, desired, arm, folder)
        names = [f"{row}-{arm.kind}-{seed}" for seed in range(self.audit.victims)]
        if all(self.parts.has(name) for name in [*names, f"{row}-{arm.kind}"]):
            for _ in names:
                self.reporter.finish("victim", reused=True)
            return
        poison = self._read_back(row, arm, folder)
        samples = self.data.train.with_poison(poison.inputs, poison.labels, poison.overwritten)
        shared = not arm.needs_gradient and not isinstance(arm, Watermark | ProjectedWatermark)
        content = digest(read_json(folder / "manifest.json")["sha256"] if len(poison) else [])
        for seed, name in enumerate(names):
            if self.parts.has(name):
                self.reporter.finish("victim", reused=True)
                continue
            with self._work("victim", f"target {row}: {arm.title}, victim {seed + 1}"):
                self._score(row, desired, arm.kind, seed, lambda seed=seed: self._victim(samples, seed, content, keep=shared))

    def _victim(self, samples: Samples, seed: int, content: str, *, keep: bool) -> nn.Module:
        """A victim; those of arms that do not depend on the explainer are kept for other audits of the same data."""
        audit = self.audit
        if len(samples) == len(self.data.train) and content == digest([]):
            content, keep = "clean", True  # a budget of nothing is the clean run, bit for bit
        if keep:
            return self.cache.fit(self.source, audit.recipe, samples, "victim", self._victim_seed(seed), content)
        return fit(self.source, audit.recipe, samples, "victim", self._victim_seed(seed))

    def _craft(self, row: int, desired: DesiredMap, arm: Attack, folder: Path) -> None:
        watch = Watch(progress=self.reporter.advance)
        label = int(self.data.test.labels[row])
        problem = Problem(
            clean=self.data.train,
            target=self._input(row),
            label=label,
            desired=desired,
            explainer=self.audit.explainer,
            ensemble=self._ensemble,
            references=self.references,
            legal=self.legal,
        )
        poison = arm(problem, self.audit.budget, generator("attack", self.audit.seed, row, arm.kind), watch)
        if watch.history:
            self.parts.write(f"{row}-history", {}, [{"target": row, **note} for note in watch.history], "history")
        about = {"arm": arm.kind, "target": row, "budget": _dumped(self.audit.budget), "bounded": arm.bounded}
        poison.save(folder, features=self.data.features, about=about)

    def _read_back(self, row: int, arm: Attack, folder: Path) -> Poison:
        """The poison as its files hold it, checked against the budget once more: this is what victims learn from."""
        target = self._input(row)
        poison = Poison.load(folder, lambda rows: base_inputs(self.data.train, target, self.legal, rows))
        if arm.bounded and (excess := self.audit.budget.excess(poison.inputs, poison.base_inputs)) > 0:
            raise StorageError(f"the poison in {folder} leaves its budget by {excess:.3g}; delete the folder and run again.")
        name = f"{row}-{arm.kind}"
        if not self.parts.has(name):
            count, label = len(poison), int(self.data.test.labels[row])
            in_class = int((self.data.train.labels == label).sum())
            facts = {
                "target": row,
                "arm": arm.kind,
                "count": count,
                "share_of_set": count / len(self.data.train),
                "share_of_class": count / max(in_class, 1),
                **(distances(poison.inputs.numpy(), poison.base_inputs.numpy()) if count else {}),
                "bounded": arm.bounded,
            }
            maps: Arrays = {}
            if count:
                shown = int((poison.bases >= 0).nonzero()[0]) if bool((poison.bases >= 0).any()) else 0
                maps = {
                    f"{row}/{arm.kind}/poison": _float(poison.inputs[shown]),
                    f"{row}/{arm.kind}/base": _float(poison.base_inputs[shown]),
                }
            self.parts.write(name, maps, [facts], "poisons")
        return poison

    # -- scores ------------------------------------------------------------------------------------------------------

    def _score(self, row: int, desired: DesiredMap, arm: str, seed: int, make: Callable[[], nn.Module]) -> None:
        name = f"{row}-{arm}-{seed}"
        if self.parts.has(name):
            return
        model, target, label = make(), self._input(row), int(self.data.test.labels[row])
        chosen = torch.tensor([label], device=self.audit.device)
        found = _float(self.audit.explainer.attribute(model, target, chosen)[0])
        full = _float(self.audit.explainer.picture(model, target, chosen)[0])
        with torch.no_grad():
            probabilities = cast(Tensor, model(target)).softmax(dim=1)[0]
        held_out = [(self.data.validation, torch.arange(len(self.data.validation)))]
        held_out += [(self.data.test, torch.tensor([other for other in range(len(self.data.test)) if other != row]))]
        rows = sum(len(chosen_rows) for _, chosen_rows in held_out)
        facts = {
            "target": row,
            "arm": arm,
            "seed": seed,
            "victim_class": int(probabilities.argmax()),
            **score(
                found,
                desired.values.numpy(),
                None if desired.mask is None else desired.mask.numpy(),
                self._box(row, found.shape),
            ),
            "label_kept": bool(probabilities.argmax() == label),
            "probability": float(probabilities[label]),
            "accuracy": sum(accuracy(model, part.subset(some)) * len(some) for part, some in held_out) / rows,
            "drift": 0.0 if arm == "clean" else self._drift(row, model, seed),
        }
        maps: Arrays = {f"{row}/{arm}/{seed}": found}
        if full.shape != found.shape and seed == 0:
            maps[f"{row}/{arm}/{seed}/full"] = full
        self.parts.write(name, maps, [facts], "scores")

    def _box(self, row: int, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        box = self.data.boxes.get(row)
        return None if box is None or len(shape) != 2 else cells(box, (shape[0], shape[1])).numpy() > 0

    def _drift(self, row: int, model: nn.Module, seed: int) -> float:
        """Mean over other test samples of one minus the cosine to the clean victim's map of the same seed."""
        others = [other for other in self._watched if other != row]
        clean = self._maps_of(self.clean_victims[seed], seed)
        changed = self._maps_of(model, None)
        far = [1 - cosine(changed[place], clean[place]) for place, other in enumerate(self._watched) if other in others]
        known = [value for value in far if np.isfinite(value)]
        return float(np.mean(known)) if known else float("nan")

    @cached_property
    def _watched(self) -> list[int]:
        order = torch.randperm(len(self.data.test), generator=generator("watched", self.audit.seed))
        return sorted(int(other) for other in order[:DRIFT_SAMPLES])

    def _maps_of(self, model: nn.Module, seed: int | None) -> list[np.ndarray[Any, Any]]:
        key = (0, -1 if seed is None else seed)
        if seed is not None and key in self._clean_maps:
            return self._clean_maps[key]
        rows = torch.tensor(self._watched)
        inputs = self.data.test.batch(rows).to(self.audit.device)
        maps = self.audit.explainer.attribute(model, inputs, self.data.test.labels[rows].to(self.audit.device))
        found = [_float(one) for one in maps]
        if seed is not None:
            self._clean_maps[key] = found
        return found

    # -- the rest ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _work(self, kind: str, label: str) -> Any:
        self.reporter.begin(kind, label)
        started = time.monotonic()
        yield
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - started
        self.reporter.finish(kind)

    def _write_environment(self, rows: Sequence[int]) -> None:
        data = self.data
        labels = [int(data.test.labels[row]) for row in rows]
        write_json(
            self.folder / "environment.json",
            {
                **provenance(self.audit.device),
                "run_id": self.identity,
                "title": self.audit.title,
                "seconds": self.seconds,
                "data": {
                    "name": data.name,
                    "kind": data.kind,
                    "fingerprint": self.fingerprint,
                    "train": len(data.train),
                    "validation": len(data.validation),
                    "test": len(data.test),
                    "pretrain": 0 if data.pretrain is None else len(data.pretrain),
                    "classes": list(data.classes),
                    "features": list(data.features),
                    "shape": list(data.shape),
                },
                "targets": [
                    {"row": row, "label": label, "class_name": data.classes[label]} for row, label in zip(rows, labels, strict=True)
                ],
            },
        )

    def _case_in_words(self, row: int) -> dict[str, str]:
        audit, budget = self.audit, self.audit.budget
        size = budget.size(len(self.data.train))
        frozen = f", {audit.recipe.frozen_stages} stages frozen" if audit.recipe.frozen_stages else ""
        return {
            "data": self.data.name,
            "model": type(audit.build()).__name__,
            "explainer": getattr(audit.explainer, "title", type(audit.explainer).__name__),
            "goal": self._desired(row).label if isinstance(audit.targets, int) and audit.targets == 1 else _goal_in_words(audit.goal),
            "budget": f"{size} samples ({size / len(self.data.train):.1%} of the training set), epsilon {budget.epsilon} ({budget.norm}), {budget.mode}",
            "start": f"from {'a checkpoint' if audit.recipe.start == 'checkpoint' else 'scratch'}{frozen}",
        }


def _goal_in_words(goal: Goal) -> str:
    settings = {name: value for name, value in _dumped(goal).items() if name != "kind" and value}
    return _kind(goal) + "".join(f", {name} {value}" for name, value in settings.items())


def _legal(data: DataSet) -> Legal:
    if data.kind == "image":
        return Legal(levels=255)
    return Legal(columns={data.features.index(name): column for name, column in data.columns.items()})


def _dumped(piece: Any) -> Any:
    """The settings of a configured object; a class of the user's own is described by its `repr`."""
    if hasattr(type(piece), "__pydantic_fields__"):
        return TypeAdapter(type(piece)).dump_python(piece, mode="json")
    return {"kind": _kind(piece), "repr": repr(piece)}


def _kind(piece: Any) -> str:
    return str(getattr(piece, "kind", type(piece).__name__))


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split()) or "unnamed"


def _float(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy().astype(np.float32)


def _claim(folder: Path, case: dict[str, Any], identity: str) -> None:
    """Make the run folder ours, or refuse one that another case made."""
    path = folder / "case.yaml"
    content = yaml.safe_dump({"encircle_run": identity, **case}, sort_keys=False, allow_unicode=True)
    if not path.exists():
        write_text(path, content)
        return
    try:
        known = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        known = None
    if not isinstance(known, dict) or known.get("encircle_run") != identity:
        raise InputError(f"{folder} was made by another case; choose another folder with --runs, or delete it.")
