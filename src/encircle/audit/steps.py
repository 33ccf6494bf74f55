"""The steps of an audit: craft poison, export it, read it back, train victims on it, score them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import nn

from ..attacks import Attack, Ceiling, Problem, Watch
from ..attacks.bases import base_inputs
from ..core import StorageError
from ..data.poison import Poison
from ..defences import Defence, NoDefence
from ..scoring import distances, score
from ..seeds import generator
from .arm import Arm
from .audit import Audit
from .draw_targets import Target, TargetDraw
from .identity import settings_of
from .models import ModelStore
from .score_victim import VictimScorer, as_array
from .step_results import Arrays, StepResults


@final
class AuditSteps:
    """The steps of one audit, done in a folder; finished steps are not done again.

    Args:
        audit: the audit.
        folder: for results and poison.
        models: trains or reads the models.
        targets: draws the targets.
    """

    def __init__(self, audit: Audit, folder: Path, models: ModelStore, targets: TargetDraw) -> None:
        self._audit, self._settings, self._data = audit, audit.settings, audit.data
        self._folder = folder
        self._results = StepResults(folder)
        self._models, self._targets, self._log = models, targets, models.log
        self._scorers: dict[str, VictimScorer] = {}

    def clean(self, row: int) -> None:
        """The target, its desired map, and the scores of the clean victims."""
        target = self._targets.target(row)
        if not self._results.has(f"{row}"):
            desired = target.desired
            maps = {
                f"{row}/goal": desired.values.numpy(),
                f"{row}/mask": np.ones(desired.values.shape, bool) if target.mask is None else target.mask,
                f"{row}/input": as_array(target.input[0]),
            }
            self._results.write(f"{row}", maps, [{"target": row, "label": desired.label}], "goals")
        self.arm(row, self._audit.arms[0])

    def arm(self, row: int, arm: Arm) -> None:
        """Poison of an arm, victims trained on the poison read back, and their scores.

        For an arm without poison: the scores of all clean victims.
        """
        target = self._targets.target(row)
        if arm.is_clean:
            for number, model in enumerate(self._models.under(arm.defence).clean_victims):
                if not self._results.has(f"{row}-{arm.key}-{number}"):
                    self._score(target, arm.key, arm.defence, number, model)
            return
        poison = self._poison(target, arm)
        names = [f"{row}-{arm.key}-{number}" for number in range(self._settings.victims)]
        if all(self._results.has(name) for name in [*names, f"{row}-{arm.attack.kind}"]):
            self._log.reused("victim", len(names))
            return
        victims = self._victims(target, arm, poison)
        for number, name in enumerate(names):
            if self._results.has(name):
                self._log.reused("victim")
                continue
            with self._log.work("victim", f"target {row}: {arm.title}, victim {number + 1}"):
                self._score(target, arm.key, arm.defence, number, victims(number))

    def ceiling(self, row: int) -> None:
        """Scores of the ceiling, if the audit has one: models bent directly, one from each clean victim."""
        ceiling = self._settings.ceiling
        if ceiling is None:
            return
        target = self._targets.target(row)
        for number in range(self._settings.victims):
            if self._results.has(f"{row}-{ceiling.kind}-{number}"):
                self._log.reused("ceiling")
                continue
            with self._log.work("ceiling", f"target {row}: {ceiling.title}, model {number + 1}"):
                self._score(target, ceiling.kind, NoDefence(), number, self._bent(ceiling, target, number))

    def shared_victims(self, row: int, arm: Arm) -> None:
        """Poison and cached victims of an arm that does not depend on the explainer."""
        target = self._targets.target(row)
        victims = self._victims(target, arm, self._poison(target, arm))
        for number in range(self._settings.victims):
            with self._log.work("victim", f"target {row}: {arm.title}, victim {number + 1}"):
                victims(number)

    # -- poison ----------------------------------------------------------------------------------------------------------

    def _poison(self, target: Target, arm: Arm) -> Path:
        """The folder of an arm's poison, crafted if missing. Arms that differ in their defence share it, and it is work of the undefended one."""
        attack = arm.attack
        kind = "craft" if attack is self._settings.attack else "control"
        folder = self._folder / "poison" / str(target.row) / attack.kind
        if not folder.is_dir() or (attack.needs_gradient and not self._results.has(f"{target.row}-history")):
            with self._log.work(kind, f"target {target.row}: {attack.title}"):
                self._craft(target, attack, folder)
        elif not arm.is_defended:
            self._log.reused(kind)
        return folder

    def _craft(self, target: Target, attack: Attack, folder: Path) -> None:
        attackers, budget = self._models.attackers, self._settings.budget
        watch = Watch(progress=self._log.reporter.advance)
        problem = Problem(
            clean=self._data.train,
            target=target.input,
            label=target.label,
            desired=target.desired,
            explainer=self._settings.explainer,
            ensemble=attackers.ensemble,
            recipe=attackers.recipe,
            references=attackers.references,
            legal=self._audit.legal,
            frozen_features=attackers.views.train(),
        )
        poison = attack(problem, budget, generator("attack", self._settings.seed, target.row, attack.kind), watch)
        if attack.needs_gradient:  # before the poison: poison without its history would be crafted again
            rows = [{"target": target.row, **note} for note in watch.history]
            self._results.write(f"{target.row}-history", {}, rows, "history")
        about = {"arm": attack.kind, "target": target.row, "budget": settings_of(budget), "bounded": attack.bounded}
        poison.save(folder, features=self._data.features, about=about)

    def _read_back(self, target: Target, attack: Attack, folder: Path) -> Poison:
        """The poison read from its files and checked against the budget again. Victims learn from it."""
        train, legal, budget = self._data.train, self._audit.legal, self._settings.budget
        poison = Poison.load(folder, lambda rows: base_inputs(train, target.input, legal, rows))
        if attack.bounded and (excess := budget.excess(poison.inputs, poison.base_inputs)) > 0:
            raise StorageError(
                f"the poison in {folder} leaves its budget by {excess:.3g}; delete the folder and run again."
            )
        if not torch.allclose(legal.towards_base(poison.inputs, poison.base_inputs), poison.inputs, rtol=0, atol=1e-6):
            raise StorageError(f"the poison in {folder} holds values that are not legal; delete it and run again.")
        if not self._results.has(f"{target.row}-{attack.kind}"):
            self._note_poison(target, attack, poison)
        return poison

    def _note_poison(self, target: Target, attack: Attack, poison: Poison) -> None:
        labels, count = self._data.train.labels, len(poison)
        row: dict[str, Any] = {
            "target": target.row,
            "arm": attack.kind,
            "count": count,
            "share_of_set": count / len(self._data.train),
            "share_of_class": int((poison.labels == target.label).sum()) / max(int((labels == target.label).sum()), 1),
            **(distances(poison.inputs.numpy(), poison.base_inputs.numpy()) if count else {}),
            "bounded": attack.bounded,
        }
        maps: Arrays = {}
        if count:
            shown = int((poison.bases >= 0).nonzero()[0]) if bool((poison.bases >= 0).any()) else 0
            maps = {
                f"{target.row}/{attack.kind}/poison": as_array(poison.inputs[shown]),
                f"{target.row}/{attack.kind}/base": as_array(poison.base_inputs[shown]),
            }
        self._results.write(f"{target.row}-{attack.kind}", maps, [row], "poisons")

    # -- victims ---------------------------------------------------------------------------------------------------------

    def _victims(self, target: Target, arm: Arm, folder: Path) -> Callable[[int], nn.Module]:
        """Trains an arm's victims, by number, on poison read from its files."""
        poison = self._read_back(target, arm.attack, folder)
        return self._models.under(arm.defence).victims(poison, shared=not arm.attack.uses_explainer)

    def _bent(self, ceiling: Ceiling, target: Target, number: int) -> nn.Module:
        """The nearest to the desired map among attempts that keep label and accuracy."""
        explainer = self._settings.explainer
        scorer = self._scorer(NoDefence())
        attempts = ceiling.attempts(
            self._models.clean_model("victim", number),
            self._settings.recipe,
            self._models.views.train(),
            ceiling.objective(explainer, target.input, target.label, target.desired),
            lambda model: scorer.accuracy(target, number, model),
            generator("ceiling", self._settings.seed, target.row, number),
        )

        def nearness(model: nn.Module) -> tuple[float, float]:
            values = as_array(explainer.attribute(model, target.input, target.chosen)[0])
            scores = score(values, target.desired.values.numpy(), target.mask, None)
            return (-1.0, 0.0) if math.isnan(scores["jaccard"]) else (scores["jaccard"], -scores["l1"])

        return max(attempts, key=nearness)

    def _scorer(self, defence: Defence) -> VictimScorer:
        if defence.kind not in self._scorers:
            self._scorers[defence.kind] = VictimScorer(self._audit, self._models, defence)
        return self._scorers[defence.kind]

    def _score(self, target: Target, arm: str, defence: Defence, number: int, model: nn.Module) -> None:
        maps, row = self._scorer(defence)(target, arm, number, model)
        self._results.write(f"{target.row}-{arm}-{number}", maps, [row], "scores")
