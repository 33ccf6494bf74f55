"""Back-gradient: poison moves along the gradient of L_adv through the last steps of whole trainings on it."""

from __future__ import annotations

from typing import ClassVar, Literal, final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from ..core import CONFIGURED
from ..threat import Budget
from ..training.frozen import frozen_forward
from .base import Bases, Problem, Watch
from .bases import OtherShare
from .objective import Objective
from .optimised import Motion, OptimisedAttack
from .parameter_vectors import unit_scaled
from .through_training import LAST_STEPS, slopes_at_the_end

ROLE = "back-gradient"
"""What its models are trained as: seeds of their own."""


@final
@dataclass(frozen=True, config=CONFIGURED)
class BackGradient(OptimisedAttack):
    """Poison that lowers L_adv of models trained on it to the end.

    `δ = −∇_X L_adv(θ_end(X))` (Muñoz-González et al., AISec 2017). The last steps of the recipe are differentiated through, its optimiser included
    (truncated as by Shaban et al., AISTATS 2019). Earlier steps count as constants. For every move of the poison, models are trained anew from fresh
    seeds. That is exact where other attacks approximate, and affordable for small networks alone.

    Args:
        models: K, how many models are trained for each move.
        epochs: E, how often all poison moves.
        other_share: share of samples of other classes among the bases, in [0, 1]; each keeps its own label. `"balanced"`: as many of each class as
            the clean set has.
        last_steps: S, how many of a training's last steps are differentiated through. Memory grows with it.
    """

    models: int = Field(default=2, ge=1)
    epochs: int = Field(default=60, ge=1)
    other_share: OtherShare = 0.25
    last_steps: int = Field(default=LAST_STEPS, ge=1)
    kind: Literal["back-gradient"] = Field(default="back-gradient", kw_only=True)
    title = "back-gradient"
    about = "Poison that is moved by what it does to the explanation at the end of whole trainings on it."
    retrains: ClassVar[bool] = True

    @property
    def ensemble(self) -> tuple[int, bool]:
        """One model that has not learnt yet: all are trained here."""
        return 1, True

    def _iterate(
        self,
        problem: Problem,
        budget: Budget,
        bases: Bases,
        objective: Objective,
        poison: Tensor,
        random: torch.Generator,
        watch: Watch,
    ) -> Tensor:
        ensemble, device = problem.ensemble(*self.ensemble), problem.target.device
        trunk, frozen = ensemble.learners[0].model, ensemble.recipe.shared_stages
        clean = problem.clean_features(trunk, frozen)
        poison, labels, overwritten = poison.to(device), bases.labels, bases.overwritten(budget)
        motion = Motion(self, budget, bases.inputs.to(device), problem.target, problem.legal.relaxed())
        first = int(torch.randint(2**40, (1,), generator=random))
        for move in range(self.epochs):
            leaf = poison.detach().requires_grad_(frozen > 0)
            frozen_features = frozen_forward(trunk, leaf, frozen)
            mixed = clean.with_poison(frozen_features.detach(), labels, overwritten)
            seeds = range(first + move * self.models, first + (move + 1) * self.models)
            slopes, notes = slopes_at_the_end(
                ensemble,
                objective,
                frozen_features.detach(),
                mixed,
                ROLE,
                seeds,
                of="poison",
                last_steps=self.last_steps,
            )
            # Trainings differ in how steep they end. All of them weigh alike.
            total = -unit_scaled(slopes).sum(dim=0)
            for member, note in enumerate(notes):
                watch.history.append({"iteration": move, "epoch": float(move), "member": member, **note})
            delta = torch.autograd.grad(frozen_features, leaf, total)[0] if frozen else total
            motion.move(poison, torch.arange(len(poison)), delta, move / self.epochs)
            watch.progress(move + 1, self.epochs)
        return poison
