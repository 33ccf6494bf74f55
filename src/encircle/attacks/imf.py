"""IMF, the paper's attack: Algorithm 1, with the readings of docs/method.md as settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import CONFIGURED
from ..training import Ensemble
from ..training.derivatives import Product, loss_of, mixed_product
from ..training.frozen import trainable, trainable_forward
from .base import Problem
from .surrogate import Iteration, SurrogateAttack

Form = Literal["finite-difference", "exact"]

PAPER_SETTINGS: dict[str, Any] = {
    "kind": "imf",
    "distance": "none",
    "hinge": None,
    "step": "raw",
    "gamma": 1.0,
    "decay": False,
    "form": "finite-difference",
    "lower": "plain",
    "staggered": False,
    "restart": False,
    "poison_batch": "batch",
}
"""Settings that make `IMF` Algorithm 1 as printed (docs/method.md). The paper leaves the number of models, passes and copies of the target open."""

COMPARED = 16
"""Once an epoch the two forms are compared on so many poison samples, or on a quarter of them if that is less: it must cost little."""


def finite_difference(
    model: nn.Module,
    frozen_features: Float[Tensor, "p *features"],
    labels: Int[Tensor, "p"],
    attack_gradient: Sequence[Tensor],
    alpha: float,
    frozen: int,
) -> Float[Tensor, "p *features"]:
    """One model's share of Eq. 13: −(∇L_train(X_p; θ*) − ∇L_train(X_p; θ)), θ* = θ − α ∇L_adv (Eq. 12).

    Args:
        model: at θ, in eval mode; it is at θ again afterwards, bit for bit.
        frozen_features: what the frozen stages make of the poison (the poison itself, if none are frozen).
        labels: of the poison.
        attack_gradient: ∇_θ L_adv for each trainable parameter.
        alpha: α.
        frozen: number of frozen stages.
    """

    def gradient() -> Tensor:
        leaf = frozen_features.detach().requires_grad_()
        return torch.autograd.grad(loss_of(trainable_forward(model, leaf, frozen), labels), leaf)[0]

    parameters = trainable(model)
    present = gradient()
    cached = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, step in zip(parameters, attack_gradient, strict=True):
            parameter.sub_(alpha * step)
    ahead = gradient()
    with torch.no_grad():
        for parameter, value in zip(parameters, cached, strict=True):
            parameter.copy_(value)
    return present - ahead


def exact(
    model: nn.Module,
    frozen_features: Float[Tensor, "p *features"],
    labels: Int[Tensor, "p"],
    attack_gradient: Sequence[Tensor],
    alpha: float,
    frozen: int,
    product: Product = "reverse",
) -> Float[Tensor, "p *features"]:
    """What `finite_difference` is to first order in α: α ∇_X ⟨∇_θ L_train(X_p; θ), ∇_θ L_adv(θ)⟩.

    The two agree only while the look-ahead crosses no ReLU boundary.

    Args:
        model: as for `finite_difference`.
        frozen_features: likewise.
        labels: likewise.
        attack_gradient: likewise.
        alpha: likewise.
        frozen: likewise.
        product: as for `mixed_product`.
    """
    return alpha * mixed_product(model, frozen_features, labels, attack_gradient, frozen, product)


@final
@dataclass(frozen=True, config=CONFIGURED)
class IMF(SurrogateAttack):
    """Interpretation Manipulation Framework (Zhang, Gao & Su, KDD 2021, Algorithm 1).

    The defaults are our choice of what the paper leaves open, made on targets that are not reported on. The paper's own settings (`PAPER_SETTINGS`) are
    `distance="none", hinge=None, step="raw", gamma=1.0, decay=False, form="finite-difference", lower="plain", staggered=False, restart=False,
    poison_batch="batch"`.

    Args:
        alpha: α of the look-ahead, above 0 (paper: 0.001). In the exact form the sign and normalised steps depend on it only where `poison_weight` is
            not 0: δ is a multiple of α, and λ1's term is not.
        form: finite difference as in Eq. 13, or its exact first-order form.
        lower: step 3 by the recipe's own optimiser, or by plain SGD at rate α as printed in Eq. 14.
    """

    alpha: float = Field(default=0.001, gt=0)
    form: Form = "exact"
    lower: Literal["recipe", "plain"] = "recipe"
    kind: Literal["imf"] = Field(default="imf", kw_only=True)
    title = "IMF"
    about = (
        "The paper's attack: poison samples encircle the target among the model's features and drag its explanation towards the desired "
        "map. They are crafted while several models learn from them."
    )

    def _surrogates(self, problem: Problem) -> Ensemble:
        ensemble = problem.ensemble(*self.ensemble)
        if self.lower == "plain":
            ensemble.follow(
                replace(
                    ensemble.recipe, optimiser="sgd", lr=self.alpha, momentum=0.0, weight_decay=0.0, schedule="constant"
                )
            )
        return ensemble

    def _shares(
        self, iteration: Iteration, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "members p *features"], list[dict[str, float]]]:
        shares = self._in_form(self.form, iteration, model, members, attack_gradient)
        if not iteration.compare:
            return shares, [{} for _ in range(members)]
        # How far the two forms agree is worth knowing, and cheap once an epoch on a few samples.
        other: Form = "exact" if self.form == "finite-difference" else "finite-difference"
        few = max(min(COMPARED, len(iteration.labels) // 4), 1)
        sample = replace(iteration, frozen_features=iteration.frozen_features[:few], labels=iteration.labels[:few])
        other_shares = self._in_form(other, sample, model, members, attack_gradient)
        cosines = F.cosine_similarity(shares[:, :few].flatten(1), other_shares.flatten(1), eps=1e-30)
        return shares, [{"form_cosine": cosine} for cosine in cosines.tolist()]

    def _in_form(
        self, form: Form, iteration: Iteration, model: nn.Module, members: int, attack_gradient: Sequence[Tensor]
    ) -> Float[Tensor, "members p *features"]:
        rows, classes = iteration.repeated(members)
        frozen, product = iteration.ensemble.recipe.shared_stages, iteration.ensemble.path.product
        if form == "exact":
            delta = exact(model, rows, classes, attack_gradient, self.alpha, frozen, product)
        else:
            delta = finite_difference(model, rows, classes, attack_gradient, self.alpha, frozen)
        return iteration.class_weighted(delta, members)
