"""What poison is made from: samples of the target's class, of other classes, and the target itself (§4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from ..core import InputError
from ..data import Samples
from ..models import CamClassifier
from ..seeds import generator
from ..threat import Budget, Legal
from ..training import Recipe
from ..training.code_path import gauss_newton, inner_products, trainable
from ..training.frozen import CHUNK, frozen_samples
from .base import Bases, Problem
from .curvature import ratio, solved
from .metagradient import exchanged
from .objective import Objective
from .parameter_vectors import inner, plus, times, unit_scale

Order = Literal["nearest", "aligned", "influential", "metagradient"]
"""Which samples are taken first."""

OtherShare = Annotated[float, Field(ge=0, le=1)] | Literal["balanced"]
"""What share of the samples are of other classes; or as many of each class as the clean set has, so that poison makes no class more frequent."""

SAMPLES = 512
"""Clean samples that stand for all in the curvature by which influential bases are told."""

DAMPING, ROUNDS = 0.01, 20
"""Beside that curvature, and rounds of conjugate gradients with it. Both are fixed: the controls, which know no attack's damping, must find the same bases."""


def choose_bases(
    problem: Problem,
    budget: Budget,
    count: int,
    target_share: float,
    other_share: OtherShare = 0.0,
    order: Order = "nearest",
    dirty_label: bool = False,
    repeats: int = 1,
) -> Bases:
    """Samples of the target's class, nearest to the target in feature space first, and copies of the target (§4.1).

    They are drawn without replacement, then used again from the first on. Features are the mean-pooled last feature
    maps of the attacker's own models (logits, for models without a CAM head). Samples of other classes, which keep their own labels, are an
    extension of the paper: they can teach a model that what lies outside the desired map does not speak for the class. So are repeats, which are
    meant to teach what few samples teach well more often than what others do not.

    Args:
        problem: what is attacked.
        budget: in `replace` mode a row can be overwritten once.
        count: how many.
        target_share: share of them that are the target itself.
        other_share: share of them that are of other classes, whichever come first; `"balanced"` takes of each class, first come first, what its share of
            the clean set is; copies of the target count as its class's, and where they are more than that, the others share what is left.
        order: `"nearest"` is the paper's; `"aligned"` takes those first whose own training gradient bends the explanation most, `"influential"` those that
            would bend that of a model trained to the end (`alignment`), and `"metagradient"` begins there and exchanges them by retraining (`exchanged`).
        dirty_label: those of other classes are labelled as the target's class all the same.
        repeats: how often each sample is used before the next one in order is.

    Raises:
        InputError: nothing to choose from, too little to overwrite, or a row that would be overwritten twice.
    """
    check_pools(problem.clean.labels, problem.label, budget, count, target_share, other_share, order, repeats)
    labels = problem.clean.labels
    copies = round(target_share * count)
    pools = _pools(labels, problem.label, count, copies, other_share)
    if dirty_label:
        labels = torch.full_like(labels, problem.label)
    asked = torch.zeros(len(labels), dtype=torch.bool)
    for pool, many, _ in pools:
        asked |= pool if many else False
    keys, rows = torch.zeros(len(labels)), asked.nonzero()[:, 0]
    if len(rows):  # of all pools at once: what they are ranked by is the same
        keys[rows] = (
            _feature_distances(problem, rows) if order == "nearest" else -alignment(problem, rows, labels[rows], order)
        )
    drawn = []
    for pool, many, _ in pools:
        rows = pool.nonzero()[:, 0]
        ordered = rows[keys[rows].argsort(stable=True)]
        drawn.append(ordered[torch.arange(many) // repeats % max(len(ordered), 1)])
    rows = torch.cat([*drawn, torch.full((copies,), -1)])[:count]
    given = torch.where(rows < 0, problem.label, labels[rows.clamp(min=0)])
    inputs = base_inputs(problem.clean, problem.target, problem.legal, rows)
    if order == "metagradient":
        ends = torch.tensor([0, *(len(part) for part in drawn)]).cumsum(0).clamp(max=count).tolist()
        exchangeable = [torch.arange(first, last) for first, last in pairwise(ends)]
        places = exchanged(problem, inputs, given, exchangeable)
        rows, inputs, given = rows[places], inputs[places], given[places]
    return Bases(rows, inputs, given)


def check_pools(
    labels: Int[Tensor, "n"],
    label: int,
    budget: Budget,
    count: int,
    target_share: float,
    other_share: OtherShare = 0.0,
    order: Order = "nearest",
    repeats: int = 1,
) -> None:
    """Refuse a budget for which a target of this class has too few bases; arguments as for `choose_bases`.

    Raises:
        InputError: nothing to choose from, too little to overwrite, or a row that would be overwritten twice.
    """
    if budget.mode == "replace" and (repeats > 1 or order == "metagradient"):
        raise InputError(
            "replace mode overwrites each row once, so no base can be repeated; set repeats: 1 and bases: influential, or mode: inject."
        )
    for pool, many, what in _pools(labels, label, count, round(target_share * count), other_share):
        _check_pool(budget, int(pool.sum()), many, what)


def _pools(
    labels: Int[Tensor, "n"], label: int, count: int, copies: int, other_share: OtherShare
) -> list[tuple[Tensor, int, str]]:
    """What bases are drawn from: which samples, how many, and what they are called."""
    if other_share != "balanced":
        others = round(other_share * count)
        shared = [(labels != label, others, "of other classes")]
    else:
        there = torch.bincount(labels, minlength=label + 1).tolist()
        drawn = _apportioned(count, there)
        if copies > drawn[label]:  # more of the target than its class is to have
            drawn = _apportioned(count - copies, [0 if place == label else size for place, size in enumerate(there)])
        drawn[label] = 0
        others = sum(drawn)
        shared = [(labels == other, many, f"of class {other}") for other, many in enumerate(drawn) if many]
    return [(labels == label, max(count - copies - others, 0), f"of class {label}"), *shared]


def _apportioned(count: int, sizes: Sequence[int]) -> list[int]:
    """`count` in proportion to sizes, by largest remainders; nothing where all sizes are nothing."""
    whole = sum(sizes)
    if not whole:
        return [0] * len(sizes)
    parts = [count * size // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: -(count * sizes[place] % whole))
    for place in by_remainder[: count - sum(parts)]:
        parts[place] += 1
    return parts


def _check_pool(budget: Budget, there: int, wanted: int, what: str) -> None:
    if wanted and not there:
        raise InputError(f"no training sample is {what}, so the base pool is empty; choose another target.")
    if budget.mode == "replace" and wanted > there:
        raise InputError(
            f"replace mode can overwrite at most {there} samples {what}, not {wanted}; lower the budget or inject."
        )


def base_inputs(
    clean: Samples, target: Float[Tensor, "1 *shape"], legal: Legal, rows: Int[Tensor, "p"]
) -> Float[Tensor, "p *shape"]:
    """The samples that poison is made from: rows of the clean set, and the target where a row is -1."""
    inputs = target.cpu().repeat(len(rows), *[1] * (target.dim() - 1))
    drawn = rows >= 0
    if bool(drawn.any()):
        inputs[drawn] = clean.batch(rows[drawn]).to(inputs)
    return legal.quantised(inputs)


def alignment(
    problem: Problem, rows: Int[Tensor, "rows"], labels: Int[Tensor, "rows"], order: Order = "aligned"
) -> Float[Tensor, "rows"]:
    """How far training on each sample as it is would bend the target's explanation: ⟨∇_θ L_train(x), v⟩ on the attacker's own models.

    With `"aligned"` v is ∇_θ D, D the centred cosine: one step of training. Otherwise it is (C + damping · I)⁻¹ ∇_θ D, C the curvature of the mean
    loss on clean samples: what more weight on the sample would do at the end of training (influence functions, Koh & Liang, ICML 2017). Each model's v
    counts with unit length, each sample with its class's weight in L_train. A sample that models are sure of has next to no gradient, and no alignment
    either: what is taken first is aligned *and* still has something to teach.

    Args:
        problem: what is attacked.
        rows: of the clean set.
        labels: what they will be labelled as.
        order: which v.
    """
    recipe, frozen_features = problem.recipe.for_labels(problem.clean.labels), _hidden(problem)
    total = torch.zeros(len(rows))
    for model in problem.references:
        goal = Objective(problem.explainer, problem.target, problem.label, problem.desired, "cosine", 0.0, None)
        found = torch.autograd.grad(goal(model)[0].sum(), trainable(model), materialize_grads=True)
        slopes, _ = unit_scale(found, 1)
        if order != "aligned":
            curvature = _curvature(model, frozen_features, recipe)
            slopes = solved(curvature, slopes, [torch.zeros_like(part) for part in slopes], DAMPING, ROUNDS, 1)
        length = inner(slopes, slopes, 1).sqrt()
        direction = times(ratio(torch.ones_like(length), length), slopes)
        for places in torch.arange(len(rows)).split(CHUNK):
            some = rows[places]
            inputs, classes = (each.to(problem.target.device) for each in (frozen_features.batch(some), labels[places]))
            each = inner_products(model, inputs, classes, direction, recipe.shared_stages).cpu()
            weights = recipe.weights_of(labels[places])
            total[places] += each if weights is None else each * weights.to(each)
    return total


def _hidden(problem: Problem) -> Samples:
    """The clean set as the frozen stages see it."""
    return problem.frozen_features or frozen_samples(problem.references[0], problem.clean, problem.recipe.shared_stages)


def _curvature(
    model: nn.Module, frozen_features: Samples, recipe: Recipe
) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """C of the mean training loss, over some clean samples; a chunk at a time, so that no graph of them all is kept."""
    rows = torch.randperm(len(frozen_features), generator=generator("curvature"))[:SAMPLES]
    given = recipe.weights_of(frozen_features.labels[rows])
    weights = (torch.ones(len(rows)) if given is None else given) / len(rows)
    device = trainable(model)[0].device

    def product(vector: Sequence[Tensor]) -> list[Tensor]:
        total = [torch.zeros_like(part) for part in vector]
        for some, shares in zip(rows.split(CHUNK), weights.split(CHUNK), strict=True):
            seen = frozen_features.batch(some).to(device)
            total = plus(total, gauss_newton(model, seen, shares.to(seen), recipe.shared_stages)(vector))
        return total

    return product


@torch.no_grad()
def _feature_distances(problem: Problem, pool: Tensor) -> Tensor:
    total = torch.zeros(len(pool))
    for model in problem.references:
        here = features_of(model, problem.target)
        there = torch.cat([features_of(model, problem.clean.batch(rows).to(here.device)) for rows in pool.split(CHUNK)])
        total += (there - here).norm(dim=1).cpu()
    return total


def features_of(model: nn.Module, inputs: Tensor) -> Float[Tensor, "n k"]:
    """Mean-pooled features, or logits for models without a CAM head."""
    out = model.features(inputs) if isinstance(model, CamClassifier) else model(inputs)
    return out.mean(dim=(2, 3)) if out.dim() == 4 else out
