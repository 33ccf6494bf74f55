"""Where the time goes inside the passes that decide the figures: shares of operators' own time, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import save, say
from benchmarks.networks import SIZES, recipe_of, samples_of, source_of
from encircle.training import Learner
from encircle.training.derivatives import mixed_product
from encircle.training.frozen import trainable

TOP = 6


def shares(work: Callable[[], Any]) -> dict[str, float]:
    """Each operator's share of the time, the largest first, and what is left."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            work()
    spent = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(spent.values())
    first = sorted(spent, key=lambda name: -spent[name])[:TOP]
    by_operator = {name: round(spent[name] / total, 3) for name in first}
    return {**by_operator, "all others": round(1 - sum(by_operator.values()), 3)}


def main() -> None:
    """Measure, print and save."""
    torch.set_num_threads(1)
    figures = {}
    for name in ("small-32-frozen", "resnet13-64"):
        size = SIZES[name]
        model = source_of(size).model(recipe_of(size), "victim", 0)
        samples = samples_of(size, size.batch)
        with torch.no_grad():
            frozen_features = model.early(samples.inputs, size.frozen)  # type: ignore[operator]
        along = [torch.randn_like(parameter) for parameter in trainable(model)]
        learner, labels = Learner(model, recipe_of(size), 1000), samples.labels

        def cosine(
            model: Any = model, frozen_features: Any = frozen_features, labels: Any = labels, size: Any = size
        ) -> None:
            leaf = frozen_features.clone().requires_grad_()
            loss = F.cross_entropy(model.late(leaf, size.frozen), labels)
            slopes = torch.autograd.grad(loss, trainable(model), create_graph=True)
            flat = torch.cat([slope.flatten() for slope in slopes])
            torch.autograd.grad(flat.sum() / flat.norm(), leaf)

        works: dict[str, Callable[[], Any]] = {
            "training step": lambda x=learner, h=frozen_features, y=labels: x.step(h, y),
            "exact form, forward over reverse": lambda m=model, h=frozen_features, y=labels, v=along, s=size: (
                mixed_product(m, h, y, v, s.frozen, "forward")
            ),
            "cosine form": cosine,
        }
        for title, work in works.items():
            figures[f"{size.title}: {title}"] = shares(work)
            say(f"{size.title}: {title}: {figures[f'{size.title}: {title}']}")
    save("profiles", "make bench", figures)


if __name__ == "__main__":
    main()
