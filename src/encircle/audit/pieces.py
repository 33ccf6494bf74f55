"""The pieces an audit consists of: drawing targets, crafting, reading poison back, training victims, scoring them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from ..attacks import Attack, Ceiling, Problem, Watch
from ..attacks.bases import base_inputs
from ..core import InputError, StorageError, digest
from ..data.poison import Poison
from ..goals import DesiredMap, cells
from ..models import predict
from ..scoring import cosine, distances, score
from ..seeds import generator
from ..storage import read_json
from ..training import correct
from .audit import Audit
from .goal_context import goal_context
from .identity import settings_of
from .parts import Arrays, Parts
from .progress import Reporter
from .workshop import Workshop

DRIFT_SAMPLES = 32
"""Other test samples whose explanations are watched for collateral drift."""


@final
class Pieces:
    """The pieces of one audit, done in a folder; what is already there is not done again.

    Args:
        audit: what to do.
        folder: where parts and poison go.
        shop: trains or finds the models.
        reporter: told about progress.
        drawn: the order in which targets are drawn, where it is already known (see `drawn`).
    """

    def __init__(
        self,
        audit: Audit,
        folder: Path,
        shop: Workshop,
        reporter: Reporter,
        drawn: Sequence[int] | None = None,
    ) -> None:
        self.audit = audit
        self.data = audit.data
        self.folder = folder
        self.parts = Parts(folder)
        self.shop = shop
        self.reporter = reporter
        self._drawn = drawn
        self._clean_maps: dict[int, list[np.ndarray[Any, Any]]] = {}
        self._clean_right: dict[int, list[Tensor]] = {}
        self._resolved: tuple[int, DesiredMap] | None = None

    # -- targets and goals -------------------------------------------------------------------------------------------

    @cached_property
    def drawn(self) -> Sequence[int]:
        """Every row of the test set that all clean victims get right, in the order in which targets are drawn."""
        if self._drawn is not None:
            return self._drawn
        test = self.data.test
        right = torch.ones(len(test), dtype=torch.bool)
        for model in self.shop.clean_victims:
            predicted = torch.cat([predict(model, chunk.to(self.audit.device)).cpu() for chunk in test.chunks()])
            right &= predicted == test.labels
        pool = right.nonzero()[:, 0]
        order = torch.randperm(len(pool), generator=generator("targets", self.audit.seed))
        return [int(pool[place]) for place in order]

    @cached_property
    def rows(self) -> list[int]:
        """The targets: rows of the test set, drawn among those that every clean victim gets right."""
        wanted = self.audit.targets
        if not isinstance(wanted, int):
            return sorted({self.given_row(row) for row in wanted})
        return sorted(self.drawn_row(place) for place in range(wanted))

    def drawn_row(self, place: int) -> int:
        """The target that is drawn at this place.

        Raises:
            InputError: there are not so many that all clean victims get right.
        """
        if place >= len(self.drawn):
            raise InputError(
                f"the clean models get only {len(self.drawn)} test samples right, fewer than {self.audit.targets} targets; train longer or ask for fewer."
            )
        return self.drawn[place]

    def given_row(self, row: int) -> int:
        """A target that the case names.

        Raises:
            InputError: it is no row of the test set, or a clean victim gets it wrong.
        """
        if not 0 <= row < len(self.data.test):
            raise InputError(
                f"target {row} is not a row of the test set (0..{len(self.data.test) - 1}); choose another."
            )
        if row not in self.drawn:
            raise InputError(
                f"a clean model gets the class of target {row} wrong, so there is no right explanation to bend; choose another."
            )
        return row

    def _input(self, row: int) -> Tensor:
        return self.data.test.batch(torch.tensor([row])).to(self.audit.device)

    def _explain_by_references(self, sample: Tensor, label: int) -> Tensor:
        chosen = torch.tensor([label], device=self.audit.device)
        maps = [
            self.audit.explainer.attribute(model, sample.to(self.audit.device), chosen)[0]
            for model in self.shop.attackers.references
        ]
        return torch.stack([one.detach().cpu() for one in maps]).mean(dim=0)

    def _desired(self, row: int) -> DesiredMap:
        """The desired map of a target: resolved once, on the attacker's own models, and the same for every arm and victim."""
        if self._resolved is None or self._resolved[0] != row:
            self._resolved = row, self._resolve(row)
        return self._resolved[1]

    def _resolve(self, row: int) -> DesiredMap:
        target, label = self._input(row), int(self.data.test.labels[row])
        shape = tuple(self._explain_by_references(target, label).shape)
        context = goal_context(self.audit, row, shape, self._explain_by_references, self._speaking(target, label))
        return self.audit.goal.resolve(context)

    def _speaking(self, target: Tensor, label: int) -> Tensor | None:
        """Hidden units that speak for the class at the target on every one of the attacker's models; None for other maps."""
        chosen = torch.tensor([label], device=self.audit.device)
        maps = [
            self.audit.explainer.attribute(model, target, chosen)[0].cpu() for model in self.shop.attackers.references
        ]
        return torch.stack(maps).amin(dim=0) > 0 if self.audit.explainer.space(self.data.shape) == "units" else None

    # -- one target --------------------------------------------------------------------------------------------------

    def clean(self, row: int) -> None:
        """The target, its desired map, and the scores of the clean victims."""
        desired = self._desired(row)
        if not self.parts.has(f"{row}"):
            mask = np.ones(desired.values.shape, bool) if desired.mask is None else desired.mask.numpy()
            maps = {
                f"{row}/goal": desired.values.numpy(),
                f"{row}/mask": mask,
                f"{row}/input": _float(self._input(row)[0]),
            }
            self.parts.write(f"{row}", maps, [{"target": row, "label": desired.label}], "goals")
        for seed, model in enumerate(self.shop.clean_victims):
            if not self.parts.has(f"{row}-clean-{seed}"):
                self._score(row, desired, "clean", seed, model)

    def arm(self, row: int, arm: Attack) -> None:
        """Poison of an arm, victims trained on what was read back of it, and their scores."""
        desired = self._desired(row)
        poison = self._poison(row, arm, desired)
        names = [f"{row}-{arm.kind}-{seed}" for seed in range(self.audit.victims)]
        if all(self.parts.has(name) for name in [*names, f"{row}-{arm.kind}"]):
            for _ in names:
                self.reporter.finish("victim", reused=True)
            return
        victims = self._victims(row, arm, poison)
        for seed, name in enumerate(names):
            if self.parts.has(name):
                self.reporter.finish("victim", reused=True)
                continue
            with self.shop.work("victim", f"target {row}: {arm.title}, victim {seed + 1}"):
                self._score(row, desired, arm.kind, seed, victims(seed))

    def ceiling(self, row: int) -> None:
        """Scores of models that are bent directly, one from each clean victim, where the audit wants a ceiling."""
        ceiling = self.audit.ceiling
        if ceiling is None:
            return
        desired = self._desired(row)
        for seed in range(self.audit.victims):
            if self.parts.has(f"{row}-{ceiling.kind}-{seed}"):
                self.reporter.finish("ceiling", reused=True)
                continue
            with self.shop.work("ceiling", f"target {row}: {ceiling.title}, model {seed + 1}"):
                self._score(row, desired, ceiling.kind, seed, self._bent(ceiling, row, desired, seed))

    def _bent(self, ceiling: Ceiling, row: int, desired: DesiredMap, seed: int) -> nn.Module:
        """The nearest to the desired map of what keeps label and accuracy."""
        target, label = self._input(row), int(self.data.test.labels[row])
        objective = ceiling.objective(self.audit.explainer, target, label, desired)
        clean = self.shop.clean_model("victim", seed)
        attempts = ceiling.attempts(
            clean,
            self.audit.recipe,
            self.shop.frozen_features(),
            objective,
            lambda model: self._accuracy(row, "clean" if model is clean else ceiling.kind, seed, model),
            generator("ceiling", self.audit.seed, row, seed),
        )
        chosen = torch.tensor([label], device=self.audit.device)
        mask = None if desired.mask is None else desired.mask.numpy()

        def nearness(model: nn.Module) -> tuple[float, float]:
            found = _float(self.audit.explainer.attribute(model, target, chosen)[0])
            scores = score(found, desired.values.numpy(), mask, None)
            return (-1.0, 0.0) if math.isnan(scores["jaccard"]) else (scores["jaccard"], -scores["l1"])

        return max(attempts, key=nearness)

    def unexplained(self, row: int, arm: Attack) -> None:
        """Poison and victims of an arm that knows no explainer: the same for every explainer, and kept in the cache."""
        victims = self._victims(row, arm, self._poison(row, arm, self._desired(row)))
        for seed in range(self.audit.victims):
            with self.shop.work("victim", f"target {row}: {arm.title}, victim {seed + 1}"):
                victims(seed)

    def _poison(self, row: int, arm: Attack, desired: DesiredMap) -> Path:
        """The folder of an arm's poison, crafted now if it is not there."""
        kind = "craft" if arm is self.audit.attack else "control"
        folder = self.folder / "poison" / str(row) / arm.kind
        if folder.is_dir() and (not arm.needs_gradient or self.parts.has(f"{row}-history")):
            self.reporter.finish(kind, reused=True)
        else:
            with self.shop.work(kind, f"target {row}: {arm.title}"):
                self._craft(row, desired, arm, folder)
        return folder

    def _victims(self, row: int, arm: Attack, folder: Path) -> Callable[[int], nn.Module]:
        """Trains victims, by seed, on poison as its files hold it."""
        poison = self._read_back(row, arm, folder)
        content = content_of(folder) if len(poison) else "clean"
        return self.shop.victims(poison, content, keep=not arm.uses_explainer)

    def _craft(self, row: int, desired: DesiredMap, arm: Attack, folder: Path) -> None:
        watch = Watch(progress=self.reporter.advance)
        label = int(self.data.test.labels[row])
        problem = Problem(
            clean=self.data.train,
            target=self._input(row),
            label=label,
            desired=desired,
            explainer=self.audit.explainer,
            ensemble=self.shop.attackers.ensemble,
            recipe=self.shop.attackers.audit.recipe,
            references=self.shop.attackers.references,
            legal=self.audit.legal,
            frozen_features=self.shop.attackers.frozen_features(),
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
                "share_of_class": int((poison.labels == label).sum()) / max(in_class, 1),
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
        explanation = self.audit.explainer.explain(model, target, chosen)
        scored, picture = _float(explanation.maps[0]), _float(explanation.pictures[0])
        probabilities = explanation.logits.softmax(dim=1)[0]
        facts = {
            "target": row,
            "arm": arm,
            "seed": seed,
            "victim_class": int(probabilities.argmax()),
            **score(
                scored,
                desired.values.numpy(),
                None if desired.mask is None else desired.mask.numpy(),
                self._box(row, scored.shape),
            ),
            "label_kept": bool(probabilities.argmax() == label),
            "probability": float(probabilities[label]),
            "accuracy": self._accuracy(row, arm, seed, model),
            "drift": self._drift(row, arm, seed, model),
        }
        maps: Arrays = {f"{row}/{arm}/{seed}": scored}
        if picture.shape != scored.shape and seed == 0:
            maps[f"{row}/{arm}/{seed}/full"] = picture
        self.parts.write(f"{row}-{arm}-{seed}", maps, [facts], "scores")

    def _accuracy(self, row: int, arm: str, seed: int, model: nn.Module) -> float:
        """On everything held out but the target."""
        right = self._clean_right.get(seed) if arm == "clean" else None
        if right is None:
            frozen = self.audit.recipe.shared_stages
            right = [correct(model, part, frozen) for part in self.shop.held_out()]
            if arm == "clean":  # the same for every target
                self._clean_right[seed] = right
        total = sum(int(part.sum()) for part in right) - int(right[-1][row])
        return total / (sum(len(part) for part in right) - 1)

    def _box(self, row: int, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        box = self.data.boxes.get(row)
        return None if box is None or len(shape) != 2 else cells(box, (shape[0], shape[1])).numpy() > 0

    def _drift(self, row: int, arm: str, seed: int, model: nn.Module) -> float:
        """Mean over other test samples of one minus the cosine to the clean victim's map of the same seed."""
        found = self._clean_watched(seed) if arm == "clean" else self._watched_maps(model)
        pairs = zip(self._watched, found, self._clean_watched(seed % self.audit.victims), strict=True)
        far = np.array([1 - cosine(changed, clean) for other, changed, clean in pairs if other != row])
        return float(np.nanmean(far)) if np.isfinite(far).any() else float("nan")

    def _clean_watched(self, seed: int) -> list[np.ndarray[Any, Any]]:
        if seed not in self._clean_maps:
            self._clean_maps[seed] = self._watched_maps(self.shop.clean_model("victim", seed))
        return self._clean_maps[seed]

    @cached_property
    def _watched(self) -> list[int]:
        order = torch.randperm(len(self.data.test), generator=generator("watched", self.audit.seed))
        return sorted(int(other) for other in order[:DRIFT_SAMPLES])

    def _watched_maps(self, model: nn.Module) -> list[np.ndarray[Any, Any]]:
        rows = torch.tensor(self._watched)
        inputs = self.data.test.batch(rows).to(self.audit.device)
        maps = self.audit.explainer.attribute(model, inputs, self.data.test.labels[rows].to(self.audit.device))
        return [_float(one) for one in maps]


def content_of(folder: Path) -> str:
    """What victims learn from exported poison: its files, its labels and where it goes."""
    manifest = read_json(folder / "manifest.json")
    return digest([manifest["sha256"], manifest["labels"], manifest["overwritten"]])


def _float(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy().astype(np.float32)
