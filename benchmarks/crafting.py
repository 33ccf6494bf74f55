"""One crafting iteration over its floor, the separately timed passes that it cannot do without.

The floor is written out here in plain PyTorch, with nothing from the library but the networks: for each of K models the
θ-gradient of L_adv, the poison passes of the chosen form and one training step; with frozen stages, one pass of the poison through
them forwards and backwards, and one of the mini-batch's poison forwards, for all models together. Every pass is timed for one model, between
iterations of the attack as it runs, and counted K times.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import ratios, save, say, seconds
from benchmarks.networks import SIZES, Size, path_of, problem_of, recipe_of
from encircle.attacks import IMF, Problem, Watch
from encircle.models import CamClassifier
from encircle.threat import Budget
from encircle.training import CodePath

FORMS = ("exact", "finite-difference")


class Floor:
    """The passes that an iteration cannot do without, each as a function of no arguments.

    Args:
        problem: what is attacked.
        model: one of the K models.
        form: of δ.
        forward: whether the exact form goes forward over reverse.
        size: of everything.
    """

    def __init__(self, problem: Problem, model: CamClassifier, form: str, forward: bool, size: Size) -> None:
        self.model = copy.deepcopy(model)
        self.learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        recipe = recipe_of(size)
        self.optimiser = torch.optim.SGD(self.learnt, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
        self.frozen, self.target, self.label = size.frozen, problem.target, torch.tensor([problem.label])
        self.label = self.label.to(problem.target.device)
        self.goal = problem.desired.values.to(problem.target)
        self.is_cam = getattr(problem.explainer, "kind", "") == "cam"
        rows = torch.arange(size.poisons)
        self.poison = problem.clean.batch(rows).to(problem.target)
        self.labels = problem.clean.labels[rows].to(problem.target.device)
        with torch.no_grad():
            self.frozen_features = self.model.early(self.poison, self.frozen).contiguous()
        rows = torch.arange(size.batch)
        self.batch = (problem.frozen_features or problem.clean).batch(rows).to(problem.target)
        self.classes = problem.clean.labels[rows].to(problem.target.device)
        self.inside = self.poison[: max(1, size.batch * size.poisons // (len(problem.clean) + size.poisons))]
        self.direction = [torch.randn_like(parameter) for parameter in self.learnt]
        self.form, self.forward = form, forward

    def model_passes(self) -> list[Callable[[], Any]]:
        """Passes that are needed once for every model."""
        poison = self.by_differences if self.form == "finite-difference" else self.by_product
        return [self.attack_gradient, poison, self.training_step]

    def shared_passes(self) -> list[Callable[[], Any]]:
        """Passes that are needed once, whatever K is."""
        return [self.trunk_there_and_back, self.trunk_of_the_batch] if self.frozen else []

    def attack_gradient(self) -> Any:
        """∇_θ (1 − cosine of map and goal + label term)."""
        if self.is_cam:
            features = self.model.features(self.target)
            logits, weights = self.model.classify(features), self.model.head.weight[self.label]
            maps = weights * features if features.dim() == 2 else (weights[:, :, None, None] * features).sum(dim=1)
        else:
            leaf = self.target.clone().requires_grad_()
            features = self.model.features(leaf)
            logits = self.model.classify(features)
            maps = torch.autograd.grad(logits.softmax(dim=1)[0, self.label[0]], leaf, create_graph=True)[0].abs()
            if maps.dim() == 4:
                maps = F.adaptive_avg_pool2d(maps.amax(dim=1), features.shape[2:])
        first, second = maps.flatten() - maps.mean(), self.goal.flatten() - self.goal.mean()
        far = 1 - (first @ second) / (first.norm() * second.norm())
        term = (F.cross_entropy(logits, self.label) - 0.1).clamp(min=0)
        return torch.autograd.grad(far + 0.1 * term, self.learnt, allow_unused=True)

    def _loss(self, frozen_features: Tensor) -> Tensor:
        return F.cross_entropy(self.model.late(frozen_features, self.frozen), self.labels, reduction="sum")

    def by_differences(self) -> Any:
        """Two gradients at the poison."""
        for _ in range(2):
            leaf = self.frozen_features.requires_grad_()
            torch.autograd.grad(self._loss(leaf), leaf)

    def by_product(self) -> Any:
        """The mixed second derivative along a direction."""
        leaf = self.frozen_features.requires_grad_()
        if not self.forward:
            slopes = torch.autograd.grad(self._loss(leaf), self.learnt, create_graph=True)
            inner = sum((slope * part).sum() for slope, part in zip(slopes, self.direction, strict=True))
            return torch.autograd.grad(inner, leaf)
        late = _Late(self.model, self.frozen)
        names = [name for name, value in late.named_parameters() if value.requires_grad]
        with torch.autograd.forward_ad.dual_level():
            dual = {
                name: torch.autograd.forward_ad.make_dual(value.detach(), along)
                for name, value, along in zip(names, self.learnt, self.direction, strict=True)
            }
            loss = F.cross_entropy(torch.func.functional_call(late, dual, (leaf,)), self.labels, reduction="sum")
            return torch.autograd.forward_ad.unpack_dual(torch.autograd.grad(loss, leaf)[0]).tangent

    def training_step(self) -> None:
        """Forward, backward and the optimiser."""
        for part in [*self.model.stages[self.frozen :], self.model.head]:
            part.train()
        self.optimiser.zero_grad()
        F.cross_entropy(self.model.late(self.batch, self.frozen), self.classes).backward()
        self.optimiser.step()
        self.model.eval()

    def trunk_there_and_back(self) -> Any:
        """The poison through the frozen stages, forwards and backwards."""
        leaf = self.poison.requires_grad_()
        out = self.model.early(leaf, self.frozen)
        return torch.autograd.grad(out, leaf, torch.ones_like(out))

    @torch.no_grad()
    def trunk_of_the_batch(self) -> Any:
        """The mini-batch's moved poison through the frozen stages."""
        return self.model.early(self.inside, self.frozen)


class _Late(nn.Module):
    def __init__(self, model: CamClassifier, frozen: int) -> None:
        super().__init__()
        self.model, self.frozen = model, frozen

    def forward(self, frozen_features: Tensor) -> Tensor:
        return self.model.late(frozen_features, self.frozen)


class _Enough(Exception):  # noqa: N818 - not an error
    pass


def over_floor(name: str, explainer: str, members: int, form: str, path: CodePath, *, limit: float, device: str) -> Any:
    """Iterations and floors in turn, for about `limit` seconds and at least three times.

    Args:
        name: of a network in `SIZES`.
        explainer: `"CAM"` or `"GRAD"`.
        members: number of surrogates.
        form: of δ.
        path: how models are computed.
        limit: in seconds.
        device: of the models.
    """
    size = SIZES[name]
    problem = problem_of(size, explainer, path=path, device=device)
    model = cast(CamClassifier, problem.ensemble(1, False).learners[0].model)
    floor = Floor(problem, model, form, path.product == "forward", size)
    model_passes, shared_passes = floor.model_passes(), floor.shared_passes()
    for work in [*model_passes, *shared_passes]:
        work()
    spent: list[float] = []
    floors: list[float] = []
    parts: list[list[float]] = []
    begun = time.perf_counter()
    last = [0.0]

    def between(done: int, planned: int) -> None:
        now = time.perf_counter()
        if done > 1:  # the first warms up
            spent.append(now - last[0])
            times = [seconds(work) for work in model_passes]
            floors.append(members * sum(times) + sum(seconds(work) for work in shared_passes))
            parts.append(times)
            if len(spent) >= 3 and time.perf_counter() - begun > limit:
                raise _Enough
        if device != "cpu":
            torch.cuda.synchronize()
        last[0] = time.perf_counter()

    imf = IMF(models=members, epochs=200, form=form, restart=False, staggered=False)  # type: ignore[arg-type]
    with contextlib.suppress(_Enough):
        imf(problem, Budget(count=size.poisons), torch.Generator().manual_seed(0), Watch(progress=between))
    return {
        "network": name,
        "title": size.title,
        "explainer": explainer,
        "K": members,
        "form": form,
        "path": {"members": path.members, "product": path.product},
        "over floor": ratios(spent, floors),
        "milliseconds": round(1000 * statistics.median(spent), 2),
        "floor milliseconds": round(1000 * statistics.median(floors), 2),
        "passes of one model, milliseconds": [
            round(1000 * statistics.median(part), 2) for part in zip(*parts, strict=True)
        ],
        "repeats": len(spent),
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=list(SIZES))
    parser.add_argument("--models", nargs="*", type=int, default=[1, 4, 8])
    parser.add_argument("--limit", type=float, default=6.0, help="seconds a case, if three repeats fit")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="crafting")
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    rows = []
    for name in wanted.networks:
        for members in wanted.models:
            path = path_of(SIZES[name], members, wanted.device)
            for explainer in ("CAM", "GRAD"):
                for form in FORMS:
                    row = over_floor(name, explainer, members, form, path, limit=wanted.limit, device=wanted.device)
                    rows.append(row)
                    say(
                        f"{row['title']}, {explainer}, K = {members}, {form}: {row['over floor']['median']} of its floor "
                        f"({row['milliseconds']} ms; {path.members}, {path.product})"
                    )
        save(wanted.out, "make bench", rows, wanted.device)


if __name__ == "__main__":
    main()
