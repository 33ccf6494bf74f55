"""Training a model by a recipe, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import InputError
from ..data import Samples, TensorSamples
from ..models import Adapter, Way, batch_norms, feasible, fitting, layout_of, split, stacked
from ..seeds import derive_seed, generator
from .augmentation import flipped_and_shifted
from .code_path import trainable
from .recipe import Recipe

HIDDEN_BYTES = 1 << 30
"""Outputs of frozen stages are kept for a whole training if they fit in this many bytes, and recomputed otherwise."""

CHUNK = 256
"""Samples that pass through a model at once where no training says how many."""


@final
class Source:
    """Where models start: a way to build one, and the checkpoint for recipes that start from one.

    Args:
        build: makes the network with fresh weights; called with torch's global generator seeded.
        checkpoint: weights by name, or None.
        device: where models live.
        others: checkpoints besides; a model's seed says which of them all it starts from.

    Raises:
        InputError: this machine has no such device.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        checkpoint: dict[str, Tensor] | None = None,
        device: str | torch.device = "cpu",
        *,
        others: Sequence[dict[str, Tensor]] = (),
    ) -> None:
        self.build = build
        self.checkpoint = checkpoint
        self.others = tuple(others)
        self.device = available(device)

    def model(self, recipe: Recipe, role: str, seed: int) -> nn.Module:
        """A model at the start of this recipe, its early stages frozen, in eval mode.

        Raises:
            InputError: the recipe wants a checkpoint and there is none, or the checkpoint does not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(role, "start", seed))
            model = self.build()
        if recipe.start == "checkpoint":
            if self.checkpoint is None:
                raise InputError(
                    "the recipe starts from a checkpoint but there is none; give weights or a pre-training recipe."
                )
            checkpoints = (self.checkpoint, *self.others)
            taken, _ = fitting(checkpoints[seed % len(checkpoints)], model)
            model.load_state_dict(taken, strict=False)
        early, frozen = split(model, recipe.frozen_stages)
        if early is not None:
            for stage in early.stages[:frozen]:
                stage.requires_grad_(False)
        layout = self.build.layout(model) if isinstance(self.build, Adapter) else layout_of(model)
        return model.to(self.device, memory_format=layout).eval()  # type: ignore[call-overload, no-any-return]


def available(device: str | torch.device) -> torch.device:
    """The device, if this machine has it.

    Raises:
        InputError: torch knows no such device, or finds none here.
    """
    try:
        chosen = torch.device(device)
        usable = chosen.type != "meta" and bool(torch.zeros(1, device=chosen).cpu()[0] == 0)
    except Exception:
        usable = False
    if not usable:
        raise InputError(
            f"torch finds no device {str(device)!r} on this machine; choose cpu, or a machine that has it."
        )
    return chosen


@final
class Learner:
    """One model in training, or several as one (`models.stacked`): its optimiser and place in the recipe.

    Args:
        model: at its start, early stages already frozen.
        recipe: how it learns.
        steps: how many steps the whole training takes; for the schedule.
        members: how many models it is.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int, *, members: int = 1) -> None:
        self.model = model
        self.recipe = recipe
        self.steps = steps
        self.members = members
        self.optimiser = recipe.build_optimiser(model)
        self.taken = 0

    def step(self, hidden: Float[Tensor, "b *hidden"], labels: Int[Tensor, "b"]) -> float:
        """One step on outputs of the frozen stages (on inputs, if none are frozen); returns the mean cross-entropy."""
        with in_training(self.model, self.recipe):
            return self.advance(hidden, labels)

    def advance(self, hidden: Float[Tensor, "b *hidden"], labels: Int[Tensor, "b"]) -> float:
        """Like `step`, for a model that is in training mode already."""
        if len(labels) < 2 * self.members:
            return float("nan")  # batch normalisation cannot learn from one sample
        losses = losses_of(self.model, hidden, labels, self.recipe, self.members)
        self.follow(torch.autograd.grad(losses.sum(), trainable(self.model), allow_unused=True))
        return float(losses.detach().mean())

    def follow(self, gradients: Sequence[Tensor | None]) -> None:
        """One step of the optimiser along these gradients of the trainable parameters."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.taken / self.steps)
        parameters = trainable(self.model)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimiser.step()
        for parameter in parameters:
            parameter.grad = None
        self.taken += 1


def losses_of(
    model: nn.Module,
    hidden: Float[Tensor, "b *hidden"],
    labels: Int[Tensor, "b"],
    recipe: Recipe,
    members: int = 1,
    counts: Float[Tensor, "b"] | None = None,
) -> Float[Tensor, "members"]:
    """Each member's mean cross-entropy, with its graph; the model is in training mode. Augmentation draws from torch's global generator.

    A sample's loss counts what its class does, times what it counts itself where that is said.
    """
    if recipe.augmentation is not None:
        hidden = flipped_and_shifted(hidden)
    if recipe.precision == "bfloat16":
        with torch.autocast(hidden.device.type, torch.bfloat16):
            logits = after(model, hidden, recipe.shared_stages)
    else:
        logits = after(model, hidden, recipe.shared_stages)
    losses = F.cross_entropy(logits.to(hidden.dtype), labels, reduction="none")
    if (weights := recipe.weights_of(labels)) is not None:
        losses = losses * weights.to(losses)
    if counts is not None:
        losses = losses * counts
    means: Tensor = losses.unflatten(0, (members, -1)).mean(dim=1)
    return means


@contextmanager
def in_training(model: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Put the model into training mode, and into eval mode again afterwards."""
    training_mode(model, recipe)
    try:
        yield
    finally:
        model.eval()


def training_mode(model: nn.Module, recipe: Recipe) -> None:
    """Train mode, but for the frozen stages and, where the recipe says so, every batch normalisation: their statistics must not move."""
    model.train()
    if recipe.batch_norm == "frozen":
        for layer in batch_norms(model):
            layer.eval()
    early, count = split(model, recipe.frozen_stages)
    if early is not None:
        for stage in early.stages[:count]:
            stage.eval()


def before(model: nn.Module, inputs: Float[Tensor, "n *shape"], frozen: int) -> Float[Tensor, "n *hidden"]:
    """The output of the frozen stages: what all models from one checkpoint share."""
    early, count = split(model, frozen)
    return inputs if early is None else early.early(inputs, count)


def after(model: nn.Module, hidden: Float[Tensor, "n *hidden"], frozen: int) -> Float[Tensor, "n classes"]:
    """Logits from the output of the frozen stages: `after(before(x)) == model(x)`."""
    early, count = split(model, frozen)
    return cast(Tensor, model(hidden)) if early is None else early.late(hidden, count)


@torch.no_grad()
def hidden_inputs(model: nn.Module, inputs: Float[Tensor, "n *shape"], frozen: int) -> Float[Tensor, "n *hidden"]:
    """`before`, on the model's device, some inputs at a time and without a graph."""
    device = next(model.parameters()).device
    return torch.cat([before(model, rows.to(device), frozen) for rows in inputs.split(CHUNK)])


@torch.no_grad()
def hidden_samples(model: nn.Module, samples: Samples, frozen: int, *, limit: int = HIDDEN_BYTES) -> Samples:
    """The samples as the frozen stages see them, computed once if they fit in `limit` bytes, else batch by batch."""
    if frozen == 0:
        return samples
    device = next(model.parameters()).device
    probe = before(model, samples.batch(torch.tensor([0])).to(device), frozen)
    if probe.numel() * probe.element_size() * len(samples) > limit:
        return _Hidden(model, samples, frozen)
    hidden = torch.cat([before(model, chunk.to(device), frozen) for chunk in samples.chunks()])
    return TensorSamples(hidden, samples.labels)


@final
class _Hidden(Samples):
    def __init__(self, model: nn.Module, samples: Samples, frozen: int) -> None:
        self.model, self.samples, self.frozen = model, samples, frozen
        self.labels = samples.labels

    @torch.no_grad()
    def batch(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b *hidden"]:
        device = next(self.model.parameters()).device
        return before(self.model, self.samples.batch(rows).to(device), self.frozen)


def batches(count: int, size: int, shuffle: torch.Generator) -> Iterator[Int[Tensor, "b"]]:
    """One epoch of shuffled row numbers; a last batch of a single row joins the one before it."""
    rows = list(torch.randperm(count, generator=shuffle).split(size))
    if len(rows) > 1 and len(rows[-1]) == 1:
        rows[-2:] = [torch.cat(rows[-2:])]
    yield from rows


def steps_per_epoch(count: int, size: int) -> int:
    """How many batches `batches` yields."""
    whole, rest = divmod(count, size)
    return max(whole + (rest > 1), 1)


def fit(source: Source, recipe: Recipe, samples: Samples, role: str, seed: int) -> nn.Module:
    """Train one model from its start to the end of the recipe.

    Args:
        source: where it starts.
        recipe: how it learns.
        samples: what it learns from.
        role: what it is for (`"victim"`, `"surrogate"`); different roles never share random numbers.
        seed: of the start and the order of batches.

    Returns:
        The model in eval mode.

    Raises:
        InputError: training diverged, or the recipe does not fit the model.
    """
    hidden = hidden_samples(source.model(recipe, role, seed), samples, recipe.shared_stages)
    return fit_hidden(source, recipe, hidden, role, [seed])[0]


def fit_hidden(
    source: Source, recipe: Recipe, hidden: Samples, role: str, seeds: Sequence[int], way: Way = "loop"
) -> list[nn.Module]:
    """Train models of several seeds on samples as the frozen stages see them.

    Args:
        source: where they start.
        recipe: how they learn.
        hidden: what they learn from (`hidden_samples`; the samples themselves, if no stages are frozen).
        role: what they are for.
        seeds: of their starts and orders of batches.
        way: one after another, or all at once; equal but for rounding, and for what draws random numbers: layers such as dropout, and augmentation.

    Returns:
        The models in eval mode.

    Raises:
        InputError: training diverged, or the recipe does not fit the model.
    """
    recipe = recipe.for_labels(hidden.labels)
    models = [source.model(recipe, role, seed) for seed in seeds]
    way = feasible(models, way) if models else way
    steps = recipe.epochs * steps_per_epoch(len(hidden), recipe.batch_size)
    groups = [[place] for place in range(len(seeds))] if way == "loop" else [list(range(len(seeds)))]
    for group in groups:
        joined = models[group[0]] if way == "loop" else stacked(models, recipe.shared_stages, way)
        learner = Learner(joined, recipe, steps, members=len(group))
        with layer_noise(role, seeds[group[0]]):
            train(learner, hidden, [generator(role, "order", seeds[place]) for place in group], steps)
    for model, seed in zip(models, seeds, strict=True):
        if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
            raise InputError(f"training diverged at learning rate {recipe.lr} ({role} {seed}); lower lr.")
    return models


def train(learner: Learner, hidden: Samples, shuffles: Sequence[torch.Generator], steps: int) -> None:
    """Take so many steps of training on outputs of the frozen stages, epoch after epoch.

    Args:
        learner: what learns.
        hidden: what from.
        shuffles: the order of batches, for each member of the learner.
        steps: how many.
    """
    device = next(learner.model.parameters()).device
    while steps > 0:
        orders = zip(*(batches(len(hidden), learner.recipe.batch_size, one) for one in shuffles), strict=True)
        rows = [torch.cat(each) for each in orders][:steps]
        with in_training(learner.model, learner.recipe):  # once: for small networks it costs as much as a step
            for inputs, labels in zip(read_ahead(hidden, rows), (hidden.labels[each] for each in rows), strict=True):
                learner.advance(inputs.to(device), labels.to(device))
        steps -= len(rows)


def read_ahead(samples: Samples, batches: Sequence[Tensor]) -> Iterator[Tensor]:
    """The inputs of each batch of rows; where they must be read from somewhere, the next is read while one is used."""
    if not samples.waits or len(batches) < 2:
        yield from (samples.batch(rows) for rows in batches)
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(samples.batch, batches[0])
        for rows in batches[1:]:
            ready, coming = coming.result(), reader.submit(samples.batch, rows)
            yield ready
        yield coming.result()


@contextmanager
def layer_noise(*parts: str | int) -> Iterator[None]:
    """Give what draws random numbers on the way, such as dropout and augmentation, a stream of its own, and leave the caller's as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*parts, "layers"))
        yield


@torch.no_grad()
def correct(model: nn.Module, hidden: Samples, frozen: int = 0) -> Bool[Tensor, "n"]:
    """Which samples are classified correctly.

    Args:
        model: in eval mode.
        hidden: the samples as the frozen stages see them (the samples themselves, if none are frozen).
        frozen: number of frozen stages.
    """
    device = next(model.parameters()).device
    right = []
    for rows in torch.arange(len(hidden)).split(CHUNK):
        found = after(model, hidden.batch(rows).to(device), frozen).argmax(dim=1).cpu()
        right.append(found == hidden.labels[rows])
    return torch.cat(right)


__all__ = [
    "Learner",
    "Source",
    "after",
    "available",
    "batches",
    "before",
    "correct",
    "fit",
    "fit_hidden",
    "hidden_inputs",
    "hidden_samples",
    "in_training",
    "layer_noise",
    "losses_of",
    "read_ahead",
    "steps_per_epoch",
    "train",
    "training_mode",
]
