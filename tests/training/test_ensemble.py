"""The attacker's models: staggered, independent of each other and of their copies, begun anew when finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from encircle.core import InputError, StorageError
from encircle.seeds import generator
from encircle.training import Ensemble, fit
from encircle.training.batches import steps_per_epoch
from encircle.training.fit import train
from tests.training.problems import recipe, same, samples, source, weights

KINDS = ["image", "table"]


def ensemble(
    kind: Any = "table", *, members: int = 3, staggered: bool = True, seed: int = 0, **changes: Any
) -> Ensemble:
    return Ensemble.pretrained(
        source(kind), recipe(**changes), samples(kind), members=members, staggered=staggered, seed=seed
    )


def learnt(trained_ensemble: Ensemble) -> list[dict[str, torch.Tensor]]:
    return [weights(learner.model) for learner in trained_ensemble.learners]


class TestPretrained:
    @pytest.mark.parametrize(("members", "epochs", "expected"), [(3, 3, [0, 1, 2]), (4, 8, [0, 2, 4, 6]), (1, 3, [0])])
    def test_staggered_members_are_at_their_own_stage(self, members: int, epochs: int, expected: list[int]) -> None:
        trained_ensemble = ensemble(members=members, epochs=epochs)
        per_epoch = steps_per_epoch(23, 5)
        assert [learner.taken for learner in trained_ensemble.learners] == [stage * per_epoch for stage in expected]
        assert trained_ensemble.total_steps == epochs * per_epoch

    def test_otherwise_all_are_trained_to_the_end(self) -> None:
        trained_ensemble = ensemble(staggered=False)
        assert [learner.taken for learner in trained_ensemble.learners] == [trained_ensemble.total_steps] * 3

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("frozen", [0, 1])
    def test_one_trained_to_the_end_is_a_victim_of_the_attacker_s_seeds(self, kind: Any, frozen: int) -> None:
        changes = {"start": "checkpoint", "frozen_stages": frozen}
        trained_ensemble = ensemble(kind, members=2, staggered=False, seed=5, **changes)
        for member, model in enumerate(learnt(trained_ensemble)):
            alone = fit(source(kind), recipe(**changes), samples(kind), "surrogate", 5 * 2 + member)
            assert same(model, weights(alone))

    def test_members_differ_and_are_reproducible(self) -> None:
        first, again, other = ensemble(), ensemble(), ensemble(seed=1)
        assert all(same(first_state, two) for first_state, two in zip(learnt(first), learnt(again), strict=True))
        trained_ensemble = learnt(first) + learnt(other)
        assert not any(same(trained_ensemble[i], trained_ensemble[j]) for i in range(6) for j in range(i))

    def test_needs_a_member(self) -> None:
        with pytest.raises(InputError, match="at least 1"):
            ensemble(members=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_training_a_copy_leaves_the_original_bit_identical(kind: Any, frozen: int, optimiser: Any) -> None:
    original = ensemble(kind, start="checkpoint", frozen_stages=frozen, optimiser=optimiser, lr=0.01)
    before, places = learnt(original), [learner.taken for learner in original.learners]
    state = [repr(learner.optimiser.state_dict()) for learner in original.learners]
    trained = []
    for _ in range(2):
        copied = original.copy()
        for learner in copied.learners:
            frozen_features = samples(kind)
            if frozen:
                frozen_features = type(frozen_features)(
                    learner.model.early(frozen_features.inputs, 1).detach(), frozen_features.labels
                )
            train(learner, frozen_features, [generator("copy")], 10)
        trained.append(learnt(copied))
    assert all(same(first_state, two) for first_state, two in zip(before, learnt(original), strict=True))
    assert [learner.taken for learner in original.learners] == places
    assert [repr(learner.optimiser.state_dict()) for learner in original.learners] == state
    assert not any(same(first_state, two) for first_state, two in zip(before, trained[0], strict=True))
    assert all(
        same(first_state, two) for first_state, two in zip(*trained, strict=True)
    )  # both copies began from the same state


class TestRestart:
    def test_only_finished_members_begin_anew_each_from_its_own_seed(self) -> None:
        trained_ensemble = ensemble(members=3)
        trained_ensemble.learners[0].taken = trained_ensemble.learners[2].taken = trained_ensemble.total_steps
        unfinished, old = trained_ensemble.learners[1], learnt(trained_ensemble)
        trained_ensemble.restart_finished()
        assert trained_ensemble.learners[1] is unfinished
        assert [learner.taken for learner in trained_ensemble.learners] == [0, unfinished.taken, 0]
        fresh = learnt(trained_ensemble)
        assert not same(fresh[0], old[0])
        assert not same(fresh[0], fresh[2])
        assert not trained_ensemble.learners[0].optimiser.state_dict()["state"]
        trained_ensemble.restart_finished()
        assert all(same(first_state, two) for first_state, two in zip(fresh, learnt(trained_ensemble), strict=True))

    def test_a_member_is_not_restarted_a_step_too_early(self) -> None:
        trained_ensemble = ensemble(members=1)
        trained_ensemble.learners[0].taken = trained_ensemble.total_steps - 1
        unfinished = trained_ensemble.learners[0]
        trained_ensemble.restart_finished()
        assert trained_ensemble.learners[0] is unfinished

    def test_one_restarted_often_never_repeats_a_start(self) -> None:
        trained_ensemble = ensemble(members=1)
        starts = []
        for _ in range(4):
            trained_ensemble.learners[0].taken = trained_ensemble.total_steps
            trained_ensemble.restart_finished()
            starts += learnt(trained_ensemble)
        assert not any(same(starts[i], starts[j]) for i in range(4) for j in range(i))

    def test_a_copy_restarts_as_the_original_would(self) -> None:
        trained_ensemble = ensemble(members=1)
        trained_ensemble.learners[0].taken = trained_ensemble.total_steps
        copied = trained_ensemble.copy()
        trained_ensemble.restart_finished()
        copied.restart_finished()
        assert same(learnt(trained_ensemble)[0], learnt(copied)[0])


def test_following_another_recipe_takes_a_fresh_optimiser_and_keeps_the_weights() -> None:
    trained_ensemble = ensemble(members=2)
    before = learnt(trained_ensemble)
    plain = recipe(lr=0.5, momentum=0.0, weight_decay=0.0)
    trained_ensemble.follow(plain)
    assert all(same(first_state, two) for first_state, two in zip(before, learnt(trained_ensemble), strict=True))
    data = samples("table", 6)
    for learner, old in zip(trained_ensemble.learners, before, strict=True):
        gradients = torch.autograd.grad(
            torch.nn.functional.cross_entropy(learner.model(data.inputs), data.labels), list(learner.model.parameters())
        )
        learner.step(data.inputs, data.labels)
        for (name, value), gradient in zip(learner.model.named_parameters(), gradients, strict=True):
            torch.testing.assert_close(value.detach(), old[name] - 0.5 * gradient)
    trained_ensemble.learners[0].taken = trained_ensemble.total_steps
    trained_ensemble.restart_finished()
    assert trained_ensemble.learners[0].recipe is plain


class TestSaved:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("optimiser", ["sgd", "adam"])
    @pytest.mark.parametrize("staggered", [True, False])
    def test_goes_on_as_if_it_had_never_left_memory(
        self, kind: Any, optimiser: str, staggered: bool, tmp_path: Path
    ) -> None:
        trained_ensemble = ensemble(kind, optimiser=optimiser, staggered=staggered, schedule="cosine")
        trained_ensemble.save(tmp_path / "ensemble.safetensors")
        loaded = Ensemble.load(
            tmp_path / "ensemble.safetensors", source(kind), recipe(optimiser=optimiser, schedule="cosine")
        )
        assert all(
            same(first_state, two) for first_state, two in zip(learnt(trained_ensemble), learnt(loaded), strict=True)
        )
        assert [learner.taken for learner in loaded.learners] == [
            learner.taken for learner in trained_ensemble.learners
        ]
        assert (loaded.total_steps, loaded.seed) == (trained_ensemble.total_steps, trained_ensemble.seed)
        for first_state in (trained_ensemble, loaded):
            for number, learner in enumerate(first_state.learners):
                train(learner, samples(kind), [generator("on", number)], 4)
            first_state.restart_finished()
        assert all(
            same(first_state, two) for first_state, two in zip(learnt(trained_ensemble), learnt(loaded), strict=True)
        )

    @pytest.mark.parametrize("damage", [b"", b"not tensors", None])
    def test_a_damaged_or_missing_file_is_named(self, damage: bytes | None, tmp_path: Path) -> None:
        path = tmp_path / "ensemble.safetensors"
        if damage is not None:
            path.write_bytes(damage)
        with pytest.raises(StorageError, match="missing, damaged or of other models"):
            Ensemble.load(path, source("table"), recipe())

    def test_other_models_are_refused(self, tmp_path: Path) -> None:
        ensemble("table").save(tmp_path / "ensemble.safetensors")
        with pytest.raises(StorageError, match="of other models"):
            Ensemble.load(tmp_path / "ensemble.safetensors", source("image"), recipe())
