"""Training: the same seed gives the same weights, frozen is frozen, and files of weights are not trusted."""

from __future__ import annotations

import copy
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from encircle.core import InputError
from encircle.data import DatasetSamples, Samples
from encircle.models import CamClassifier
from encircle.seeds import generator
from encircle.training import Learner, Source, correct, fit, read_weights, save_weights
from encircle.training.batches import batches, read_ahead, steps_per_epoch
from encircle.training.fit import fit_on_features, train
from encircle.training.frozen import frozen_forward, frozen_samples, trainable_forward
from encircle.training.learner import losses_of, training_mode
from tests.networks import tiny, tiny_inputs
from tests.training.problems import recipe, same, samples, source, weights, without_poison

KINDS = ["image", "table"]
RECIPES = {
    "scratch": {},
    "checkpoint": {"start": "checkpoint"},
    "frozen": {"start": "checkpoint", "frozen_stages": 1},
    "head only": {"start": "checkpoint", "frozen_stages": 2, "optimiser": "adam", "schedule": "cosine"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RECIPES)
class TestFit:
    def test_the_same_seed_gives_the_same_weights_bit_for_bit(self, kind: Any, name: str) -> None:
        start, how, data = source(kind), recipe(**RECIPES[name]), samples(kind)
        first = weights(fit(start, how, data, "victim", 3))
        torch.rand(7)  # the global generator is somewhere else by now
        assert same(first, weights(fit(start, how, data, "victim", 3)))

    def test_another_seed_or_role_gives_others(self, kind: Any, name: str) -> None:
        start, how, data = source(kind), recipe(**RECIPES[name]), samples(kind)
        first = weights(fit(start, how, data, "victim", 3))
        for role, seed in (("victim", 4), ("surrogate", 3)):
            assert not same(first, weights(fit(start, how, data, role, seed)))

    def test_without_poison_it_is_the_clean_training_bit_for_bit(self, kind: Any, name: str) -> None:
        start, how, data = source(kind), recipe(**RECIPES[name]), samples(kind)
        clean = weights(fit(start, how, data, "victim", 0))
        assert same(clean, weights(fit(start, how, without_poison(data), "victim", 0)))

    def test_leaves_the_global_generator_the_data_and_the_checkpoint_alone(self, kind: Any, name: str) -> None:
        start, data = source(kind), samples(kind)
        assert start.checkpoint is not None
        state, inputs, checkpoint = torch.get_rng_state(), data.inputs.clone(), copy.deepcopy(start.checkpoint)
        fit(start, recipe(**RECIPES[name]), data, "victim", 0)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(data.inputs, inputs)
        assert same(checkpoint, start.checkpoint)

    def test_frozen_stages_keep_parameters_and_batch_statistics(self, kind: Any, name: str) -> None:
        start, how = source(kind), recipe(**RECIPES[name])
        began = start.model(how, "victim", 0)
        ended = fit(start, how, samples(kind), "victim", 0)
        assert isinstance(began, CamClassifier)
        assert isinstance(ended, CamClassifier)
        for place, (first, last) in enumerate(zip(began.stages, ended.stages, strict=True)):
            assert same(weights(first), weights(last)) == (place < how.frozen_stages)
        assert not same(weights(began.head), weights(ended.head))
        assert not ended.training


@pytest.mark.parametrize("kind", KINDS)
def test_victims_from_scratch_start_differently_and_from_a_checkpoint_alike(kind: Any) -> None:
    start = source(kind)
    assert start.checkpoint is not None
    fresh = [weights(start.model(recipe(), "victim", seed)) for seed in (0, 1)]
    given = [weights(start.model(recipe(start="checkpoint"), "victim", seed)) for seed in (0, 1)]
    assert not same(*fresh)
    assert same(*given)
    assert same(given[0], start.checkpoint)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_a_model_of_several_starts_is_what_it_would_be_if_its_own_were_the_only_one(kind: Any, frozen: int) -> None:
    data, checkpoints = samples(kind), [dict(tiny(kind, seed=seed).state_dict()) for seed in (1, 2, 3)]
    many = Source(source(kind).build, checkpoints[0], others=checkpoints[1:])
    how = recipe(start="checkpoint", frozen_stages=frozen)
    for seed, mine in ((0, 0), (4, 1), (5, 2)):
        alone = Source(many.build, checkpoints[mine])
        assert same(weights(many.model(replace(how, starts=3), "victim", seed)), checkpoints[mine])
        found = fit(many, replace(how, starts=3), data, "victim", seed)
        for name, value in weights(fit(alone, how, data, "victim", seed)).items():
            torch.testing.assert_close(weights(found)[name], value)


def by_hand(model: nn.Module, how: Any, data: Any, order: list[Tensor], steps: int) -> None:
    """SGD with momentum and weight decay as in the textbook, on whole inputs."""
    velocity = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for taken, rows in enumerate(order):
        model.train()
        loss = F.cross_entropy(model(data.inputs[rows]), data.labels[rows])
        named = dict(model.named_parameters())
        gradients = torch.autograd.grad(loss, list(named.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(named.items(), gradients, strict=True):
                velocity[name] = how.momentum * velocity[name] + gradient + how.weight_decay * value
                value.sub_(how.rate(taken / steps) * velocity[name])


@pytest.mark.parametrize("kind", KINDS)
def test_is_the_textbook_s_sgd(kind: Any) -> None:
    start, how, data = source(kind), recipe(schedule="cosine", lr=0.1), samples(kind)
    order = generator("victim", "order", 2)
    drawn = [rows for _ in range(3) for rows in batches(len(data), 5, order)]
    expected = start.model(how, "victim", 2)
    by_hand(expected, how, data, drawn, len(drawn))
    found = weights(fit(start, how, data, "victim", 2))
    for name, value in weights(expected).items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_before_and_trained_after_make_the_whole_model(kind: Any, frozen: int) -> None:
    model, inputs = tiny(kind), tiny_inputs(kind, 4)
    assert torch.equal(trainable_forward(model, frozen_forward(model, inputs, frozen), frozen), model(inputs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [1, 2])
class TestHidden:
    def test_training_on_kept_outputs_equals_recomputing_them(self, kind: Any, frozen: int) -> None:
        found = []
        for limit in (1 << 30, 0):
            how = recipe(start="checkpoint", frozen_stages=frozen)
            model, data = source(kind).model(how, "victim", 0), samples(kind)
            frozen_features = frozen_samples(model, data, frozen, limit=limit)
            learner = Learner(model, how, how.epochs * steps_per_epoch(len(data), how.batch_size))
            train(learner, frozen_features, [generator("order")], learner.steps)
            found.append(weights(model))
        for name, value in found[0].items():
            torch.testing.assert_close(found[1][name], value, rtol=1e-6, atol=1e-12)

    def test_training_on_kept_outputs_equals_training_on_inputs(self, kind: Any, frozen: int) -> None:
        how = recipe(start="checkpoint", frozen_stages=frozen)
        kept = weights(fit(source(kind), how, samples(kind), "victim", 0))
        model, data = source(kind).model(how, "victim", 0), samples(kind)
        optimiser = how.build_optimiser(model)
        order = generator("victim", "order", 0)
        for _ in range(how.epochs):
            for rows in batches(len(data), how.batch_size, order):
                training_mode(model, how)
                optimiser.zero_grad()
                F.cross_entropy(model(data.inputs[rows]), data.labels[rows]).backward()
                optimiser.step()
        for name, value in weights(model).items():
            torch.testing.assert_close(kept[name], value, rtol=1e-6, atol=1e-12)

    def test_the_limit_decides(self, kind: Any, frozen: int) -> None:
        model, data = tiny(kind), samples(kind, 7)
        size = sum(value.numel() * value.element_size() for value in [frozen_forward(model, data.inputs, frozen)])
        calls = []
        model.stages[0].register_forward_hook(lambda *_: calls.append(1))
        for limit, more in ((size, 0), (size - 1, 1)):
            frozen_features = frozen_samples(model, data, frozen, limit=limit)
            calls.clear()
            batch = frozen_features.batch(torch.tensor([3, 1]))
            assert len(calls) == more
            torch.testing.assert_close(batch, frozen_forward(model, data.inputs[[3, 1]], frozen).detach())
            assert not batch.requires_grad
            assert torch.equal(frozen_features.labels, data.labels)


def test_nothing_frozen_means_the_samples_themselves() -> None:
    data = samples("table")
    assert frozen_samples(tiny("table"), data, 0) is data


class TestBatches:
    @given(count=st.integers(1, 40), size=st.integers(2, 12), seed=st.integers(0, 99))
    def test_cover_every_row_once_and_are_never_a_single_row(self, count: int, size: int, seed: int) -> None:
        found = list(batches(count, size, torch.Generator().manual_seed(seed)))
        assert sorted(torch.cat(found).tolist()) == list(range(count))
        assert len(found) == steps_per_epoch(count, size)
        assert all(len(rows) >= 2 for rows in found) or count == 1
        assert all(len(rows) == size for rows in found[:-1])
        assert len(found[-1]) <= size + 1

    def test_every_epoch_has_its_own_order(self) -> None:
        shuffle = torch.Generator().manual_seed(0)
        first, second = (torch.cat(list(batches(30, 7, shuffle))) for _ in range(2))
        assert not torch.equal(first, second)

    def test_a_set_of_one_is_not_learnt_from(self) -> None:
        model = fit(source("image"), recipe(), samples("image", 1), "victim", 0)
        assert same(weights(model), weights(source("image").model(recipe(), "victim", 0)))


class TestLearner:
    def test_reports_the_loss_and_counts_its_steps(self) -> None:
        model, data = tiny("table"), samples("table", 6)
        learner = Learner(model, recipe(), 10)
        expected = float(F.cross_entropy(model(data.inputs), data.labels).detach())
        assert learner.step(data.inputs, data.labels) == pytest.approx(expected)
        assert learner.taken == 1
        assert not model.training

    def test_follows_the_schedule(self) -> None:
        how = recipe(schedule="cosine", lr=0.4)
        learner = Learner(tiny("table"), how, 4)
        seen = []
        for _ in range(5):
            learner.step(samples("table", 6).inputs, samples("table", 6).labels)
            seen.append(learner.optimiser.param_groups[0]["lr"])
        assert seen == pytest.approx([0.4, 0.4 * (2 + 2**0.5) / 4, 0.2, 0.4 * (2 - 2**0.5) / 4, 0.0], abs=1e-12)


def test_diverged_training_is_an_error_that_names_the_rate() -> None:
    with pytest.raises(InputError, match=r"diverged at learning rate 1e\+300 \(victim 5\); lower lr"):
        fit(source("table"), recipe(lr=1e300), samples("table"), "victim", 5)


@pytest.mark.parametrize("frozen", [0, 1])
def test_correct_are_the_right_answers(frozen: int) -> None:
    model, data = tiny("table"), samples("table", 300)
    right = [int(model(one[None]).argmax()) == int(label) for one, label in zip(data.inputs, data.labels, strict=True)]
    assert correct(model, frozen_samples(model, data, frozen), frozen).tolist() == right


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("seeds", [[4], [0, 1, 2]])
def test_victims_trained_at_once_equal_those_trained_one_after_another(kind: Any, name: str, seeds: list[int]) -> None:
    start, how, data = source(kind), recipe(**RECIPES[name]), samples(kind)
    frozen_features = frozen_samples(start.model(how, "victim", 0), data, how.frozen_stages)
    at_once = fit_on_features(start, how, frozen_features, "victim", seeds, "vectorised")
    for model, seed in zip(at_once, seeds, strict=True):
        alone = fit(start, how, data, "victim", seed)
        assert not model.training
        for (key, found), expected in zip(model.state_dict().items(), alone.state_dict().values(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-10, msg=key)


def test_a_small_network_learns() -> None:
    data = samples("table", 200)
    model = fit(source("table"), recipe(epochs=60, batch_size=20, lr=0.1), data, "victim", 0)
    assert float(correct(model, data).double().mean()) > 0.8


class TestSource:
    def test_a_recipe_from_a_checkpoint_needs_one(self) -> None:
        with pytest.raises(InputError, match="there is none"):
            Source(lambda: tiny("table")).model(recipe(start="checkpoint"), "victim", 0)

    @pytest.mark.parametrize("change", ["missing", "shape"])
    def test_a_checkpoint_that_does_not_fit_is_refused(self, change: str) -> None:
        state = dict(tiny("table").state_dict())
        if change == "missing":
            del state["head.bias"]
        else:
            state["head.bias"] = torch.zeros(4)
        with pytest.raises(InputError, match="does not fit the model"):
            Source(lambda: tiny("table"), state).model(recipe(start="checkpoint"), "victim", 0)

    def test_too_many_frozen_stages_are_refused(self) -> None:
        with pytest.raises(InputError, match="has 2 stages"):
            source("table").model(recipe(start="checkpoint", frozen_stages=3), "victim", 0)

    def test_frozen_stages_need_stages(self) -> None:
        start = Source(lambda: nn.Linear(2, 2), dict(nn.Linear(2, 2).state_dict()))
        with pytest.raises(InputError, match="wrap Linear"):
            start.model(recipe(start="checkpoint", frozen_stages=1), "victim", 0)


class TestWeights:
    def test_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        model = tiny("image", dtype=torch.float32)
        save_weights(tmp_path / "w.safetensors", model)
        torch.save(model.state_dict(), tmp_path / "w.pt")
        for name in ("w.safetensors", "w.pt"):
            assert same(read_weights(tmp_path / name), weights(model))

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
    def test_a_file_that_would_run_code_is_refused_and_not_run(self, tmp_path: Path, suffix: str) -> None:
        class Hostile:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "ran"),)

        path = tmp_path / f"w{suffix}"
        torch.save({"weight": torch.ones(1), "more": Hostile()}, path)
        with pytest.raises(InputError, match=r"w\.\w+ (hold more than tensors|cannot be read)"):
            read_weights(path)
        path.write_bytes(pickle.dumps(Hostile()))
        with pytest.raises(InputError, match=r"w\.\w+ (hold more than tensors|cannot be read)"):
            read_weights(path)
        assert not (tmp_path / "ran").exists()
        pickle.loads(pickle.dumps(Hostile()))
        assert (tmp_path / "ran").exists()  # it would have

    @pytest.mark.parametrize("content", [[torch.ones(1)], {"epoch": 3, "w": torch.ones(1)}, torch.ones(1), {"a": {}}])
    def test_more_or_less_than_tensors_by_name_is_refused(self, tmp_path: Path, content: Any) -> None:
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(InputError, match="hold more than tensors"):
            read_weights(tmp_path / "w.pt")

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
    def test_a_damaged_file_is_an_input_error(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        model = tiny("table")
        if name.endswith("pt"):
            torch.save(model.state_dict(), path)
        else:
            save_weights(path, model)
        whole = path.read_bytes()
        for length in (0, 1, 7, 8, 20, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match=f"the weights .*{name}"):
                read_weights(path)
        path.write_bytes(b"not weights at all")
        with pytest.raises(InputError, match=f"the weights .*{name}"):
            read_weights(path)

    def test_a_missing_file_is_an_input_error(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.pt", tmp_path):
            with pytest.raises(InputError, match="do not exist"):
                read_weights(path)


class TestReadingAhead:
    class Slow(Samples):
        """Samples that note when each batch is read."""

        waits = True

        def __init__(self, events: list[str]) -> None:
            self.inputs, self.labels, self.events = torch.arange(12.0)[:, None], torch.zeros(12).long(), events

        def batch(self, rows: Tensor) -> Tensor:
            self.events.append(f"read {int(rows[0])}")
            if int(rows[0]) == 8:
                raise InputError("row 8 cannot be read")
            return self.inputs[rows]

    def test_gives_the_same_batches_in_the_same_order(self) -> None:
        rows = list(torch.randperm(8).split(3))
        found = list(read_ahead(self.Slow([]), rows))
        assert torch.equal(torch.cat(found)[:, 0], torch.cat(rows).float())

    def test_reads_the_next_while_one_is_used_and_no_further(self) -> None:
        events: list[str] = []
        coming = read_ahead(self.Slow(events), list(torch.arange(8).split(2)))
        next(coming)
        deadline = time.monotonic() + 10
        while len(events) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert events == ["read 0", "read 2"]

    def test_an_error_comes_when_its_batch_would_have(self) -> None:
        coming = read_ahead(self.Slow([]), list(torch.arange(12).split(4)))
        assert len(next(coming)) == len(next(coming)) == 4
        with pytest.raises(InputError, match="row 8"):
            next(coming)

    def test_a_data_set_of_files_trains_to_the_same_weights(self) -> None:
        data = samples("table", dtype=torch.float32)
        read = DatasetSamples(TensorDataset(data.inputs, data.labels))
        assert read.waits
        assert read.subset(torch.arange(5)).waits
        assert not data.waits
        start, how = source("table", dtype=torch.float32), recipe()
        assert same(weights(fit(start, how, read, "victim", 0)), weights(fit(start, how, data, "victim", 0)))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_near_float32_and_keeps_float32_weights(kind: Any) -> None:
    start, data = source(kind, dtype=torch.float32), samples(kind, dtype=torch.float32)
    full, half, again = (
        weights(fit(start, recipe(precision=precision), data, "victim", 0))
        for precision in ("float32", "bfloat16", "bfloat16")
    )
    assert same(half, again)
    assert not same(full, half)
    for name, value in half.items():
        assert value.dtype == full[name].dtype
        torch.testing.assert_close(value, full[name], rtol=0.3, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_weighed_by_class(kind: Any) -> None:
    model, data = source(kind).model(recipe(), "victim", 0), samples(kind)
    how = recipe(class_weights=tuple(float(label + 1) for label in range(int(data.labels.max()) + 1)))
    found = losses_of(model, data.inputs, data.labels, how)
    each = F.cross_entropy(model(data.inputs), data.labels, reduction="none")
    torch.testing.assert_close(found[0], (each * (data.labels + 1)).mean())


@pytest.mark.parametrize("kind", ["image", "table"])
def test_balanced_victims_are_those_of_the_weights_of_their_own_training_set(kind: Any) -> None:
    data = samples(kind)
    poison = data.batch(torch.arange(6))
    poisoned = data.with_poison(poison, torch.zeros(6, dtype=torch.int64), torch.full((6,), -1))
    for learnt in (data, poisoned):
        counts = learnt.labels.bincount()
        explicit = recipe(class_weights=tuple((len(learnt) / (3 * counts)).tolist()))
        found, expected = (
            fit(source(kind), how, learnt, "victim", 0) for how in (recipe(class_weights="balanced"), explicit)
        )
        assert same(weights(found), weights(expected))


@pytest.mark.parametrize("way", ["loop", "vectorised"])
@pytest.mark.parametrize("frozen", [0, 1])
def test_frozen_batch_statistics_stay_and_their_scale_learns(way: Any, frozen: int) -> None:
    how = recipe(start="checkpoint", batch_norm="frozen", frozen_stages=frozen)
    start, data = source("image"), samples("image")
    before = weights(start.model(how, "victim", 0))
    frozen_features = frozen_samples(start.model(how, "victim", 0), data, frozen)
    for model in fit_on_features(start, how, frozen_features, "victim", [0, 1], way):
        ended = weights(model)
        statistics = [name for name in ended if "running" in name or "tracked" in name]
        assert statistics
        assert all(torch.equal(ended[name], before[name]) for name in statistics)
        norms = [name for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
        moved = [not torch.equal(ended[f"{name}.weight"], before[f"{name}.weight"]) for name in norms]
        assert any(moved)


def test_frozen_batch_statistics_equal_training_in_eval_mode() -> None:
    how = recipe(start="checkpoint", batch_norm="frozen")
    start, data = source("image"), samples("image")
    found = weights(fit(start, how, data, "victim", 0))
    model, order = start.model(how, "victim", 0), generator("victim", "order", 0)
    optimiser = how.build_optimiser(model)
    for _ in range(how.epochs):
        for rows in batches(len(data), how.batch_size, order):
            optimiser.zero_grad()
            F.cross_entropy(model(data.inputs[rows]), data.labels[rows]).backward()
            optimiser.step()
    for name, value in weights(model).items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-12)


def test_a_trunk_alone_will_do_and_heads_differ_by_seed() -> None:
    start = source("image")
    assert start.checkpoint is not None
    trunk = {name: value for name, value in start.checkpoint.items() if not name.startswith("head")}
    alone = Source(start.build, trunk)
    first, second = (weights(alone.model(recipe(start="checkpoint"), "victim", seed)) for seed in (0, 1))
    assert not torch.equal(first["head.weight"], second["head.weight"])
    assert all(torch.equal(first[name], second[name]) for name in trunk)


@pytest.mark.parametrize(
    ("channels", "stride", "groups", "plain"),
    [(4, 2, 1, True), (7, 3, 1, True), (16, 2, 4, True), (8, 2, 1, False), (4, 1, 1, False)],
)
def test_networks_that_channels_last_would_crash_are_laid_out_plainly(
    channels: int, stride: int, groups: int, plain: bool
) -> None:
    """A narrow 1x1 convolution with a stride corrupts memory in that layout on some CPUs; other networks are faster in it."""

    def build() -> nn.Module:
        narrow = nn.Conv2d(channels, 8, 1, stride, groups=groups)
        return nn.Sequential(nn.Conv2d(3, channels, 3), narrow, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    model = Source(build).model(recipe(), "victim", 0)
    first = model.get_parameter("0.weight")
    assert first.is_contiguous() is plain
    assert first.is_contiguous(memory_format=torch.channels_last) is not plain
    F.cross_entropy(model(torch.rand(6, 3, 12, 12)), torch.arange(6) % 2).backward()
