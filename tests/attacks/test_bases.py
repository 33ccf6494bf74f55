"""Bases: the nearest of the class first, or those whose training gradient is aligned; slow loops as references."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from encircle.attacks import IMF, BaseSamples, Problem, choose_bases
from encircle.attacks.bases import _apportioned, alignment
from encircle.attacks.objective import Objective
from encircle.core import InputError
from encircle.data import TensorSamples
from encircle.models import CamClassifier
from encircle.threat import Budget
from encircle.training.frozen import trainable
from tests.attacks.problems import problem
from tests.networks import tiny


@pytest.fixture(params=["image", "table"])
def asked(request: pytest.FixtureRequest) -> Problem:
    return problem(request.param)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_distances(asked: Problem) -> list[float]:
    """Distance of every clean sample to the target in the feature spaces of all references, summed."""
    feature_distances = []
    for row in range(len(asked.clean)):
        total = 0.0
        for model in asked.references:
            assert isinstance(model, CamClassifier)
            pooled, other = (
                model.features(x)[0].detach() for x in (asked.clean.batch(torch.tensor([row])), asked.target)
            )
            if pooled.dim() == 3:
                pooled, other = pooled.mean(dim=(1, 2)), other.mean(dim=(1, 2))
            total += float((pooled - other).norm())
        feature_distances.append(total)
    return feature_distances


class TestChooseBases:
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
    @pytest.mark.parametrize("count", [1, 4, 8, 30])
    def test_nearest_of_the_class_first_then_again_and_copies_of_the_target(
        self, asked: Problem, count: int, share: float
    ) -> None:
        several = replace(asked, references=[*asked.references, tiny_like(asked)])
        bases = choose_bases(several, Budget(count=count), count, share)
        distances = slow_distances(several)
        pool = [row for row in range(len(asked.clean)) if int(asked.clean.labels[row]) == asked.label]
        order = sorted(pool, key=lambda row: distances[row])
        copies = round(share * count)
        assert bases.rows.tolist() == [order[i % len(order)] for i in range(count - copies)] + [-1] * copies
        assert bases.labels.tolist() == [asked.label] * count
        target = asked.legal.quantised(asked.target)[0]
        for row, value in zip(bases.rows.tolist(), bases.inputs, strict=True):
            expected = target if row < 0 else asked.legal.quantised(asked.clean.batch(torch.tensor([row])))[0]
            assert torch.equal(value, expected)

    def test_images_are_quantised_before_anything_else(self) -> None:
        asked = problem("image")
        inputs = choose_bases(asked, Budget(count=8), 8, 0.2).inputs
        assert torch.equal(inputs, (inputs * 255).round() / 255)

    def test_an_empty_pool_is_an_error_unless_only_the_target_is_asked_for(self, asked: Problem) -> None:
        assert isinstance(asked.clean, TensorSamples)
        others = TensorSamples(asked.clean.inputs, torch.zeros_like(asked.clean.labels))
        alone = replace(asked, clean=others)
        with pytest.raises(InputError, match=r"no training sample is of class 1, so the base pool is empty"):
            choose_bases(alone, Budget(count=4), 4, 0.5)
        assert choose_bases(alone, Budget(count=4), 4, 1.0).rows.tolist() == [-1] * 4

    def test_replacing_overwrites_distinct_rows_of_the_class(self, asked: Problem) -> None:
        count = 7  # the whole class
        bases = choose_bases(asked, Budget(count=count, mode="replace"), count, 0.0)
        assert sorted(bases.rows.tolist()) == (asked.clean.labels == asked.label).nonzero()[:, 0].tolist()

    def test_replacing_more_than_there_are_is_refused(self, asked: Problem) -> None:
        with pytest.raises(InputError, match=r"at most 7 samples of class 1, not 8"):
            choose_bases(asked, Budget(count=8, mode="replace"), 8, 0.0)
        assert len(choose_bases(asked, Budget(count=10, mode="replace"), 10, 0.3).rows) == 10

    @pytest.mark.parametrize(("copies", "others"), [(0.0, 0.5), (0.25, 0.5), (0.0, 1.0), (0.5, 0.5)])
    def test_bases_of_other_classes_are_the_nearest_and_keep_their_labels(
        self, asked: Problem, copies: float, others: float
    ) -> None:
        count = 8
        bases = choose_bases(asked, Budget(count=count), count, copies, others)
        distances = slow_distances(asked)
        pool = [row for row in range(len(asked.clean)) if int(asked.clean.labels[row]) != asked.label]
        expected = sorted(pool, key=lambda row: distances[row])[: round(others * count)]
        own = count - len(expected) - round(copies * count)
        assert bases.rows.tolist()[own : own + len(expected)] == expected
        assert bases.rows.tolist()[own + len(expected) :] == [-1] * round(copies * count)
        assert bases.labels[own : own + len(expected)].tolist() == asked.clean.labels[expected].tolist()
        rest = torch.cat([bases.labels[:own], bases.labels[own + len(expected) :]])
        assert rest.tolist() == [asked.label] * (count - len(expected))

    @pytest.mark.parametrize("repeats", [1, 2, 3, 50])
    @pytest.mark.parametrize("order", ["nearest", "aligned", "influential"])
    def test_repeats_are_of_the_first_in_order(self, asked: Problem, repeats: int, order: Any) -> None:
        bases = choose_bases(asked, Budget(count=9), 9, 0.0, 0.25, order, repeats=repeats)
        all_bases = choose_bases(asked, Budget(count=9), 9, 0.0, 0.25, order)
        parts = (7, 2)  # of the class, of others
        for pool_rows, best in zip(bases.rows.split(parts), all_bases.rows.split(parts), strict=True):
            different = list(dict.fromkeys(best.tolist()))
            assert pool_rows.tolist() == [
                different[index // repeats % len(different)] for index in range(len(pool_rows))
            ]

    def test_what_is_overwritten_cannot_be_repeated(self, asked: Problem) -> None:
        with pytest.raises(InputError, match="no base can be repeated"):
            choose_bases(asked, Budget(count=5, mode="replace"), 5, 0.0, 0.4, repeats=3)

    def test_poison_of_other_classes_keeps_its_labels_through_an_attack(self, asked: Problem) -> None:
        poison = IMF(models=1, epochs=1, other_share=0.5)(asked, Budget(count=8), seeded())
        of_clean = poison.bases >= 0
        assert torch.equal(poison.labels[of_clean], asked.clean.labels[poison.bases[of_clean]])
        assert int((poison.labels != asked.label).sum()) == 4

    def test_dirty_labels_are_of_other_classes_samples_alone_and_all_the_target_s(self, asked: Problem) -> None:
        arguments = (asked, Budget(count=8), 8, 0.25, 0.5)
        clean, dirty = choose_bases(*arguments), choose_bases(*arguments, dirty_label=True)
        assert torch.equal(clean.rows, dirty.rows)
        assert dirty.labels.tolist() == [asked.label] * 8
        assert clean.labels.tolist() != dirty.labels.tolist()
        poison = IMF(models=1, epochs=1, other_share=0.5, dirty_label=True)(asked, Budget(count=8), seeded())
        assert poison.labels.tolist() == [asked.label] * 8

    @pytest.mark.parametrize("copies", [0.0, 0.1, 0.5, 1.0])
    @pytest.mark.parametrize("count", [1, 4, 9, 30])
    def test_balanced_bases_have_the_classes_of_the_clean_set(self, asked: Problem, count: int, copies: float) -> None:
        bases = choose_bases(asked, Budget(count=count), count, copies, "balanced")
        labels, own = asked.clean.labels, round(copies * count)
        assert len(bases.rows) == count
        assert int((bases.rows < 0).sum()) == own
        shares = {label: float((labels == label).float().mean()) for label in labels.unique().tolist()}
        crowded = own > count * shares[asked.label] + 1  # T alone is more than its class is to have
        distances = slow_distances(asked)
        for label, share in shares.items():
            wanted = count * share
            if crowded:
                wanted = own if label == asked.label else (count - own) * share / (1 - shares[asked.label])
            assert abs(int((bases.labels == label).sum()) - wanted) < 1 + (own > count * shares[asked.label])
            drawn = bases.rows[(bases.labels == label) & (bases.rows >= 0)].tolist()
            nearest = sorted((labels == label).nonzero()[:, 0].tolist(), key=lambda row: distances[row])
            assert drawn == [nearest[index % len(nearest)] for index in range(len(drawn))]

    @pytest.mark.parametrize("mode", ["inject", "replace"])
    def test_balanced_poison_makes_no_class_more_frequent(self, asked: Problem, mode: Any) -> None:
        attack, budget = IMF(models=1, epochs=1, target_share=0.0, other_share="balanced"), Budget(count=9, mode=mode)
        poison = attack(asked, budget, seeded())
        mixed = asked.clean.with_poison(poison.inputs, poison.labels, poison.overwritten).labels
        for label in asked.clean.labels.unique():
            before, after = ((labels == label).float().mean() for labels in (asked.clean.labels, mixed))
            assert abs(float(after - before)) < 1 / len(mixed)
        control = BaseSamples(target_share=0.0, other_share="balanced")(asked, budget, seeded())
        assert torch.equal(control.bases, poison.bases)

    def test_balanced_bases_of_a_single_class_are_of_it(self, asked: Problem) -> None:
        alone = replace(asked, clean=TensorSamples(asked.clean.batch(torch.arange(3)), torch.full((3,), asked.label)))
        assert choose_bases(alone, Budget(count=5), 5, 0.2, "balanced").labels.tolist() == [asked.label] * 5

    def test_dirty_labels_that_should_be_balanced_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="nothing is balanced"):
            IMF(other_share="balanced", dirty_label=True)

    @given(st.integers(0, 40), st.lists(st.integers(0, 9), min_size=1, max_size=6))
    def test_seats_are_in_proportion(self, count: int, sizes: list[int]) -> None:
        parts = _apportioned(count, sizes)
        assert sum(parts) == (count if any(sizes) else 0)
        assert all(abs(part - count * size / max(sum(sizes), 1)) < 1 for part, size in zip(parts, sizes, strict=True))

    def test_dirty_labels_of_nothing_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="set other_share too"):
            IMF(dirty_label=True)

    def test_shares_of_more_than_everything_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="together they must not exceed 1"):
            IMF(target_share=0.6, other_share=0.5)

    def test_models_without_a_head_are_compared_by_their_logits(self, asked: Problem) -> None:
        class Sum(nn.Module):
            def forward(self, inputs: Tensor) -> Tensor:
                return inputs.flatten(1).sum(dim=1, keepdim=True).repeat(1, 3)

        bases = choose_bases(replace(asked, references=[Sum()]), Budget(count=7), 7, 0.0)
        sums = asked.clean.batch(bases.rows).flatten(1).sum(dim=1) - asked.target.sum()
        assert sums.abs().tolist() == sorted(sums.abs().tolist())


def tiny_like(asked: Problem) -> CamClassifier:
    return tiny("image" if asked.target.dim() == 4 else "table", seed=8, dtype=torch.float32)


class TestAligned:
    @pytest.mark.parametrize("explainer", ["grad", "cam"])
    @pytest.mark.parametrize("kind", ["image", "table"])
    def test_alignment_is_the_inner_product_of_gradients_sample_by_sample(self, kind: Any, explainer: str) -> None:
        asked = problem(kind, explainer, dtype=torch.float64)
        asked = replace(asked, references=[*asked.references, tiny(kind, seed=8)])
        rows = torch.tensor([3, 0, 11, 5])
        goal = Objective(asked.explainer, asked.target, asked.label, asked.desired, "cosine", 0.0, None)
        expected = torch.zeros(4)
        for model in asked.references:
            pull = torch.autograd.grad(goal(model)[0], trainable(model), materialize_grads=True)
            pull_all = torch.cat([pooled.flatten() for pooled in pull])
            for index, row in enumerate(rows.tolist()):
                loss = F.cross_entropy(model(asked.clean.batch(torch.tensor([row]))), asked.clean.labels[row : row + 1])
                own = torch.autograd.grad(loss, trainable(model), materialize_grads=True)
                expected[index] += float(torch.cat([pooled.flatten() for pooled in own]) @ pull_all / pull_all.norm())
        torch.testing.assert_close(alignment(asked, rows, asked.clean.labels[rows]), expected, rtol=1e-5, atol=1e-7)

    def test_the_most_aligned_of_the_class_come_first_then_again(self, asked: Problem) -> None:
        bases = choose_bases(asked, Budget(count=15), 15, 0.2, 0.2, "aligned")
        pool = (asked.clean.labels == asked.label).nonzero()[:, 0]
        order = pool[alignment(asked, pool, asked.clean.labels[pool]).argsort(descending=True, stable=True)].tolist()
        own = 15 - 3 - 3
        assert bases.rows[:own].tolist() == [order[index % len(order)] for index in range(own)]
        others = (asked.clean.labels != asked.label).nonzero()[:, 0]
        best = others[
            alignment(asked, others, asked.clean.labels[others]).argsort(descending=True, stable=True)
        ].tolist()
        assert bases.rows[own : own + 3].tolist() == best[:3]
        assert bases.rows[own + 3 :].tolist() == [-1] * 3
        assert bases.rows.tolist() != choose_bases(asked, Budget(count=15), 15, 0.2, 0.2).rows.tolist()

    def test_dirty_samples_are_ranked_by_the_label_that_they_will_have(self, asked: Problem) -> None:
        others = (asked.clean.labels != asked.label).nonzero()[:, 0]
        bases = choose_bases(asked, Budget(count=6), 6, 0.0, 1.0, "aligned", dirty_label=True)
        labels = torch.full_like(others, asked.label)
        best = others[alignment(asked, others, labels).argsort(descending=True, stable=True)].tolist()
        assert bases.rows.tolist() == best[:6]
        assert bases.rows.tolist() != choose_bases(asked, Budget(count=6), 6, 0.0, 1.0, "aligned").rows.tolist()

    def test_a_step_on_the_most_aligned_bends_more_than_one_on_the_least(self, asked: Problem) -> None:
        """What the measure is for: one small step of training on a sample moves L_adv by minus rate times alignment."""
        rows = torch.arange(len(asked.clean))
        scores = alignment(asked, rows, asked.clean.labels)
        model = asked.references[0]
        goal = Objective(asked.explainer, asked.target, asked.label, asked.desired, "cosine", 0.0, None)

        def after_a_step(row: int) -> float:
            moved = tiny_like(asked)
            moved.load_state_dict(model.state_dict())
            loss = F.cross_entropy(moved(asked.clean.batch(torch.tensor([row]))), asked.clean.labels[row : row + 1])
            slopes = torch.autograd.grad(loss, list(moved.parameters()), materialize_grads=True)
            with torch.no_grad():
                for parameter, slope in zip(moved.parameters(), slopes, strict=True):
                    parameter.sub_(1e-3 * slope)
            return float(goal(moved)[0].detach())

        assert after_a_step(int(scores.argmax())) < after_a_step(int(scores.argmin()))
