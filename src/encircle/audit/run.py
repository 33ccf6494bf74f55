"""The main job: craft, export, read back, retrain, explain, score, judge. It resumes where it was killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from ..attacks import Attack, Problem, Watch
from ..attacks.base import base_inputs
from ..core import RESULTS_VERSION, InputError, StorageError, digest
from ..data.poison import Poison
from ..goals import DesiredMap, Goal, cells
from ..models import predict
from ..scoring import cosine, distances, score
from ..seeds import generator
from ..storage import only_one, read_json, sweep, write_json, write_text
from ..training import accuracy
from .audit import Audit, kind_of, settings_of
from .environment import provenance
from .goal_context import goal_context, rehearse
from .parts import Arrays, Parts
from .progress import Reporter, Silent
from .verdicts import judge
from .workshop import Workshop

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


def run_audit(audit: Audit, runs: Path | str = "runs", reporter: Reporter | None = None) -> Judgement:
    """Do the audit, or what is left of it, in `runs/<id>/`.

    Args:
        audit: what to do.
        runs: folder of run folders.
        reporter: told about progress.

    Raises:
        InputError: something about the case cannot be audited.
        StorageError: a file could not be written; what was finished stays.
    """
    fingerprint = audit.data.check()
    rehearse(audit)
    folder = run_folder(audit, runs, fingerprint)
    case, identity = audit.describe(), _identity(audit, fingerprint)
    with only_one(folder), _threads(audit.threads):
        sweep(folder)
        _claim(folder, case, identity)
        return _Run(audit, folder, fingerprint, identity, reporter or Silent()).finish()


def run_folder(audit: Audit, runs: Path | str, fingerprint: str) -> Path:
    """The folder of an audit's run: named for people, and after everything that decides its scores."""
    name = "-".join([_slug(audit.data.name), _slug(kind_of(audit.explainer)), _slug(audit.attack.kind)])
    return Path(runs) / f"{name}-{_identity(audit, fingerprint)[:12]}"


def _identity(audit: Audit, fingerprint: str) -> str:
    return digest([audit.describe(), audit.digests, RESULTS_VERSION, fingerprint])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use this many CPU threads: sums are split among them, so rounding depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        self.shop = Workshop(audit, folder.parent / "cache", fingerprint, reporter)
        self._clean_maps: dict[int, list[np.ndarray[Any, Any]]] = {}

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
            self.parts.discard()
        else:
            for kind, count in self.audit.plan().items():
                for _ in range(count):
                    self.reporter.finish(kind, reused=True)
        summary = read_json(done)
        return Judgement(self.folder, summary["verdict"], summary["sentence"], summary)

    # -- targets and goals -------------------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> list[int]:
        """The targets: rows of the test set, drawn among those that every clean victim gets right."""
        test, wanted = self.data.test, self.audit.targets
        right = torch.ones(len(test), dtype=torch.bool)
        for model in self.shop.clean_victims:
            predicted = torch.cat([predict(model, chunk.to(self.audit.device)).cpu() for chunk in test.chunks()])
            right &= predicted == test.labels
        if not isinstance(wanted, int):
            for row in wanted:
                if not 0 <= row < len(test):
                    raise InputError(f"target {row} is not a row of the test set (0..{len(test) - 1}); choose another.")
                if not right[row]:
                    raise InputError(
                        f"a clean model gets the class of target {row} wrong, so there is no right explanation to bend; choose another."
                    )
            return sorted(set(wanted))
        pool = right.nonzero()[:, 0]
        if len(pool) < wanted:
            raise InputError(
                f"the clean models get only {len(pool)} test samples right, fewer than {wanted} targets; train longer or ask for fewer."
            )
        order = torch.randperm(len(pool), generator=generator("targets", self.audit.seed))
        return sorted(int(pool[place]) for place in order[:wanted])

    def _input(self, row: int) -> Tensor:
        return self.data.test.batch(torch.tensor([row])).to(self.audit.device)

    def _explain_by_references(self, sample: Tensor, label: int) -> Tensor:
        chosen = torch.tensor([label], device=self.audit.device)
        maps = [
            self.audit.explainer.attribute(model, sample.to(self.audit.device), chosen)[0]
            for model in self.shop.references
        ]
        return torch.stack([one.detach().cpu() for one in maps]).mean(dim=0)

    def _desired(self, row: int) -> DesiredMap:
        """The desired map of a target: resolved once, on the attacker's own models, and the same for every arm and victim."""
        target, label = self._input(row), int(self.data.test.labels[row])
        shape = tuple(self._explain_by_references(target, label).shape)
        context = goal_context(self.audit, row, shape, self._explain_by_references, self._speaking(target, label))
        return self.audit.goal.resolve(context)

    def _speaking(self, target: Tensor, label: int) -> Tensor | None:
        """Hidden units that speak for the class at the target on every one of the attacker's models; None for other maps."""
        chosen = torch.tensor([label], device=self.audit.device)
        maps = [
            self.audit.explainer.attribute(model, target, chosen)[0].detach().cpu() for model in self.shop.references
        ]
        return torch.stack(maps).amin(dim=0) > 0 if self.audit.explainer.needs_shared_start(self.data.shape) else None

    # -- one target --------------------------------------------------------------------------------------------------

    def _target(self, row: int) -> None:
        desired = self._desired(row)
        if not self.parts.has(f"{row}"):
            mask = np.ones(desired.values.shape, bool) if desired.mask is None else desired.mask.numpy()
            maps = {
                f"{row}/goal": desired.values.numpy(),
                f"{row}/mask": mask,
                f"{row}/input": _float(self._input(row)[0]),
            }
            self.parts.write(f"{row}", maps, [], "none")
        for seed, model in enumerate(self.shop.clean_victims):
            if not self.parts.has(f"{row}-clean-{seed}"):
                self._score(row, desired, "clean", seed, model)
        for arm in self.audit.arms[1:]:
            self._arm(row, desired, arm)

    def _arm(self, row: int, desired: DesiredMap, arm: Attack) -> None:
        kind = "craft" if arm is self.audit.attack else "control"
        folder = self.folder / "poison" / str(row) / arm.kind
        if folder.is_dir() and (not arm.needs_gradient or self.parts.has(f"{row}-history")):
            self.reporter.finish(kind, reused=True)
        else:
            with self.shop.work(kind, f"target {row}: {arm.title}"):
                self._craft(row, desired, arm, folder)
        names = [f"{row}-{arm.kind}-{seed}" for seed in range(self.audit.victims)]
        if all(self.parts.has(name) for name in [*names, f"{row}-{arm.kind}"]):
            for _ in names:
                self.reporter.finish("victim", reused=True)
            return
        poison = self._read_back(row, arm, folder)
        samples = self.data.train.with_poison(poison.inputs, poison.labels, poison.overwritten)
        # A budget of nothing is the clean run, bit for bit.
        content = _content(folder) if len(poison) else "clean"
        for seed, name in enumerate(names):
            if self.parts.has(name):
                self.reporter.finish("victim", reused=True)
                continue
            with self.shop.work("victim", f"target {row}: {arm.title}, victim {seed + 1}"):
                self._score(
                    row,
                    desired,
                    arm.kind,
                    seed,
                    self.shop.victim(samples, seed, content, keep=content == "clean" or not arm.uses_explainer),
                )

    def _craft(self, row: int, desired: DesiredMap, arm: Attack, folder: Path) -> None:
        watch = Watch(progress=self.reporter.advance)
        label = int(self.data.test.labels[row])
        problem = Problem(
            clean=self.data.train,
            target=self._input(row),
            label=label,
            desired=desired,
            explainer=self.audit.explainer,
            ensemble=self.shop.ensemble,
            references=self.shop.references,
            legal=self.audit.legal,
        )
        poison = arm(problem, self.audit.budget, generator("attack", self.audit.seed, row, arm.kind), watch)
        if arm.needs_gradient:  # before the poison: poison without its history would be crafted again
            self.parts.write(f"{row}-history", {}, [{"target": row, **note} for note in watch.history], "history")
        about = {"arm": arm.kind, "target": row, "budget": settings_of(self.audit.budget), "bounded": arm.bounded}
        poison.save(folder, features=self.data.features, about=about)

    def _read_back(self, row: int, arm: Attack, folder: Path) -> Poison:
        """The poison as its files hold it, checked against the budget once more: this is what victims learn from."""
        target = self._input(row)
        poison = Poison.load(folder, lambda rows: base_inputs(self.data.train, target, self.audit.legal, rows))
        if arm.bounded and (excess := self.audit.budget.excess(poison.inputs, poison.base_inputs)) > 0:
            raise StorageError(
                f"the poison in {folder} leaves its budget by {excess:.3g}; delete the folder and run again."
            )
        legal = self.audit.legal.towards_base(poison.inputs, poison.base_inputs)
        if not torch.allclose(legal, poison.inputs, rtol=0, atol=1e-6):
            raise StorageError(f"the poison in {folder} holds values that are not legal; delete it and run again.")
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

    def _score(self, row: int, desired: DesiredMap, arm: str, seed: int, model: nn.Module) -> None:
        target, label = self._input(row), int(self.data.test.labels[row])
        chosen = torch.tensor([label], device=self.audit.device)
        found = _float(self.audit.explainer.attribute(model, target, chosen)[0])
        full = _float(self.audit.explainer.picture(model, target, chosen)[0])
        with torch.no_grad():
            probabilities = cast(Tensor, model(target)).softmax(dim=1)[0]
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
            "accuracy": self._accuracy(row, model),
            "drift": self._drift(row, model, seed % self.audit.victims),
        }
        maps: Arrays = {f"{row}/{arm}/{seed}": found}
        if full.shape != found.shape and seed == 0:
            maps[f"{row}/{arm}/{seed}/full"] = full
        self.parts.write(f"{row}-{arm}-{seed}", maps, [facts], "scores")

    def _accuracy(self, row: int, model: nn.Module) -> float:
        """On everything held out but the target."""
        others = torch.tensor([other for other in range(len(self.data.test)) if other != row], dtype=torch.int64)
        parts = [part for part in (self.data.validation, self.data.test.subset(others)) if len(part)]
        return sum(accuracy(model, part) * len(part) for part in parts) / sum(len(part) for part in parts)

    def _box(self, row: int, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        box = self.data.boxes.get(row)
        return None if box is None or len(shape) != 2 else cells(box, (shape[0], shape[1])).numpy() > 0

    def _drift(self, row: int, model: nn.Module, seed: int) -> float:
        """Mean over other test samples of one minus the cosine to the clean victim's map of the same seed."""
        if seed not in self._clean_maps:
            self._clean_maps[seed] = self._watched_maps(self.shop.clean_victims[seed])
        pairs = zip(self._watched, self._watched_maps(model), self._clean_maps[seed], strict=True)
        far = np.array([1 - cosine(changed, clean) for other, changed, clean in pairs if other != row])
        return float(np.nanmean(far)) if np.isfinite(far).any() else float("nan")

    @cached_property
    def _watched(self) -> list[int]:
        order = torch.randperm(len(self.data.test), generator=generator("watched", self.audit.seed))
        return sorted(int(other) for other in order[:DRIFT_SAMPLES])

    def _watched_maps(self, model: nn.Module) -> list[np.ndarray[Any, Any]]:
        rows = torch.tensor(self._watched)
        inputs = self.data.test.batch(rows).to(self.audit.device)
        maps = self.audit.explainer.attribute(model, inputs, self.data.test.labels[rows].to(self.audit.device))
        return [_float(one) for one in maps]

    # -- the rest ----------------------------------------------------------------------------------------------------

    @property
    def _null_seeds(self) -> list[int]:
        return list(range(self.audit.victims, 2 * self.audit.victims))

    def _write_environment(self, rows: Sequence[int]) -> None:
        data = self.data
        labels = [int(data.test.labels[row]) for row in rows]
        write_json(
            self.folder / "environment.json",
            {
                **provenance(self.audit.device),
                "run_id": self.identity,
                "title": self.audit.title,
                "seconds": self.shop.seconds,
                "seeds": {
                    "case": self.audit.seed,
                    "victims": list(range(self.audit.victims)),
                    "seed drift": self._null_seeds,
                },
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
                    {"row": row, "label": label, "class_name": data.classes[label]}
                    for row, label in zip(rows, labels, strict=True)
                ],
            },
        )

    def _case_in_words(self, row: int) -> dict[str, str]:
        audit, budget = self.audit, self.audit.budget
        size = budget.size(len(self.data.train))
        frozen = f", {audit.recipe.frozen_stages} stages frozen" if audit.recipe.frozen_stages else ""
        return {
            "data": self.data.name,
            "model": type(audit.fresh()).__name__,
            "explainer": getattr(audit.explainer, "title", type(audit.explainer).__name__),
            "goal": self._desired(row).label
            if isinstance(audit.targets, int) and audit.targets == 1
            else _goal_in_words(audit.goal),
            "budget": f"{size} samples ({size / len(self.data.train):.1%} of the training set), epsilon {budget.epsilon} ({budget.norm}), {budget.mode}",
            "start": f"from {'a checkpoint' if audit.recipe.start == 'checkpoint' else 'scratch'}{frozen}",
        }


def _goal_in_words(goal: Goal) -> str:
    """Such as "region mid-left", or "features (count 6)"."""
    settings = {name: value for name, value in settings_of(goal).items() if name != "kind" and value}
    if set(settings) == {"name"}:
        return f"{kind_of(goal)} {settings['name']}"
    described = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"{kind_of(goal)} ({described})" if described else kind_of(goal)


def _content(folder: Path) -> str:
    """What victims learn from exported poison: its files, its labels and where it goes."""
    manifest = read_json(folder / "manifest.json")
    return digest([manifest["sha256"], manifest["labels"], manifest["overwritten"]])


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
