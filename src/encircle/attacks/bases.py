"""What poison is made from: samples of the target's class, of other classes, and the target itself (§4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core import InputError
from ..data import Samples
from ..models import CamClassifier
from ..threat import Budget, Legal
from ..training.code_path import inner_products, trainable
from ..training.fit import hidden_samples
from .base import Bases, Problem
from .objective import Objective

Order = Literal["nearest", "aligned"]
"""Which samples are taken first."""

Turn = Callable[[nn.Module, Sequence[Tensor]], list[Tensor]]
"""From a model and ∇_θ D to the direction in which training should go."""

CHUNK = 256
"""Samples that pass through a model at once."""


def choose_bases(
    problem: Problem,
    budget: Budget,
    count: int,
    target_share: float,
    other_share: float = 0.0,
    order: Order = "nearest",
    dirty_label: bool = False,
    repeats: int = 1,
    turned: Turn | None = None,
) -> Bases:
    """Samples of the target's class, nearest to the target in feature space first, and copies of the target (§4.1).

    They are drawn without replacement, then used again from the first on. Features are the mean-pooled last feature
    maps of the attacker's own models (logits, for models without a CAM head). Samples of other classes, which keep their own labels, are an
    extension of the paper: they can teach a model that what lies outside the desired map does not speak for the class. So are repeats: few samples that
    teach what is wanted, many times, teach it better than many that do not.

    Args:
        problem: what is attacked.
        budget: in `replace` mode a row can be overwritten once.
        count: how many.
        target_share: share of them that are the target itself.
        other_share: share of them that are of other classes, whichever come first.
        order: `"nearest"` is the paper's; `"aligned"` takes those first whose own training gradient bends the explanation most (`alignment`).
        dirty_label: those of other classes are labelled as the target's class all the same.
        repeats: how often each sample is used before the next one in order is; only where rows are not overwritten.
        turned: of `alignment`.

    Raises:
        InputError: nothing to choose from, or too little to overwrite.
    """
    same = problem.clean.labels == problem.label
    copies, others = round(target_share * count), round(other_share * count)
    labels = torch.full_like(problem.clean.labels, problem.label) if dirty_label else problem.clean.labels
    drawn = []
    for pool, many, what in (
        (same, max(count - copies - others, 0), f"of class {problem.label}"),
        (~same, others, "of other classes"),
    ):
        rows = pool.nonzero()[:, 0]
        if many:
            _check_pool(budget, len(rows), many, what)
            keys = (
                _feature_distances(problem, rows)
                if order == "nearest"
                else -alignment(problem, rows, labels[rows], turned)
            )
            rows = rows[keys.argsort(stable=True)]
        different = many if budget.mode == "replace" else -(-many // repeats)
        drawn.append(rows[torch.arange(many) % max(min(different, len(rows)), 1)])
    rows = torch.cat([*drawn, torch.full((copies,), -1)])[:count]
    given = torch.where(rows < 0, problem.label, labels[rows.clamp(min=0)])
    return Bases(rows, base_inputs(problem.clean, problem.target, problem.legal, rows), given)


def _check_pool(budget: Budget, there: int, wanted: int, what: str) -> None:
    if there == 0:
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
    problem: Problem, rows: Int[Tensor, "rows"], labels: Int[Tensor, "rows"], turned: Turn | None = None
) -> Float[Tensor, "rows"]:
    """How far a step of training on each sample as it is would bend the target's explanation: ⟨∇_θ L_train(x), ∇_θ D⟩ on the attacker's own models.

    D is the centred cosine. Each model's direction counts with unit length, each sample with its class's weight in L_train. A sample that models are sure of
    has next to no gradient, and no alignment either: what is taken first is aligned *and* still has something to teach.

    Args:
        problem: what is attacked.
        rows: of the clean set.
        labels: what they will be labelled as.
        turned: what stands for ∇_θ D, made of a model and that; it itself, if None.
    """
    recipe = problem.recipe.for_labels(problem.clean.labels)
    hidden = seen_by_frozen(problem)
    total = torch.zeros(len(rows))
    for model in problem.references:
        goal = Objective(problem.explainer, problem.target, problem.label, problem.desired, "cosine", 0.0, None)
        slopes: Sequence[Tensor] = torch.autograd.grad(goal(model)[0].sum(), trainable(model), materialize_grads=True)
        slopes = slopes if turned is None else turned(model, slopes)
        length = torch.stack([slope.norm() for slope in slopes]).norm().clamp(min=torch.finfo(slopes[0].dtype).tiny)
        direction = [slope / length for slope in slopes]
        for places in torch.arange(len(rows)).split(CHUNK):
            some = rows[places]
            inputs, classes = hidden.batch(some).to(length.device), labels[places].to(length.device)
            found = inner_products(model, inputs, classes, direction, recipe.frozen_stages).cpu()
            weights = recipe.weights_of(labels[places])
            total[places] += found if weights is None else found * weights.to(found)
    return total


def seen_by_frozen(problem: Problem) -> Samples:
    """The clean set as the frozen stages see it."""
    return problem.hidden or hidden_samples(problem.references[0], problem.clean, problem.recipe.frozen_stages)


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
