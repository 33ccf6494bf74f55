"""What makes training faster: models at once, frozen stages from stored features, and other means.

Every figure is the time of the slow way over that of the other, from repeats in turn: above 1 the other is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.measure import RESULTS, in_turn, ratios, save, say
from benchmarks.networks import SIZES, ensemble_of, path_of, problem_of, recipe_of, samples_of, source_of
from encircle.attacks import IMF, Watch
from encircle.threat import Budget
from encircle.training import CodePath, Source, fit
from encircle.training.fit import fit_on_features
from encircle.training.frozen import frozen_samples

REPEATS = 3
KINDS = ("ensemble", "victims", "channels_last", "threads", "alternatives")


def ensembles(name: str, members: int, device: str) -> dict[str, Any]:
    """One training step of K models and δ of all of them: a plain loop over `torch.func`.

    Args:
        name: of a network in `SIZES`.
        members: K.
        device: of the models.
    """
    size, times = SIZES[name], {}
    for what in ("training step", "crafting iteration"):
        works = []
        for way in ("loop", "vectorised"):
            path = CodePath(members=way)  # type: ignore[arg-type]
            if what == "training step":
                ensemble = ensemble_of(source_of(size, device), recipe_of(size), members, path)
                data = frozen_samples(ensemble.learners[0].model, samples_of(size, size.batch), size.frozen)
                rows = torch.arange(size.batch)
                batch, labels = data.batch(rows).to(device), data.labels.to(device)
                works.append(lambda e=ensemble, b=batch, c=labels: e.step(b, c))
            else:
                problem = problem_of(size, "CAM", path=path, clean=size.batch, device=device)
                imf = IMF(models=members, epochs=1, restart=False, staggered=False, target_share=0.0)
                budget = Budget(count=size.poisons - 1)
                works.append(lambda p=problem, i=imf, b=budget: i(p, b, torch.Generator().manual_seed(0), Watch()))
        slow, fast = in_turn(works, REPEATS)
        times[what] = ratios(slow, fast)
    chosen = path_of(size, members, device)
    say(f"ensemble of {members}, {size.title}: {times}; chosen: {chosen.members}")
    return {"network": name, "title": size.title, "K": members, "chosen": chosen.members, **times}


def victims(name: str, count: int, device: str, epochs: int) -> dict[str, Any]:
    """Training V victims one after another over training them at once, and from stored frozen features.

    Args:
        name: of a network in `SIZES`.
        count: V.
        device: of the models.
        epochs: of the recipe.
    """
    size = SIZES[name]
    source, recipe, samples = source_of(size, device), recipe_of(size, epochs=epochs), samples_of(size, 4 * size.batch)
    frozen_features = frozen_samples(source.model(recipe, "victim", 0), samples, size.frozen)
    seeds = list(range(count))

    def in_sequence() -> None:
        for seed in seeds:
            _full_passes(source, recipe, samples, seed, size.frozen)

    works: list[Callable[[], Any]] = [
        in_sequence,
        lambda: [fit(source, recipe, samples, "victim", seed) for seed in seeds],
        lambda: fit_on_features(source, recipe, frozen_features, "victim", seeds, "loop"),
        lambda: fit_on_features(source, recipe, frozen_features, "victim", seeds, "vectorised"),
    ]
    plain, own_features, shared_features, at_once = in_turn(works, REPEATS)
    times = {
        "features of each victim's own": ratios(plain, own_features),
        "features kept for all victims": ratios(plain, shared_features),
        "at once": ratios(plain, at_once),
    }
    say(f"{count} victims, {size.title}: {times}")
    return {"network": name, "title": size.title, "victims": count, **times}


def _full_passes(source: Source, recipe: Any, samples: Any, seed: int, frozen: int) -> None:
    """A victim trained the simple way: every batch goes through the whole network."""
    model = source.model(recipe, "victim", seed)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(learnt, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    random = torch.Generator().manual_seed(seed)
    model.train()
    if frozen:
        for stage in model.stages[:frozen]:  # type: ignore[union-attr, index]
            stage.eval()
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(samples), generator=random).split(recipe.batch_size):
            inputs, labels = samples.batch(rows).to(source.device), samples.labels[rows].to(source.device)
            optimiser.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimiser.step()
    model.eval()


def memory_format(name: str) -> dict[str, Any]:
    """Contiguous over channels_last: a training step, and a crafting iteration with either product."""
    size, times = SIZES[name], {}
    for product in ("reverse", "forward"):
        works = []
        for layout in (torch.contiguous_format, torch.channels_last):
            problem = problem_of(size, "CAM", path=CodePath(product=product), clean=size.batch)  # type: ignore[arg-type]
            make = problem.ensemble

            def ensemble(members: int, staggered: bool, make: Any = make, layout: Any = layout) -> Any:
                made = make(members, staggered)
                for learner in made.learners:
                    learner.model.to(memory_format=layout)
                return made

            object.__setattr__(problem, "ensemble", ensemble)
            imf = IMF(models=1, epochs=2, restart=False, staggered=False, target_share=0.0)
            budget = Budget(count=size.poisons - 1)
            works.append(lambda p=problem, i=imf, b=budget: i(p, b, torch.Generator().manual_seed(0), Watch()))
        slow, fast = in_turn(works, REPEATS)
        times[f"crafting, {product}"] = ratios(slow, fast)
    works = []
    for layout in (torch.contiguous_format, torch.channels_last):
        ensemble = ensemble_of(source_of(size), recipe_of(size), 1)
        ensemble.learners[0].model.to(memory_format=layout)
        data = frozen_samples(ensemble.learners[0].model, samples_of(size, size.batch), size.frozen)
        batch = data.batch(torch.arange(size.batch))
        works.append(lambda e=ensemble, b=batch, c=data.labels: e.step(b, c))
    slow, fast = in_turn(works, 3 * REPEATS)
    times["training step"] = ratios(slow, fast)
    say(f"channels_last, {size.title}: {times}")
    return {"network": name, "title": size.title, **times}


def alternatives(name: str, device: str) -> dict[str, Any]:
    """Plain float32 training over bf16, and over `torch.compile`: a step each, and what compiling costs."""
    size = SIZES[name]
    source, recipe, samples = source_of(size, device), recipe_of(size), samples_of(size, size.batch)
    inputs, labels = samples.inputs.to(device), samples.labels.to(device)
    plain = source.model(recipe, "victim", 0).train()
    compiled = torch.compile(copy.deepcopy(plain))

    def step(model: Any, half: bool) -> Callable[[], Any]:
        learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.SGD(learnt, 1e-3, 0.9)
        autocast = torch.autocast(torch.device(device).type, torch.bfloat16) if half else contextlib.nullcontext()

        def run() -> None:
            optimiser.zero_grad()
            with autocast:
                loss = F.cross_entropy(model(inputs), labels)
            loss.backward()
            optimiser.step()

        return run

    fast = step(compiled, False)
    started = time.perf_counter()
    fast()
    cost = time.perf_counter() - started
    full, half, fused = in_turn([step(plain, False), step(copy.deepcopy(plain), True), fast], 3 * REPEATS)
    times = {"bf16": ratios(full, half), "compiled": ratios(full, fused)}
    say(f"alternatives, {size.title}: {times}, compiling {cost:.0f} s")
    return {"network": name, "title": size.title, **times, "seconds to compile": round(cost, 1)}


def _craft_alone(name: str, threads: int, iterations: int) -> None:
    torch.set_num_threads(threads)
    size = SIZES[name]
    imf = IMF(models=2, epochs=iterations, restart=False, staggered=False, target_share=0.0)
    problem = problem_of(size, "CAM", clean=size.batch)
    imf(problem, Budget(count=size.poisons - 1), torch.Generator().manual_seed(0), Watch())


def threads(name: str, iterations: int) -> dict[str, Any]:
    """Two crafts by one process of two threads, one after the other, over two processes of one thread at once.

    Raises:
        SystemExit: a process failed.
    """
    context = multiprocessing.get_context("spawn")

    def run(count: int, process_threads: int, work: int) -> float:
        started = time.perf_counter()
        running = [context.Process(target=_craft_alone, args=(name, process_threads, work)) for _ in range(count)]
        for process in running:
            process.start()
        for process in running:
            process.join()
        if any(process.exitcode for process in running):
            raise SystemExit("a process of the measurement failed")
        return time.perf_counter() - started

    starting = run(1, 1, 1)  # importing torch is not what is compared
    together, alone = [], []
    for _ in range(3):
        together.append(run(2, 1, iterations) - starting)
        alone.append(run(1, 2, 2 * iterations) - starting)
    times = ratios(alone, together)
    say(f"two processes of one thread, {SIZES[name].title}: {times}")
    return {"network": name, "title": SIZES[name].title, "two processes of one thread": times}


def measured(kind: str, device: str, large: bool) -> Iterator[dict[str, Any]]:
    """The rows of one kind, as they are measured.

    Args:
        kind: one of `KINDS`.
        device: of the models.
        large: whether larger networks have K = 8, too.
    """
    if kind == "ensemble":
        for name in ("table", "small-32", "resnet13-64"):
            for members in (4, 8) if name != "resnet13-64" or large else (4,):
                yield ensembles(name, members, device)
    elif kind == "victims":
        for name, epochs in (("table", 20), ("small-32", 2), ("small-32-frozen", 4), ("resnet13-64-frozen", 1)):
            yield victims(name, 3, device, epochs)
    elif kind == "alternatives":
        yield from (alternatives(name, device) for name in ("small-32", "resnet13-64"))
    elif kind == "channels_last" and device == "cpu":
        yield from (memory_format(name) for name in ("small-32", "resnet13-64"))
    elif kind == "threads" and device == "cpu" and len(os.sched_getaffinity(0)) > 1:
        yield from (threads(name, iterations) for name, iterations in (("small-32", 40), ("resnet13-64", 5)))


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=KINDS, help="measure this alone, and keep the other figures")
    parser.add_argument("--large", action="store_true", help="the larger networks at K = 8 too")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, list[Any]] = {}
    if wanted.only:
        figures = json.loads((RESULTS / "training.json").read_text(encoding="utf-8"))["figures"]
    for kind in [wanted.only] if wanted.only else KINDS:
        figures[kind] = []
        for row in measured(kind, wanted.device, wanted.large):
            figures[kind].append(row)
            save("training", "make bench", figures, wanted.device)


if __name__ == "__main__":
    main()
