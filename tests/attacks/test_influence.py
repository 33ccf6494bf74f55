"""Influence moves poison along (C + damping)⁻¹ ∇L_adv, which dense matrices in float64 agree with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from encircle.attacks import IMF, Influence, choose_bases, influence
from encircle.attacks.bases import DAMPING, alignment
from encircle.attacks.curvature import solved
from encircle.attacks.objective import Objective
from encircle.attacks.parameter_vectors import inner
from encircle.attacks.surrogate import Iteration
from encircle.threat import Budget
from encircle.training import CodePath
from encircle.training.derivatives import gauss_newton, inner_products, mixed_product
from encircle.training.frozen import frozen_forward, trainable, trainable_forward
from tests.attacks.problems import distance_at_the_end, first_time, problem
from tests.training.problems import recipe


def flat(vector: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in vector])


def like(parameters: Sequence[Tensor], values: Tensor) -> list[Tensor]:
    """The vector that `flat` made flat."""
    return [
        part.reshape(item.shape)
        for part, item in zip(values.split([p.numel() for p in parameters]), parameters, strict=True)
    ]


def dense_curvature(model: nn.Module, frozen_features: Tensor, weights: Tensor, frozen: int) -> Tensor:
    """Σ_x w_x Jᵀ (diag(p) − p pᵀ) J, written out."""
    parameters = trainable(model)
    total = torch.zeros(2 * [sum(item.numel() for item in parameters)], dtype=torch.float64)
    for row, weight in zip(frozen_features, weights, strict=True):
        logits = trainable_forward(model, row[None], frozen)[0]
        jacobian = torch.stack(
            [flat(torch.autograd.grad(item, parameters, retain_graph=True, materialize_grads=True)) for item in logits]
        )
        likely = logits.detach().softmax(dim=0)
        total += weight * jacobian.T @ (likely.diag() - likely[:, None] * likely[None]) @ jacobian
    return total


@given(
    size=st.integers(1, 8),
    members=st.integers(1, 3),
    rank=st.integers(0, 8),
    damping=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=30)
def test_conjugate_gradients_solve_each_member_by_itself(
    size: int, members: int, rank: int, damping: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    factors = torch.randn(members, size, rank, generator=random, dtype=torch.float64)
    matrices = factors @ factors.transpose(1, 2)
    right, guess = torch.randn(2, members, size, generator=random, dtype=torch.float64)
    right[-1] = right[-1] * (seed % 2)  # a member that has nothing to solve
    actual = solved(
        lambda vector: [torch.einsum("mij,mj->mi", matrices, vector[0])], [right], [guess], damping, 4 * size, members
    )
    expected = torch.linalg.solve(matrices + damping * torch.eye(size, dtype=torch.float64), right)
    torch.testing.assert_close(actual[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("members", ["loop", "vectorised"])
def test_the_curvature_equals_the_matrix_written_out(kind: Any, frozen: int, members: Any) -> None:
    asked = problem(kind, dtype=torch.float64, how=recipe(start="checkpoint", frozen_stages=frozen))
    ensemble = asked.ensemble(2, True)
    ensemble.path = CodePath(members)
    frozen_features = frozen_forward(ensemble.learners[0].model, asked.clean.batch(torch.arange(5)), frozen).detach()
    weights = torch.tensor([0.5, 0.0, 1.0, 2.0, 0.1], dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    along = [
        torch.randn(sum(item.numel() for item in trainable(member.model)), generator=random, dtype=torch.float64)
        for member in ensemble.learners
    ]
    expected = [
        dense_curvature(member.model, frozen_features, weights, frozen) @ vector
        for member, vector in zip(ensemble.learners, along, strict=True)
    ]
    for model, count in ensemble.groups:
        rows, shares = frozen_features.repeat(count, *[1] * (frozen_features.dim() - 1)), weights.repeat(count)
        product = gauss_newton(model, rows, shares, frozen)
        places = range(2) if count == 2 else [[member.model for member in ensemble.learners].index(model)]
        parts = [like(trainable(ensemble.learners[position].model), along[position]) for position in places]
        stacked = [
            torch.stack(member).reshape(item.shape)
            for item, member in zip(trainable(model), zip(*parts, strict=True), strict=True)
        ]
        actual = product(stacked)
        for number, position in enumerate(places):
            ours = flat([part.reshape(count, -1)[number] for part in actual])
            torch.testing.assert_close(ours, expected[position], rtol=1e-8, atol=1e-12)
    assert all(float(item.norm()) > 0 for item in expected)


def moved(
    attack: Any, asked: Any, path: CodePath, **iteration_facts: Any
) -> tuple[Tensor, list[dict[str, float]], Any]:
    """One direction, and the ensemble it was taken with."""
    ensemble = asked.ensemble(2, True)
    ensemble.path = path
    ensemble.learn_from(asked.clean.labels)
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "mixed", 0.2, 0.1)
    poison, labels = asked.clean.batch(torch.arange(6)), torch.arange(6) % 3
    rows = torch.arange(6, 11)
    clean = frozen_forward(ensemble.learners[0].model, asked.clean.batch(rows), ensemble.recipe.frozen_stages)
    context = first_time() | {"clean": (clean.detach(), asked.clean.labels[rows])} | iteration_facts
    delta, notes = attack._direction(ensemble, objective, poison, labels, **context)
    return delta, notes, (ensemble, objective, poison, labels, context)


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("explainer", ["grad", "cam"])
@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize(
    ("path", "class_weights"),
    [(("loop", "reverse"), None), (("vectorised", "forward"), (1.0, 3.0, 0.5))],
    ids=["loop", "vectorised-weighed"],
)
def test_the_direction_is_that_of_dense_matrices(
    kind: Any, explainer: str, frozen: int, path: Any, class_weights: Any
) -> None:
    how = recipe(start="checkpoint", frozen_stages=frozen, class_weights=class_weights)
    asked = problem(kind, explainer, dtype=torch.float64, how=how)
    attack = Influence(models=2, damping=0.05, rounds=120)
    actual, notes, (ensemble, objective, poison, labels, context) = moved(attack, asked, CodePath(*path))
    trunk = ensemble.learners[0].model
    leaf = poison.clone().requires_grad_()
    frozen_features = frozen_forward(trunk, leaf, frozen)
    sampled, classes = (
        torch.cat([context["clean"][0], frozen_features.detach()]),
        torch.cat([context["clean"][1], labels]),
    )
    clean, count = context["sizes"]
    factors = torch.ones(3, dtype=torch.float64) if class_weights is None else torch.tensor(class_weights).double()
    weights = torch.tensor([clean / 5] * 5 + [count / 6] * 6, dtype=torch.float64)
    weights = weights / weights.sum() * factors[classes]  # as losses are averaged: a class's weight is no share
    expected = torch.zeros_like(frozen_features)
    for learner, note in zip(ensemble.learners, notes, strict=True):
        parameters = trainable(learner.model)
        slope = flat(torch.autograd.grad(objective(learner.model)[0], parameters, materialize_grads=True))
        matrix = dense_curvature(learner.model, sampled, weights, frozen)
        solution = torch.linalg.solve(matrix + 0.05 * torch.eye(len(matrix), dtype=torch.float64), slope)
        share = mixed_product(
            learner.model, frozen_features.detach(), labels, like(parameters, solution), frozen, "reverse"
        )
        expected += share * factors[labels].reshape(-1, *[1] * (share.dim() - 1)) / 2
        assert note["ihvp_cosine"] == pytest.approx(float(F.cosine_similarity(slope, solution, dim=0)), rel=1e-5)
        assert note["ihvp_cosine"] < 0.999
    if frozen:
        expected = torch.autograd.grad(frozen_features, leaf, expected)[0]
    torch.testing.assert_close(actual, expected.detach(), rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["image", "table"])
def test_with_large_damping_it_is_imf(kind: Any) -> None:
    asked = problem(kind, dtype=torch.float64)
    ours, notes, _ = moved(Influence(models=2, damping=1e9), asked, CodePath())
    imf_delta, _, _ = moved(IMF(models=2, alpha=1.0), asked, CodePath())
    torch.testing.assert_close(ours * 1e9, imf_delta, rtol=1e-6, atol=1e-8 * float(imf_delta.abs().max()))
    assert [note["ihvp_cosine"] for note in notes] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("members", ["loop", "vectorised"])
def test_rounds_go_on_where_they_ended_and_begin_anew_with_new_surrogates(members: Any) -> None:
    asked = problem("table", dtype=torch.float64)
    attack = Influence(models=2, damping=0.05, rounds=3)
    _, _, (ensemble, objective, poison, labels, context) = moved(attack, asked, CodePath(members))
    memory = context["memory"]
    assert set(memory) == set(ensemble.learners)
    first = {learner: flat(parts) for learner, parts in memory.items()}
    for _ in range(200):
        again, _ = attack._direction(ensemble, objective, poison, labels, **context)
    assert all(float((flat(memory[learner]) - first[learner]).norm()) > 0 for learner in ensemble.learners)
    enough, _, _ = moved(Influence(models=2, damping=0.05, rounds=120), asked, CodePath(members))
    torch.testing.assert_close(again, enough, rtol=1e-3, atol=1e-3 * float(enough.abs().max()))
    gone = ensemble.learners[0]
    gone.taken = ensemble.total_steps
    ensemble.restart_finished()
    other = flat(memory[ensemble.learners[1]])
    attack._direction(ensemble, objective, poison, labels, **context)
    assert gone not in memory
    assert set(memory) == set(ensemble.learners)
    fresh = first_time() | {"clean": context["clean"]}  # the new one began from nothing, the other where it was
    attack._direction(ensemble, objective, poison, labels, **fresh)
    torch.testing.assert_close(flat(memory[ensemble.learners[0]]), flat(fresh["memory"][ensemble.learners[0]]))
    assert not torch.allclose(other, flat(fresh["memory"][ensemble.learners[1]]), rtol=1e-3)


def test_all_paths_remember_the_same() -> None:
    asked = problem("image", "cam", dtype=torch.float64)
    actual = []
    for members in ("loop", "vectorised"):
        _, _, (ensemble, *_, context) = moved(Influence(models=2), asked, CodePath(members))  # type: ignore[arg-type]
        actual.append([flat(context["memory"][learner]) for learner in ensemble.learners])
    for item, other in zip(*actual, strict=True):
        torch.testing.assert_close(item.norm(), other.norm(), rtol=1e-8, atol=0)


def test_nothing_to_do_is_no_direction() -> None:
    """A surrogate whose map is as wanted has no slope: no NaN comes of it."""
    zero = [torch.zeros(2, 3)]
    assert inner(zero, zero, 2).tolist() == [0, 0]
    assert bool((solved(lambda vector: [2 * vector[0]], zero, zero, 0.1, 3, 2)[0] == 0).all())


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("frozen", [0, 1])
def test_bases_are_aligned_with_what_a_model_trained_to_the_end_would_learn(kind: Any, frozen: int) -> None:
    how = recipe(start="checkpoint", frozen_stages=frozen, class_weights=(1.0, 3.0, 0.5))
    asked = problem(kind, dtype=torch.float64, how=how)
    rows = torch.arange(len(asked.clean))
    model = asked.references[0]
    goal = Objective(asked.explainer, asked.target, asked.label, asked.desired, "cosine", 0.0, None)
    slope = flat(torch.autograd.grad(goal(model)[0], trainable(model), materialize_grads=True))
    factors = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)[asked.clean.labels]
    frozen_features = frozen_forward(model, asked.clean.batch(rows), frozen).detach()
    matrix = dense_curvature(model, frozen_features, factors / len(factors), frozen)
    solution = torch.linalg.solve(matrix + DAMPING * torch.eye(len(matrix), dtype=torch.float64), slope)
    expected = []
    for row in rows.tolist():
        loss = F.cross_entropy(
            trainable_forward(model, frozen_features[row : row + 1], frozen), asked.clean.labels[row : row + 1]
        )
        own = flat(torch.autograd.grad(loss, trainable(model), materialize_grads=True))
        expected.append(float(own @ solution / solution.norm() * factors[row]))
    actual = alignment(asked, rows, asked.clean.labels, "influential")
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-3, atol=1e-3 * max(map(abs, expected)))
    bases = choose_bases(asked, Budget(count=3), 3, 0.0, 0.0, "influential")
    ours = (asked.clean.labels == asked.label).nonzero()[:, 0]
    assert bases.rows.tolist() == ours[actual[ours].argsort(descending=True, stable=True)][:3].tolist()


@pytest.mark.parametrize("explainer", ["grad", "cam"])
def test_moves_the_attacker_s_own_explanation_towards_what_is_wanted(explainer: str) -> None:
    ours, still = (Influence(models=2, epochs=6, gamma=gamma, restart=False, staggered=False) for gamma in (0.1, 1e-9))
    assert distance_at_the_end(ours, explainer) < distance_at_the_end(still, explainer) - 0.02


def test_of_much_poison_some_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly spaced, and with the weight of all: as if each had been there as often as it stands for others."""
    asked = problem("table", dtype=torch.float64)
    sampled: list[tuple[Tensor, Tensor]] = []

    def spied(model: nn.Module, frozen_features: Tensor, weights: Tensor, frozen: int) -> Any:
        sampled.append((frozen_features, weights))
        return gauss_newton(model, frozen_features, weights, frozen)

    monkeypatch.setattr(influence, "gauss_newton", spied)
    ensemble = asked.ensemble(1, True)
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.1, 0.1)
    poison = asked.clean.batch(torch.arange(40) % 12)
    clean = (asked.clean.batch(torch.arange(5)), asked.clean.labels[:5])
    context = first_time() | {"sizes": (160, 40), "clean": clean}
    Influence(models=1)._direction(ensemble, objective, poison, torch.ones(40, dtype=torch.int64), **context)
    [(frozen_features, weights)] = sampled
    assert torch.equal(frozen_features[5:], poison[::3])
    assert len(frozen_features) - 5 <= influence.POISONED
    torch.testing.assert_close(weights, torch.tensor([0.8 / 5] * 5 + [0.2 / 14] * 14, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["inject", "replace"])
@pytest.mark.parametrize("models", [1, 2])
def test_a_crafting_tells_how_large_the_set_is_and_keeps_one_memory(
    mode: Any, models: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = problem("table", clean=21)
    iteration_facts: list[tuple[tuple[int, int], int]] = []
    shares = Influence._shares

    def spied(self: Influence, iteration: Iteration, *rest: Any) -> Any:
        iteration_facts.append((iteration.sizes, id(iteration.memory)))
        return shares(self, iteration, *rest)

    monkeypatch.setattr(Influence, "_shares", spied)
    poison = Influence(models=models, epochs=2, target_share=0.0)(
        asked, Budget(count=4, mode=mode), torch.Generator().manual_seed(0)
    )
    assert len(poison) == 4
    assert {sizes for sizes, _ in iteration_facts} == {(21, 4) if mode == "inject" else (17, 4)}
    assert len({memory for _, memory in iteration_facts}) == 1


def test_a_layer_without_forward_derivatives_takes_reverse_ones() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return 2 * grad

    class Model(nn.Module):
        def __init__(self, own: bool) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 3)
            self.unused = nn.Parameter(torch.ones(2))
            self._own = own

        def forward(self, inputs: Tensor) -> Tensor:
            logits = self.linear(inputs)
            return Doubled.apply(logits) if self._own else 2 * logits  # type: ignore[no-any-return, no-untyped-call]

    own, plain = Model(True).eval(), Model(False).eval()
    own.load_state_dict(plain.state_dict())
    frozen_features, labels = torch.rand(4, 5), torch.tensor([0, 2, 1, 0])
    vector = [torch.randn_like(item) for item in own.parameters()]
    for actual, expected in zip(
        *(
            gauss_newton(item, frozen_features, torch.rand(4, generator=torch.Generator().manual_seed(0)), 0)(vector)
            for item in (own, plain)
        ),
        strict=True,
    ):
        assert torch.allclose(actual, expected, atol=1e-6)
    actual, expected = (inner_products(item, frozen_features, labels, vector) for item in (own, plain))
    assert actual.abs().min() > 0
    assert torch.allclose(actual, expected, atol=1e-6)
    assert not actual.requires_grad


def test_a_layer_that_fails_fails() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 3)
            self.passes = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.passes += 1
            if self.passes == 1:  # the pass that the product is of
                return self.linear(inputs)  # type: ignore[no-any-return]
            raise RuntimeError("out of order")

    product = gauss_newton(Broken().eval(), torch.rand(4, 5), torch.ones(4), 0)
    with pytest.raises(RuntimeError, match="out of order"):
        product([torch.ones(3, 5), torch.ones(3)])
