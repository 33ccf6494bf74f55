"""How long a study will take: a few seconds of each kind of work, timed and scaled up."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch

from ..attacks import Attack, BaseSamples, NoPoison, Problem, RandomNoise, Watch
from ..attacks.metagradient import ROUNDS, TRAININGS
from ..attacks.optimised import VALIDATION_SURROGATES
from ..audit import Audit, Case
from ..audit.goal_context import goal_context
from ..audit.run import computing
from ..jobs.task import Task
from ..seeds import generator
from ..training import Ensemble, Source
from ..training.fit import fit_on_features
from ..training.frozen import frozen_samples
from .plan import Plan, located

OTHERS = {"files": 0.1, "data": 1.0, "path": 1.0, "targets": 1.0, "run": 2.0}
"""Seconds that are supposed, not measured, for kinds of task that take little."""

ENOUGH = 10.0
"""Seconds of crafting after which no more of it is timed: an epoch of a large network would take minutes."""

_SHARED_ARMS = {arm.kind for arm in (NoPoison(), BaseSamples(), RandomNoise()) if not arm.uses_explainer}


@final
class _Enough(Exception):  # noqa: N818 - nothing went wrong
    """Ends a crafting that was timed for long enough."""


@final
@dataclass(frozen=True)
class Forecast:
    """What a study is thought to take.

    Attributes:
        seconds: by kind of task, of all of them one after another.
        workers: how many work at once.
    """

    seconds: dict[str, float]
    workers: int

    @property
    def total(self) -> float:
        """Seconds until the study is done."""
        return sum(self.seconds.values()) / self.workers


def forecast(plan: Plan, root: Path, workers: int, say: Callable[[str], None]) -> Forecast:
    """Time one epoch of training, and some of crafting, for every way in which the study does them.

    Where crafting is timed at one budget of several, it is at the largest, so that the forecast errs upwards.

    Args:
        plan: what is to be done.
        root: the folder that files named by its cases are relative to.
        workers: how many tasks are done at once.
        say: told what is being timed.
    """
    probes: dict[str, _Probe] = {}
    costs: dict[str, float] = {}
    by_size = sorted(plan.tasks, key=lambda task: -_budget(task))
    for task in by_size:
        costs[task.kind] = costs.get(task.kind, 0.0) + _seconds(task, probes, root, say)
    return Forecast(costs, workers)


def _budget(task: Task) -> float:
    budget = task.spec.get("case", {}).get("budget", {})
    return float(budget.get("fraction") or budget.get("count") or 0)


def _seconds(task: Task, probes: dict[str, _Probe], root: Path, say: Callable[[str], None]) -> float:
    if task.kind in OTHERS:
        return OTHERS[task.kind]
    case = Case.model_validate(task.spec["case"])
    key = repr((case.data, case.model, case.recipe, case.checkpoint, case.seed if case.checkpoint else 0, case.threads))
    if key not in probes:
        say(f"timing one epoch of training: {case.title}")
        probes[key] = _Probe(located(case, root), task.spec["device"])
    return probes[key].seconds(task, case, say)


@final
class _Probe:
    """Timings for one data set, network and recipe."""

    def __init__(self, case: Case, device: str) -> None:
        self.audit = Audit.from_case(case, device)
        start = self.audit.checkpoint or self.audit.fresh().state_dict()
        self.source = Source(self.audit.build, start, self.audit.device)
        self.single_epoch = replace(self.audit.recipe, epochs=1)
        self._crafting: dict[str, float] = {}
        with computing(case.threads):
            started = time.monotonic()
            trunk = self.source.model(self.single_epoch, "probe", 0)
            # What frozen stages see is worked out once for a study, where it fits in memory.
            self.frozen_features = frozen_samples(trunk, self.audit.data.train, self.single_epoch.shared_stages)
            self.features = time.monotonic() - started
            for _ in range(2):  # the first also loads libraries
                started = time.monotonic()
                (self.model,) = fit_on_features(self.source, self.single_epoch, self.frozen_features, "probe", [0])
                self.epoch = time.monotonic() - started

    def seconds(self, task: Task, case: Case, say: Callable[[str], None]) -> float:
        """Seconds that a task of this case takes."""
        victim = self.epoch * case.recipe.epochs
        if task.kind == "features":
            return self.features
        if task.kind == "weights" and case.pretraining is not None:
            share = len(self.audit.data.pretrain or []) / len(self.audit.data.train)
            return self.epoch * case.pretraining.epochs * share * case.recipe.starts
        if task.kind == "ensemble":
            return float(victim * task.spec["members"] / (2 if task.spec["staggered"] else 1))
        pieces = {"model": victim, "unexplained": victim * case.victims, "attack": victim * case.victims}
        if task.kind == "ceiling" and case.ceiling is not None:  # a step of L_adv costs less than one of training
            return 1.5 * self.epoch * case.ceiling.epochs * len(case.ceiling.weights) * case.victims
        # Controls of bases that an explainer chose serve no other explainer.
        bases, shared = getattr(case.attack, "bases", "nearest"), task.spec.get("arm") in _SHARED_ARMS
        searching = victim * (1 + ROUNDS) * TRAININGS if bases == "metagradient" else 0.0
        if task.kind == "control" and (bases != "nearest" or not shared):
            return victim * case.victims + (searching if shared else 0.0)
        crafting = searching + self.crafting(case, say) if task.kind == "attack" else 0.0
        return pieces.get(task.kind, 0.5) + crafting

    def crafting(self, case: Case, say: Callable[[str], None]) -> float:
        """Seconds that an attack's crafting takes, from an epoch of it, or the beginning of one, at the first budget that is asked for."""
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

        own = Audit.from_case(case, data=data)
        desired = case.goal.resolve(goal_context(own, 0, tuple(explain(target, label).shape), explain, None))

        recipe = case.recipe if attack.retrains else self.single_epoch

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
        few = min(1 + attack.retrains, epochs)  # moves are timed from one to the next, without what is done once
        fewer = {"epochs": few} | ({"attempts": 1} if attempts > 1 else {})
        short = replace(attack, **fewer) if epochs * attempts > 1 else attack  # type: ignore[type-var]
        ends, begun, planned_count = list[float](), time.monotonic(), 0

        def note(done: int, planned: int) -> None:
            nonlocal planned_count
            ends.append(time.monotonic())
            planned_count = planned
            if len(ends) > 1 and ends[-1] - ends[0] >= ENOUGH:
                raise _Enough

        with suppress(_Enough):
            short(problem, case.budget, generator("probe"), Watch(progress=note))
        moves = len(ends) - 1
        timed = time.monotonic() - begun if moves < 1 else (ends[-1] - ends[0]) / moves * planned_count
        judging = (attempts > 1) * attempts * VALIDATION_SURROGATES * self.epoch * case.recipe.epochs
        return attempts * epochs * timed / few + judging
