"""What an attack is: it turns a problem and a budget into poison, and is not trusted to keep to the budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core import EncircleError, InputError
from ..data import Samples
from ..data.poison import Poison
from ..explain import Explainer
from ..goals import DesiredMap
from ..models import second_derivatives
from ..threat import Budget, Legal
from ..training import Ensemble, Recipe
from ..training.frozen import frozen_samples


@final
@dataclass(frozen=True)
class Problem:
    """Everything the attacker knows (§3.2): no victim and no victim's seed is in here.

    Attributes:
        clean: the clean training set.
        target: the target input `(1, *shape)`.
        label: the target's class c.
        desired: the desired map.
        explainer: what the victim will be explained with.
        ensemble: gives the attacker's K models, pre-trained on the clean set. It is called with K and whether they are staggered.
        recipe: how the victims learn, as far as the attacker knows.
        references: the attacker's own clean models, trained to the end.
        legal: legal values of a sample.
        frozen_features: what the recipe's frozen stages make of the clean set. None where it is not computed yet.
    """

    clean: Samples
    target: Float[Tensor, "1 *shape"]
    label: int
    desired: DesiredMap
    explainer: Explainer
    ensemble: Callable[[int, bool], Ensemble]
    recipe: Recipe
    references: Sequence[nn.Module]
    legal: Legal
    frozen_features: Samples | None = None

    def clean_features(self, model: nn.Module, frozen: int) -> Samples:
        """What a model's frozen stages make of the clean set: `frozen_features`, or computed now."""
        return self.frozen_features or frozen_samples(model, self.clean, frozen)


@final
@dataclass
class Watch:
    """Where an attack reports to.

    Attributes:
        history: rows for figures; docs/run-folder.md names their columns.
        progress: called with the steps that are done and the steps that are planned.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    progress: Callable[[int, int], None] = lambda done, planned: None


@final
@dataclass(frozen=True)
class Bases:
    """What poison is made from.

    Attributes:
        rows: `(p,)` rows of the clean set, -1 for the target.
        inputs: `(p, *shape)` with values in [0, 1].
        labels: `(p,)` class numbers.
    """

    rows: Int[Tensor, "p"]
    inputs: Float[Tensor, "p *shape"]
    labels: Int[Tensor, "p"]

    def overwritten(self, budget: Budget) -> Int[Tensor, "p"]:
        """`(p,)` rows of the clean set that the poison replaces; -1 for a sample that is added."""
        return self.rows.clone() if budget.mode == "replace" else torch.full_like(self.rows, -1)


class Attack(ABC):
    """A way to make poison. Settings in the constructor, data in the call.

    Attributes:
        kind: its name in cases, files and reports.
        title: its name for people.
        about: what it does, in a sentence or two for a report's glossary.
        needs_gradient: whether it differentiates through the explainer.
        retrains: whether models are trained by the whole recipe for every move of its poison.
        bounded: whether the budget's ball holds for it; WM as the paper has it is the one exception.
    """

    kind: str
    title: ClassVar[str]
    about: ClassVar[str] = ""
    needs_gradient: ClassVar[bool] = False
    retrains: ClassVar[bool] = False
    bounded: ClassVar[bool] = True

    @property
    def uses_explainer(self) -> bool:
        """Whether its poison depends on the explainer and the goal; victims of those that do not are shared."""
        return True

    @property
    def ensemble(self) -> tuple[int, bool] | None:
        """The ensemble it asks its problem for (K, whether staggered), so that many crafts can share one; None for none."""
        return None

    def check(self, model: nn.Module) -> None:  # noqa: B027 - most attacks take any model
        """Raise an `InputError` if this attack cannot be crafted on this model."""

    @final
    def __call__(self, problem: Problem, budget: Budget, random: torch.Generator, watch: Watch | None = None) -> Poison:
        """Make the poison.

        Args:
            problem: what is attacked.
            budget: how much poison, how far from its bases.
            random: all randomness of the attack.
            watch: where history and progress go.

        Returns:
            Poison inside the budget and with legal values. Both are verified here, whatever the attack did.

        Raises:
            InputError: the explainer cannot be attacked this way, or there is nothing to make poison from.
            EncircleError: the attack returned damaged poison or too much of it.
        """
        if self.needs_gradient and not problem.explainer.differentiable:
            raise InputError(
                f"{self.title} differentiates through the explainer and {type(problem.explainer).__name__} is not differentiable; "
                "choose another explainer or the attack watermark."
            )
        count = budget.size(len(problem.clean))
        if count == 0:
            none = torch.zeros(0, dtype=torch.int64)
            empty = problem.target[:0].cpu()
            return Poison(empty, none, none, empty, none)
        with second_derivatives():
            crafted, bases = self._craft(problem, budget, count, random, watch or Watch())
        samples = self._checked(crafted.detach().cpu(), bases, count)
        if self.bounded:
            samples = budget.project(samples, bases.inputs, problem.legal)
            if (excess := budget.excess(samples, bases.inputs)) > 0:
                raise EncircleError(
                    f"{self.title} left its budget by {excess:.3g} although projected; this is a bug, please report it."
                )
        else:
            samples = problem.legal.towards_base(samples.clamp(0, 1), bases.inputs)
        return Poison(samples, bases.labels, bases.rows, bases.inputs, bases.overwritten(budget))

    @final
    def _checked(self, samples: Tensor, bases: Bases, count: int) -> Tensor:
        # Before they are projected: that would stretch a wrong shape by broadcasting, and hide NaN in a legal value.
        if samples.shape != bases.inputs.shape or not bool(samples.isfinite().all()):
            raise EncircleError(f"{self.title} returned damaged poison (wrong shape or NaN); lower its step size.")
        if len(samples) > count:
            raise EncircleError(
                f"{self.title} made {len(samples)} samples where the budget allows {count}; this is a bug."
            )
        return samples

    @abstractmethod
    def _craft(
        self, problem: Problem, budget: Budget, count: int, random: torch.Generator, watch: Watch
    ) -> tuple[Float[Tensor, "p *shape"], Bases]:
        """`count` samples and their bases; projection and checks are the caller's."""
