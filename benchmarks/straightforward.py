"""An audit written down simply, whatever its time: every target × explainer × arm × victim by itself.

Targets, explainers and arms share nothing but a target's own clean victims and attacker's models, which are trained for it. Every batch and every
sample of poison goes through the whole network. Models are computed one after another. The attack's second derivative is a double-backward. The target's
map and its label are two passes. Models are in torch's own memory layout. Seeds and rules are the library's, so that the scores are the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encircle.attacks import IMF, Problem, choose_bases
from encircle.attacks.bases import base_inputs
from encircle.attacks.objective import distance
from encircle.audit import Audit
from encircle.audit.goal_context import goal_context
from encircle.audit.score_victim import DRIFT_SAMPLES
from encircle.data import Samples
from encircle.data.poison import Poison
from encircle.goals import DesiredMap, cells
from encircle.scoring import cosine, score
from encircle.seeds import derive_seed, generator
from encircle.training import Source
from encircle.training.batches import batches, steps_per_epoch
from encircle.training.learner import layer_noise

Scores = dict[tuple[int, str, int], dict[str, Any]]


class Model:
    """A model and its optimiser, trained through the whole network.

    Args:
        audit: gives the recipe.
        source: gives the start.
        role: of the model.
        seed: of its start.
        total: steps of the whole training.
    """

    def __init__(self, audit: Audit, source: Source, role: str, seed: int, total: int) -> None:
        self.recipe, self.total, self.taken = audit.settings.recipe, total, 0
        self.model = source.model(audit.settings.recipe, role, seed)
        self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.learnt, self.optimiser = learnt, audit.settings.recipe.build_optimiser(self.model)

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """One step."""
        if len(labels) < 2:
            return
        self.model.train()
        for stage in self.model.stages[: self.recipe.frozen_stages] if self.recipe.frozen_stages else []:  # type: ignore[union-attr, index]
            stage.eval()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.taken / self.total)
        self.optimiser.zero_grad()
        F.cross_entropy(self.model(inputs), labels).backward()
        self.optimiser.step()
        self.taken += 1
        self.model.eval()


def trained(audit: Audit, source: Source, samples: Samples, role: str, seed: int, steps: int | None = None) -> Model:
    """A model after some steps of its recipe.

    Args:
        audit: gives the recipe.
        source: gives the start.
        samples: the training set.
        role: of the model.
        seed: of its start and the order of batches.
        steps: how many; None for all.
    """
    total = audit.settings.recipe.epochs * steps_per_epoch(len(samples), audit.settings.recipe.batch_size)
    model, remaining = Model(audit, source, role, seed, total), total if steps is None else steps
    order = generator(role, "order", seed)
    with layer_noise(role, seed):
        while remaining > 0:
            for rows in batches(len(samples), audit.settings.recipe.batch_size, order):
                if remaining == 0:
                    break
                model.step(samples.batch(rows), samples.labels[rows])
                remaining -= 1
    return model


def encircled(imf: IMF, audit: Audit, source: Source, problem: Problem, random: torch.Generator) -> tuple[Tensor, Any]:
    """Algorithm 1 with the exact form and sign steps, a model at a time, through the whole network.

    Args:
        imf: gives the settings.
        audit: gives recipe, budget and seed.
        source: gives the models' starts.
        problem: what is attacked.
        random: all randomness of the attack.

    Returns:
        The poison and its bases.
    """
    clean, budget = problem.clean, audit.settings.budget
    bases = choose_bases(problem, budget, budget.size(len(clean)), imf.target_share)
    total = audit.settings.recipe.epochs * steps_per_epoch(len(clean), audit.settings.recipe.batch_size)
    models = []
    for member in range(imf.models):
        seed = audit.settings.seed * imf.models + member
        models.append(trained(audit, source, clean, "surrogate", seed, round(member * total / imf.models)))
        models[-1].total = total
    noise = torch.rand(bases.inputs.shape, generator=random) * 2 - 1
    legal = problem.legal.relaxed()
    poison = budget.project(bases.inputs + budget.entry_radius(bases.inputs) * noise, bases.inputs, legal)
    overwritten = bases.rows if budget.mode == "replace" else torch.full_like(bases.rows, -1)
    mixed = clean.with_poison(poison, bases.labels, overwritten)
    size, iteration, restarts = audit.settings.recipe.batch_size, 0, 0
    planned = imf.epochs * steps_per_epoch(len(mixed), size)
    with layer_noise("crafting", random.initial_seed()):
        for _ in range(imf.epochs):
            for rows in batches(len(mixed), size, random):
                delta = torch.zeros_like(poison)
                for model in models:
                    delta += direction(imf, problem, model, poison, bases.labels) / len(models)
                gamma = imf.gamma * (1 - 0.9 * iteration / planned)
                moved = poison + gamma * budget.entry_radius(poison) * delta.sign()
                poison = budget.project(moved, bases.inputs, legal)
                mixed = clean.with_poison(poison, bases.labels, overwritten)
                for model in models:
                    model.step(mixed.batch(rows), mixed.labels[rows])
                for index, model in enumerate(models):
                    if model.taken >= total:
                        restarts += 1
                        seed = (audit.settings.seed + 1) * 1_000_003 + restarts
                        models[index] = Model(audit, source, "surrogate", seed, total)
                iteration += 1
    return poison, bases


def direction(imf: IMF, problem: Problem, model: Model, poison: Tensor, labels: Tensor) -> Tensor:
    """∇_X ⟨∇_θ L_train(X), ∇_θ L_adv⟩ for one model.

    Args:
        imf: gives the objective's settings.
        problem: what is attacked.
        model: in eval mode.
        poison: X.
        labels: of X.
    """
    label = torch.tensor([problem.label])
    maps = problem.explainer.explain(model.model, problem.target, label, graph=True).maps
    far = distance(maps, problem.desired.values.to(maps), problem.desired.mask, imf.distance)[0]
    entropy = F.cross_entropy(model.model(problem.target), label)
    term = entropy if imf.hinge is None else (entropy - imf.hinge).clamp(min=0)
    attack = torch.autograd.grad(far + imf.label_weight * term, model.learnt, materialize_grads=True)
    leaf = poison.clone().requires_grad_()
    loss = F.cross_entropy(model.model(leaf), labels, reduction="sum")
    slopes = torch.autograd.grad(loss, model.learnt, create_graph=True, materialize_grads=True)
    inner = sum((slope * part).sum() for slope, part in zip(slopes, attack, strict=True))
    return torch.autograd.grad(inner, leaf)[0]  # type: ignore[arg-type]


def audit_plainly(audit: Audit, rows: list[int], checkpoint: dict[str, Tensor] | None) -> Scores:
    """All scores of an audit on these targets.

    Args:
        audit: what to do; its attack is an `IMF` with the exact form.
        rows: the targets.
        checkpoint: the starting weights, already learnt.
    """
    source = Source(audit.build, checkpoint)
    scores: Scores = {}
    for row in rows:
        scores.update(_target_scores(audit, source, row))
    return scores


def _target_scores(audit: Audit, source: Source, row: int) -> Scores:
    data, victims = audit.data, audit.settings.victims
    train, label = data.train, int(data.test.labels[row])
    target = data.test.batch(torch.tensor([row]))
    seeds = [derive_seed(audit.settings.seed, number) for number in range(2 * victims)]
    references = [trained(audit, source, train, "reference", seeds[n]).model for n in range(audit.settings.references)]
    clean = [trained(audit, source, train, "victim", seed).model for seed in seeds]
    desired = _desired(audit, references, row, target, label)
    scores: Scores = {
        (row, "clean", number): _scores(audit, row, target, label, desired, model, clean[number % victims])
        for number, model in enumerate(clean)
    }
    for arm in (member.attack for member in audit.arms[1:]):
        problem = Problem(
            clean=train,
            target=target,
            label=label,
            desired=desired,
            explainer=audit.settings.explainer,
            ensemble=_none,
            recipe=audit.settings.recipe,
            references=references,
            legal=audit.legal,
        )
        random = generator("attack", audit.settings.seed, row, arm.kind)
        if isinstance(arm, IMF):
            with _crafting_plainly(arm, audit, source):
                poison = arm(problem, audit.settings.budget, random)
        else:
            poison = arm(problem, audit.settings.budget, random)
        with tempfile.TemporaryDirectory() as folder:
            poison.save(Path(folder) / "poison", features=data.features)
            poison = Poison.load(Path(folder) / "poison", lambda bases: base_inputs(train, target, audit.legal, bases))
        samples = train.with_poison(poison.inputs, poison.labels, poison.overwritten)
        for number in range(victims):
            model = trained(audit, source, samples, "victim", seeds[number]).model
            scores[row, arm.kind, number] = _scores(audit, row, target, label, desired, model, clean[number])
    return scores


def _none(members: int, staggered: bool) -> Any:
    raise AssertionError


@contextmanager
def _crafting_plainly(arm: IMF, audit: Audit, source: Source) -> Iterator[None]:
    """Let the attack's own call, which projects and checks, craft the plain way."""
    original = IMF._craft
    IMF._craft = lambda self, problem, budget, count, random, watch: encircled(self, audit, source, problem, random)  # type: ignore[method-assign]
    try:
        yield
    finally:
        IMF._craft = original  # type: ignore[method-assign]


def _desired(audit: Audit, references: list[nn.Module], row: int, target: Tensor, label: int) -> DesiredMap:
    def explain(sample: Tensor, of: int) -> Tensor:
        maps = [
            audit.settings.explainer.attribute(model, sample, torch.tensor([of]))[0].detach() for model in references
        ]
        return torch.stack(maps).mean(dim=0)

    positive_units = None
    if audit.settings.explainer.space(audit.data.shape) == "units":
        maps = [
            audit.settings.explainer.attribute(model, target, torch.tensor([label]))[0].detach() for model in references
        ]
        positive_units = torch.stack(maps).amin(dim=0) > 0
    shape = tuple(explain(target, label).shape)
    return audit.settings.goal.resolve(goal_context(audit, row, shape, explain, positive_units))


def _scores(
    audit: Audit, row: int, target: Tensor, label: int, desired: DesiredMap, model: nn.Module, clean: nn.Module
) -> dict[str, Any]:
    data, chosen = audit.data, torch.tensor([label])
    maps = audit.settings.explainer.attribute(model, target, chosen)[0].detach().numpy().astype(np.float32)
    box = data.boxes.get(row)
    inside = None if box is None or maps.ndim != 2 else cells(box, (maps.shape[0], maps.shape[1])).numpy() > 0
    mask = None if desired.mask is None else desired.mask.numpy()
    with torch.no_grad():
        probabilities = model(target).softmax(dim=1)[0]
        right = [
            int(model(part.batch(torch.tensor([other]))).argmax()) == int(part.labels[other])
            for part in (data.validation, data.test)
            for other in range(len(part))
            if part is not data.test or other != row
        ]
    order = torch.randperm(len(data.test), generator=generator("watched", audit.settings.seed))[:DRIFT_SAMPLES]
    far = []
    for other in sorted(order.tolist()):
        if other != row:
            sample, its = data.test.batch(torch.tensor([other])), data.test.labels[other : other + 1]
            poisoned_map, clean_map = (
                audit.settings.explainer.attribute(network, sample, its)[0].detach().numpy()
                for network in (model, clean)
            )
            far.append(1 - cosine(poisoned_map, clean_map))
    return {
        **score(maps, desired.values.numpy(), mask, inside),
        "probability": float(probabilities[label]),
        "accuracy": sum(right) / len(right),
        "drift": float(np.nanmean(far)),
    }
