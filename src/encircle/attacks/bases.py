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
from ..training.derivatives import gauss_newton, inner_products
from ..training.frozen import CHUNK, trainable
from .base import Bases, Problem
from .curvature import ratio, solved
from .metagradient import exchanged
from .objective import Objective
from .parameter_vectors import inner, plus, times, unit_scale

Order = Literal["nearest", "aligned", "influential", "metagradient"]
"""Which samples are taken first."""

OtherShare = Annotated[float, Field(ge=0, le=1)] | Literal["balanced"]
"""Share of samples of other classes. `"balanced"` takes as many of each class as the clean set has, so that poison makes no class more frequent."""

SAMPLES = 512
"""Clean samples that stand for all of them in the curvature by which influential bases are ranked."""

DAMPING, ROUNDS = 0.01, 20
"""Added to that curvature, and rounds of conjugate gradients. Both are fixed: a control knows no attack's damping, and must choose the same bases."""


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

    They are drawn without replacement, and used again from the first on when all are used. Features are the mean-pooled last feature maps of the
    attacker's own models (logits, for models without a CAM head). Two settings extend the paper. Samples of other classes keep their labels: they
    can teach a model that the rest of the target does not speak for its class. Repeats use the best samples more often.

    Args:
        problem: what is attacked.
        budget: in `replace` mode a row can be overwritten once.
        count: number of bases.
        target_share: share of bases that are the target itself, in [0, 1].
        other_share: share of bases of other classes, in [0, 1]. `"balanced"` takes as large a share of each class as the clean set has. Copies of the
            target count as its class's. Where they are more than that, the other classes share the rest.
        order: which samples come first. `"nearest"` is the paper's. `"aligned"`: the samples whose training gradient bends the explanation most.
            `"influential"`: those that would bend the explanation of a model trained to the end (`alignment`). `"metagradient"` begins there and
            exchanges bases by retraining (`exchanged`).
        dirty_label: whether bases of other classes are labelled as the target's class.
        repeats: how often a sample is used before the next one in order is.

    Returns:
        Rows of the clean set, inputs and labels of the bases.

    Raises:
        InputError: nothing to choose from, too little to overwrite, or a row that would be overwritten twice.
    """
    check_pools(problem.clean.labels, problem.label, budget, count, target_share, other_share, order, repeats)
    labels = problem.clean.labels
    copies = round(target_share * count)
    pools = _pools(labels, problem.label, count, copies, other_share)
    if dirty_label:
        labels = torch.full_like(labels, problem.label)
    candidates = torch.zeros(len(labels), dtype=torch.bool)
    for pool, wanted, _ in pools:
        candidates |= pool if wanted else False
    keys, rows = torch.zeros(len(labels)), candidates.nonzero()[:, 0]
    if len(rows):  # of all pools at once: they are ranked by the same key
        keys[rows] = (
            _feature_distances(problem, rows) if order == "nearest" else -alignment(problem, rows, labels[rows], order)
        )
    drawn = []
    for pool, wanted, _ in pools:
        rows = pool.nonzero()[:, 0]
        ordered = rows[keys[rows].argsort(stable=True)]
        drawn.append(ordered[torch.arange(wanted) // repeats % max(len(ordered), 1)])
    rows = torch.cat([*drawn, torch.full((copies,), -1)])[:count]
    base_labels = torch.where(rows < 0, problem.label, labels[rows.clamp(min=0)])
    inputs = base_inputs(problem.clean, problem.target, problem.legal, rows)
    if order == "metagradient":
        ends = torch.tensor([0, *(len(part) for part in drawn)]).cumsum(0).clamp(max=count).tolist()
        exchangeable = [torch.arange(first, last) for first, last in pairwise(ends)]
        indices = exchanged(problem, inputs, base_labels, exchangeable)
        rows, inputs, base_labels = rows[indices], inputs[indices], base_labels[indices]
    return Bases(rows, inputs, base_labels)


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
    """Refuse a budget for which a target of this class has too few bases.

    Args:
        labels: of the clean set.
        label: the target's class.
        budget: as for `choose_bases`.
        count: likewise.
        target_share: likewise.
        other_share: likewise.
        order: likewise.
        repeats: likewise.

    Raises:
        InputError: nothing to choose from, too little to overwrite, or a row that would be overwritten twice.
    """
    if budget.mode == "replace" and (repeats > 1 or order == "metagradient"):
        raise InputError(
            "replace mode overwrites each row once, so no base can be repeated; set repeats: 1 and bases: influential, or mode: inject."
        )
    for pool, wanted, description in _pools(labels, label, count, round(target_share * count), other_share):
        _check_pool(budget, int(pool.sum()), wanted, description)


def _pools(
    labels: Int[Tensor, "n"], label: int, count: int, copies: int, other_share: OtherShare
) -> list[tuple[Tensor, int, str]]:
    """Pools that bases are drawn from: a mask of samples, how many are drawn, and a description."""
    if other_share != "balanced":
        other_count = round(other_share * count)
        other_pools = [(labels != label, other_count, "of other classes")]
    else:
        sizes = torch.bincount(labels, minlength=label + 1).tolist()
        drawn = _apportioned(count, sizes)
        if copies > drawn[label]:  # more of the target than its class is to have
            drawn = _apportioned(count - copies, [0 if klass == label else size for klass, size in enumerate(sizes)])
        drawn[label] = 0
        other_count = sum(drawn)
        other_pools = [(labels == klass, wanted, f"of class {klass}") for klass, wanted in enumerate(drawn) if wanted]
    return [(labels == label, max(count - copies - other_count, 0), f"of class {label}"), *other_pools]


def _apportioned(count: int, sizes: Sequence[int]) -> list[int]:
    """`count` in proportion to sizes, by largest remainders; all zero where all sizes are."""
    total = sum(sizes)
    if not total:
        return [0] * len(sizes)
    parts = [count * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda index: -(count * sizes[index] % total))
    for index in by_remainder[: count - sum(parts)]:
        parts[index] += 1
    return parts


def _check_pool(budget: Budget, size: int, wanted: int, description: str) -> None:
    if wanted and not size:
        raise InputError(f"no training sample is {description}, so the base pool is empty; choose another target.")
    if budget.mode == "replace" and wanted > size:
        raise InputError(
            f"replace mode can overwrite at most {size} samples {description}, not {wanted}; lower the budget or inject."
        )


def base_inputs(
    clean: Samples, target: Float[Tensor, "1 *shape"], legal: Legal, rows: Int[Tensor, "p"]
) -> Float[Tensor, "p *shape"]:
    """The samples that poison is made from.

    Args:
        clean: the clean training set.
        target: the target input.
        legal: legal values of a sample, to which inputs are rounded.
        rows: of the clean set; -1 stands for the target.
    """
    inputs = target.cpu().repeat(len(rows), *[1] * (target.dim() - 1))
    drawn = rows >= 0
    if bool(drawn.any()):
        inputs[drawn] = clean.batch(rows[drawn]).to(inputs)
    return legal.quantised(inputs)


def alignment(
    problem: Problem, rows: Int[Tensor, "rows"], labels: Int[Tensor, "rows"], order: Order = "aligned"
) -> Float[Tensor, "rows"]:
    """How far training on each unperturbed sample would bend the target's explanation.

    It is ⟨∇_θ L_train(x), v⟩, summed over the attacker's own models. With `"aligned"` v is ∇_θ D, where D is the centred cosine: one step of training.
    Otherwise v is (C + damping · I)⁻¹ ∇_θ D, where C is the curvature of the mean loss on clean samples: the effect of more weight on the sample at the
    end of training (influence functions, Koh & Liang, ICML 2017). Each model's v has unit length. Each sample has its class's weight in L_train. A
    sample that models are sure of has next to no gradient, and no alignment either.

    Args:
        problem: what is attacked.
        rows: of the clean set.
        labels: the samples' labels as poison.
        order: which v.

    Returns:
        A score a row, of any sign. The highest bends most.
    """
    recipe = problem.recipe.for_labels(problem.clean.labels)
    frozen_features = problem.clean_features(problem.references[0], recipe.shared_stages)
    total = torch.zeros(len(rows))
    for model in problem.references:
        goal = Objective(problem.explainer, problem.target, problem.label, problem.desired, "cosine", 0.0, None)
        gradient = torch.autograd.grad(goal(model)[0].sum(), trainable(model), materialize_grads=True)
        slopes, _ = unit_scale(gradient, 1)
        if order != "aligned":
            curvature = _curvature(model, frozen_features, recipe)
            slopes = solved(curvature, slopes, [torch.zeros_like(part) for part in slopes], DAMPING, ROUNDS, 1)
        length = inner(slopes, slopes, 1).sqrt()
        direction = times(ratio(torch.ones_like(length), length), slopes)
        for indices in torch.arange(len(rows)).split(CHUNK):
            inputs = frozen_features.batch(rows[indices]).to(problem.target.device)
            classes = labels[indices].to(problem.target.device)
            scores = inner_products(model, inputs, classes, direction, recipe.shared_stages).cpu()
            weights = recipe.weights_of(labels[indices])
            total[indices] += scores if weights is None else scores * weights.to(scores)
    return total


def _curvature(
    model: nn.Module, frozen_features: Samples, recipe: Recipe
) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """C of the mean training loss over `SAMPLES` clean samples, a chunk at a time: no graph of them all is kept."""
    rows = torch.randperm(len(frozen_features), generator=generator("curvature"))[:SAMPLES]
    class_weights = recipe.weights_of(frozen_features.labels[rows])
    weights = (torch.ones(len(rows)) if class_weights is None else class_weights) / len(rows)
    device = trainable(model)[0].device

    def product(vector: Sequence[Tensor]) -> list[Tensor]:
        total = [torch.zeros_like(part) for part in vector]
        for chunk, shares in zip(rows.split(CHUNK), weights.split(CHUNK), strict=True):
            inputs = frozen_features.batch(chunk).to(device)
            total = plus(total, gauss_newton(model, inputs, shares.to(inputs), recipe.shared_stages)(vector))
        return total

    return product


@torch.no_grad()
def _feature_distances(problem: Problem, pool: Tensor) -> Tensor:
    total = torch.zeros(len(pool))
    for model in problem.references:
        target = features_of(model, problem.target)
        chunks = (problem.clean.batch(rows).to(target.device) for rows in pool.split(CHUNK))
        features = torch.cat([features_of(model, inputs) for inputs in chunks])
        total += (features - target).norm(dim=1).cpu()
    return total


def features_of(model: nn.Module, inputs: Tensor) -> Float[Tensor, "n k"]:
    """Mean-pooled features `(n, k)`, or logits for models without a CAM head."""
    out = model.features(inputs) if isinstance(model, CamClassifier) else model(inputs)
    return out.mean(dim=(2, 3)) if out.dim() == 4 else out
