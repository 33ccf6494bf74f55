"""IMF, the paper's attack: Algorithm 1, with the readings of docs/method.md as settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import CONFIGURED
from ..threat import Budget
from ..training import Ensemble
from ..training.code_path import Product, loss_of, mixed_product, trainable
from ..training.fit import after, batches, before, hidden_samples, layer_noise, read_ahead, steps_per_epoch
from .base import Attack, Bases, Problem, Watch, choose_bases
from .objective import Distance, Objective

Form = Literal["finite-difference", "exact"]

COMPARED = 16
"""The two forms are compared once an epoch on so many poison samples, or on a quarter of them if that is less: it must cost nothing much."""


def finite_difference(
    model: nn.Module,
    hidden: Float[Tensor, "p *hidden"],
    labels: Int[Tensor, "p"],
    attack_gradient: Sequence[Tensor],
    alpha: float,
    frozen: int,
) -> Float[Tensor, "p *hidden"]:
    """One model's share of Eq. 13: −(∇L_train(X_p; θ*) − ∇L_train(X_p; θ)), θ* = θ − α ∇L_adv (Eq. 12).

    Args:
        model: at θ, in eval mode; it is at θ again afterwards, bit for bit.
        hidden: poison as the frozen stages see it (the poison itself, if none are frozen).
        labels: its labels.
        attack_gradient: ∇_θ L_adv for each trainable parameter.
        alpha: α.
        frozen: number of frozen stages.
    """

    def gradient() -> Tensor:
        leaf = hidden.detach().requires_grad_()
        return torch.autograd.grad(loss_of(after(model, leaf, frozen), labels), leaf)[0]

    parameters = trainable(model)
    here = gradient()
    cached = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, step in zip(parameters, attack_gradient, strict=True):
            parameter.sub_(alpha * step)
    ahead = gradient()
    with torch.no_grad():
        for parameter, value in zip(parameters, cached, strict=True):
            parameter.copy_(value)
    return here - ahead


def exact(
    model: nn.Module,
    hidden: Float[Tensor, "p *hidden"],
    labels: Int[Tensor, "p"],
    attack_gradient: Sequence[Tensor],
    alpha: float,
    frozen: int,
    product: Product = "reverse",
) -> Float[Tensor, "p *hidden"]:
    """What `finite_difference` is to first order in α: α ∇_X ⟨∇_θ L_train(X_p; θ), ∇_θ L_adv(θ)⟩.

    The two agree only while the look-ahead crosses no ReLU boundary. Arguments as there, and `product` as for `mixed_product`.
    """
    return alpha * mixed_product(model, hidden, labels, attack_gradient, frozen, product)


def stepped(delta: Float[Tensor, "p *shape"], rule: Literal["raw", "normalised", "sign"]) -> Float[Tensor, "p *shape"]:
    """The step rule s(δ): δ itself, δ over each sample's largest magnitude, or its sign."""
    if rule == "raw":
        return delta
    if rule == "sign":
        return delta.sign()
    largest = delta.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(delta.dtype).tiny)
    return delta / largest.reshape(-1, *[1] * (delta.dim() - 1))


@final
@dataclass(frozen=True, config=CONFIGURED)
class IMF(Attack):
    """Interpretation Manipulation Framework (Zhang, Gao & Su, KDD 2021, Algorithm 1).

    The defaults are our choice of what the paper leaves open, made on targets that are not reported on; the paper's own
    letter is `distance="none", hinge=None, step="raw", form="finite-difference", lower="plain", staggered=False,
    restart=False, poison_batch="batch"`.

    Args:
        models: K, the number of surrogates.
        epochs: E, passes over the poisoned set.
        alpha: α of the look-ahead (paper: 0.001); in the exact form the sign and normalised steps do not depend on it
            while `poison_weight` is 0 (δ is a multiple of α and λ1's term is not: α weighs one against the other).
        gamma: γ. For `raw` a factor on δ; otherwise the largest move of an entry, as a share of how far one may go.
        step: the step rule.
        decay: lower γ linearly to a tenth over the crafting.
        momentum: share of the last δ that is kept (after each is brought to unit scale).
        form: finite difference as in Eq. 13, or its exact first-order form.
        distance: D of the objective.
        poison_weight: λ1, pulls poison towards the target.
        label_weight: λ2.
        hinge: cross-entropy at the target up to here costs nothing; None is the paper's plain label term.
        poison_batch: δ covers the poison of the current mini-batch, or all of it.
        lower: step 3 by the recipe's own optimiser, or by plain SGD at rate α as printed in Eq. 14.
        staggered: models start at different stages of training; otherwise all are pre-trained to the end.
        restart: models that reach the end of the recipe begin anew from a fresh seed.
        target_share: share of the target among the bases.
    """

    models: int = Field(default=4, ge=1)
    epochs: int = Field(default=8, ge=1)
    alpha: float = Field(default=0.001, gt=0)
    gamma: float = Field(default=0.1, gt=0)
    step: Literal["raw", "normalised", "sign"] = "sign"
    decay: bool = True
    momentum: float = Field(default=0.0, ge=0, lt=1)
    form: Form = "exact"
    distance: Distance = "cosine"
    poison_weight: float = Field(default=0.0, ge=0)
    label_weight: float = Field(default=0.1, ge=0)
    hinge: float | None = Field(default=0.1, ge=0)
    poison_batch: Literal["batch", "all"] = "all"
    lower: Literal["recipe", "plain"] = "recipe"
    staggered: bool = True
    restart: bool = True
    target_share: float = Field(default=0.1, ge=0, le=1)
    kind: Literal["imf"] = Field(default="imf", kw_only=True)
    title = "IMF"
    needs_gradient: ClassVar[bool] = True

    @model_validator(mode="after")
    def _restarts_make_sense(self) -> IMF:
        if self.restart and not self.staggered:
            raise ValueError("restart would begin anew all models at once, as none is staggered; set restart: false")
        return self

    @property
    def ensemble(self) -> tuple[int, bool]:
        """K models, staggered or not."""
        return self.models, self.staggered

    def _craft(
        self, problem: Problem, budget: Budget, count: int, random: torch.Generator, watch: Watch
    ) -> tuple[Tensor, Bases]:
        bases = choose_bases(problem, budget, count, self.target_share)
        ensemble = problem.ensemble(*self.ensemble)
        if self.lower == "plain":
            ensemble.follow(
                replace(
                    ensemble.recipe, optimiser="sgd", lr=self.alpha, momentum=0.0, weight_decay=0.0, schedule="constant"
                )
            )
        objective = Objective(
            problem.explainer,
            problem.target,
            problem.label,
            problem.desired,
            self.distance,
            self.label_weight,
            self.hinge,
        )
        # Every copy has its own start inside the ball: identical copies would receive identical steps.
        noise = torch.rand(bases.inputs.shape, generator=random, dtype=bases.inputs.dtype) * 2 - 1
        start = bases.inputs + budget.entry_radius(bases.inputs) * noise
        poison = budget.project(start, bases.inputs, problem.legal.relaxed())
        with layer_noise("crafting", random.initial_seed()):
            return self._iterate(problem, budget, bases, ensemble, objective, poison, random, watch), bases

    def _iterate(
        self,
        problem: Problem,
        budget: Budget,
        bases: Bases,
        ensemble: Ensemble,
        objective: Objective,
        poison: Tensor,
        random: torch.Generator,
        watch: Watch,
    ) -> Tensor:
        """The loop of Algorithm 1."""
        device, frozen, legal = problem.target.device, ensemble.recipe.frozen_stages, problem.legal.relaxed()
        trunk = ensemble.learners[0].model  # with frozen stages, all members share it
        overwritten = bases.rows if budget.mode == "replace" else torch.full_like(bases.rows, -1)
        mixed = problem.clean.with_poison(poison, bases.labels, overwritten)
        clean = problem.hidden or hidden_samples(trunk, problem.clean, frozen)
        poison, base, wanted = poison.to(device), bases.inputs.to(device), bases.labels.to(device)
        velocity, radius = torch.zeros_like(poison), budget.entry_radius(poison)
        size = ensemble.recipe.batch_size
        planned = self.epochs * steps_per_epoch(len(mixed), size)
        iteration = 0
        for _ in range(self.epochs):
            order = [(rows, mixed.source[rows]) for rows in batches(len(mixed), size, random)]
            clean_rows = [rows[source < 0] for rows, source in order]
            poison_rows = [source[source >= 0] for _, source in order]
            parts = zip(clean_rows, poison_rows, read_ahead(clean, clean_rows), strict=True)
            for place, (outside, inside, seen) in enumerate(parts):
                chosen = inside if self.poison_batch == "batch" else torch.arange(len(poison))
                if len(chosen):
                    delta, notes = self._direction(
                        ensemble, objective, poison[chosen], wanted[chosen], compare=place == 0
                    )
                    if self.poison_weight:
                        delta = delta - self.poison_weight * 2 * (poison[chosen] - problem.target)
                    if self.momentum:
                        delta = velocity[chosen] = self.momentum * velocity[chosen] + stepped(delta, "normalised")
                    size_now = self.gamma * (1 - 0.9 * iteration / planned if self.decay else 1.0)
                    move = stepped(delta, self.step) * (size_now if self.step == "raw" else size_now * radius)
                    poison[chosen] = budget.project(poison[chosen] + move, base[chosen], legal)
                else:
                    notes = [{} for _ in ensemble.learners]
                with torch.no_grad():
                    mine = before(trunk, poison[inside], frozen)
                hidden = torch.cat([seen.to(device), mine])
                labels = torch.cat([problem.clean.labels[outside].to(device), wanted[inside]])
                for member, (lower, note) in enumerate(zip(ensemble.step(hidden, labels), notes, strict=True)):
                    watch.history.append(
                        {
                            "iteration": iteration,
                            "epoch": iteration * self.epochs / planned,
                            "member": member,
                            **note,
                            "lower": lower,
                        }
                    )
                if self.restart:
                    ensemble.restart_finished()
                iteration += 1
                watch.progress(iteration, planned)
        return poison

    def _direction(
        self, ensemble: Ensemble, objective: Objective, poison: Tensor, labels: Tensor, *, compare: bool
    ) -> tuple[Float[Tensor, "p *shape"], list[dict[str, float]]]:
        """δ of Eq. 13, averaged over the models, and what there is to note about each of them.

        With frozen stages the differences are averaged in the space that all models share, and brought back to the
        input by one backward pass through the shared stages, which is the same by linearity.
        """
        frozen, count = ensemble.recipe.frozen_stages, len(ensemble.learners)
        leaf = poison.detach().requires_grad_(frozen > 0)
        hidden = before(ensemble.learners[0].model, leaf, frozen)
        upper, far, entropy = objective(ensemble.joined, count)
        learnt = [trainable(model) for model, _ in ensemble.groups]
        flat = iter(torch.autograd.grad(upper.sum(), list(chain(*learnt)), materialize_grads=True))
        total, cosines = torch.zeros_like(hidden), list[float]()
        for (model, members), parameters in zip(ensemble.groups, learnt, strict=True):
            given = (ensemble, model, members, list(islice(flat, len(parameters))))
            first = self._shares(self.form, *given, hidden.detach(), labels)
            total += first.sum(dim=0) / count
            if compare:  # how far the two forms agree is worth knowing, and cheap once an epoch on a few samples
                form: Form = "exact" if self.form == "finite-difference" else "finite-difference"
                few = max(min(COMPARED, len(labels) // 4), 1)
                other = self._shares(form, *given, hidden.detach()[:few], labels[:few])
                mine = first[:, :few].flatten(1)
                cosines += F.cosine_similarity(mine, other.flatten(1), eps=1e-30).tolist()
        if (weights := ensemble.recipe.weights_of(labels)) is not None:  # L_train weighs a sample by its class
            total = total * weights.reshape(-1, *[1] * (total.dim() - 1)).to(total)
        seen = torch.stack([upper, far, entropy], dim=1).tolist()
        notes = [dict(zip(("upper", "distance", "label"), values, strict=True)) for values in seen]
        for note, cosine in zip(notes, cosines, strict=False):
            note["form_cosine"] = cosine
        if frozen == 0:
            return total, notes
        return torch.autograd.grad(hidden, leaf, total)[0], notes

    def _shares(
        self,
        form: Form,
        ensemble: Ensemble,
        model: nn.Module,
        members: int,
        attack_gradient: Sequence[Tensor],
        hidden: Float[Tensor, "p *hidden"],
        labels: Int[Tensor, "p"],
    ) -> Float[Tensor, "members p *hidden"]:
        """What each member of a group of the ensemble adds to δ."""
        rows, classes = hidden.repeat(members, *[1] * (hidden.dim() - 1)), labels.repeat(members)
        frozen, product = ensemble.recipe.frozen_stages, ensemble.path.product
        if form == "exact":
            found = exact(model, rows, classes, attack_gradient, self.alpha, frozen, product)
        else:
            found = finite_difference(model, rows, classes, attack_gradient, self.alpha, frozen)
        return found.reshape(members, -1, *hidden.shape[1:])
