"""Costs of tasks: a few seconds of training and crafting are timed and scaled up to the task."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import final

import torch

from ..attacks import Attack, BaseSamples, NoPoison, Problem, RandomNoise, Watch
from ..attacks.metagradient import ROUNDS, TRAININGS
from ..attacks.optimised import VALIDATION_SURROGATES
from ..audit import Audit, Case
from ..audit.computing import computing
from ..audit.goal_context import goal_context
from ..jobs.task import Task
from ..seeds import generator
from ..training import Ensemble, Source
from ..training.fit import fit_on_features
from ..training.frozen import frozen_samples

ENOUGH = 10.0
"""Seconds of crafting that are timed: an epoch of a large network would take minutes."""

SCORING = 0.5
"""Assumed seconds for scoring a few models; not measured."""

_SHARED_ATTACKS = {attack.kind for attack in (NoPoison(), BaseSamples(), RandomNoise()) if not attack.uses_explainer}

Say = Callable[[str], None]
"""Receives a description of the work being timed."""


@final
class _EnoughError(Exception):
    """Ends a crafting that was timed for long enough; it is no failure."""


@final
class Probe:
    """Timings for one data set, network and recipe.

    Args:
        case: names them; its files must be readable.
        device: where models are trained.

    Attributes:
        features: seconds for the training set's frozen features.
        epoch: seconds for an epoch of training.
    """

    def __init__(self, case: Case, device: str) -> None:
        self.audit = Audit.from_case(case, device)
        start = self.audit.checkpoint or self.audit.fresh().state_dict()
        self.source = Source(self.audit.build, start, self.audit.device)
        self.one = replace(self.audit.settings.recipe, epochs=1)
        self._crafting: dict[str, float] = {}
        with computing(case.threads):
            started = time.monotonic()
            trunk = self.source.model(self.one, "probe", 0)
            # A study computes frozen features once, if they fit in memory.
            self.frozen_features = frozen_samples(trunk, self.audit.data.train, self.one.shared_stages)
            self.features = time.monotonic() - started
            for _ in range(2):  # the first also loads libraries
                started = time.monotonic()
                (self.model,) = fit_on_features(self.source, self.one, self.frozen_features, "probe", [0])
                self.epoch = time.monotonic() - started

    @property
    def pretraining_rows(self) -> float:
        """Number of samples from which starting weights are learnt, as a fraction of the training set."""
        return len(self.audit.data.pretrain or []) / len(self.audit.data.train)

    def crafting(self, case: Case, say: Callable[[str], None]) -> float:
        """Seconds of an attack's crafting, from a timed epoch or its beginning, at the first budget asked for.

        Args:
            case: names the attack.
            say: receives the message that it is timed.
        """
        key = repr((case.explainer, case.attack))
        if key not in self._crafting:
            say(f"timing some of the crafting: {case.title}")
            with computing(case.threads):
                self._crafting[key] = self._craft(case, case.attack)
        return self._crafting[key]

    def _craft(self, case: Case, attack: Attack) -> float:
        audit, data = self.audit, self.audit.data
        epochs = int(getattr(attack, "epochs", 1))
        target, label = data.test.batch(torch.tensor([0])).to(audit.device), int(data.test.labels[0])

        def explain(sample: torch.Tensor, of: int) -> torch.Tensor:
            return case.explainer.attribute(self.model, sample, torch.tensor([of]))[0].detach().cpu()

        desired = case.goal.resolve(goal_context(audit, 0, tuple(explain(target, label).shape), explain, None))

        recipe = case.recipe if attack.retrains else self.one

        def ensemble(members: int, staggered: bool) -> Ensemble:
            return Ensemble.pretrained(
                self.source,
                recipe,
                data.train,
                members=members,
                staggered=False,
                seed=0,
                frozen_features=self.frozen_features,
            )

        problem = Problem(
            clean=data.train,
            target=target,
            label=label,
            desired=desired,
            explainer=case.explainer,
            ensemble=ensemble,
            recipe=recipe,
            references=[self.model],
            legal=audit.legal,
            frozen_features=self.frozen_features,
        )
        attempts = int(getattr(attack, "attempts", 1))
        few = min(1 + attack.retrains, epochs)  # moves are timed from one to the next, without the work done once
        fewer = {"epochs": few} | ({"attempts": 1} if attempts > 1 else {})
        short = replace(attack, **fewer) if epochs * attempts > 1 else attack  # type: ignore[type-var]
        ends, began, moves_an_epoch = list[float](), time.monotonic(), 0

        def note(done: int, planned: int) -> None:
            nonlocal moves_an_epoch
            ends.append(time.monotonic())
            moves_an_epoch = planned
            if len(ends) > 1 and ends[-1] - ends[0] >= ENOUGH:
                raise _EnoughError

        with suppress(_EnoughError):
            short(problem, case.budget, generator("probe"), Watch(progress=note))
        moves = len(ends) - 1
        timed = time.monotonic() - began if moves < 1 else (ends[-1] - ends[0]) / moves * moves_an_epoch
        judging = (attempts > 1) * attempts * VALIDATION_SURROGATES * self.epoch * case.recipe.epochs
        return attempts * epochs * timed / few + judging


@final
class TaskCost:
    """The cost of one task: a method for each kind of task.

    Args:
        probe: timings for its data, network and recipe.
        task: the task.
        case: the case of its run.
        say: receives a description of the work being timed.
    """

    def __init__(self, probe: Probe, task: Task, case: Case, say: Say) -> None:
        self._probe, self._task, self._case, self._say = probe, task, case, say

    @property
    def _training(self) -> float:
        return self._probe.epoch * self._case.recipe.epochs

    @property
    def _defended_training(self) -> float:
        return self._probe.epoch * self._case.defence.recipe(self._case.recipe).epochs

    @property
    def _searching(self) -> float:
        """Seconds for choosing bases by metagradients."""
        return self._training * (1 + ROUNDS) * TRAININGS if self._bases == "metagradient" else 0.0

    @property
    def _bases(self) -> str:
        return str(getattr(self._case.attack, "bases", "nearest"))

    def features(self) -> float:
        """One pass of the training set through the frozen stages."""
        return self._probe.features

    def weights(self) -> float:
        """Learning every start on the pre-training part; a given checkpoint is only copied."""
        pretraining = self._case.pretraining
        if pretraining is None:
            return SCORING
        return self._probe.epoch * pretraining.epochs * self._probe.pretraining_rows * self._case.recipe.starts

    def model(self) -> float:
        """One training."""
        return self._defended_training if self._task.spec.get("defended") else self._training

    def ensemble(self) -> float:
        """Training all members; staggered ones are half trained on average."""
        return float(self._training * self._task.spec["members"] / (2 if self._task.spec["staggered"] else 1))

    def victims(self) -> float:
        """Training the victims of an arm."""
        return self._training * self._case.victims

    def defended(self) -> float:
        """Training the victims of an arm under the defence; clean ones are tasks of their own."""
        is_clean = str(self._task.spec["arm"]).startswith("clean+")
        return SCORING if is_clean else self._defended_training * self._case.victims

    def scoring(self) -> float:
        """Explaining and scoring trained models."""
        return SCORING

    def control(self) -> float:
        """Training victims, unless another task trains them for every explainer.

        The other task does if neither poison nor bases depend on the explainer.
        """
        knows_no_explainer = self._task.spec.get("arm") in _SHARED_ATTACKS
        if self._bases == "nearest" and knows_no_explainer:
            return SCORING
        return self.victims() + (self._searching if knows_no_explainer else 0.0)

    def attack(self) -> float:
        """Choosing bases, crafting, and training victims."""
        return self.victims() + self._searching + self._probe.crafting(self._case, self._say)

    def ceiling(self) -> float:
        """Training with L_adv, with every weight; a step costs less than one of training."""
        ceiling, epoch = self._case.ceiling, self._probe.epoch
        return 0.0 if ceiling is None else 1.5 * epoch * ceiling.epochs * len(ceiling.weights) * self._case.victims
