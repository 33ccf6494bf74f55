"""Bases by retraining: only within pools, only for the better, the same for whoever asks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from encircle.attacks import BaseSamples, Influence, Problem, RandomNoise, choose_bases
from encircle.attacks import metagradient as module
from encircle.attacks.metagradient import exchanged
from encircle.core import InputError
from encircle.threat import Budget
from tests.attacks.problems import problem
from tests.training.problems import recipe


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS", 4)
    monkeypatch.setattr(module, "TRAININGS", 3)


def asked_of(kind: Any) -> Problem:
    return problem(kind, "cam", clean=30, how=recipe(start="checkpoint", epochs=3, batch_size=10, lr=0.1))


def uppers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """The seeds of all trainings, and where they ended."""
    plain, trainings = module.slopes_at_the_end, list[tuple[int, float]]()

    def spied(*arguments: Any, **settings: Any) -> Any:
        slopes, notes = plain(*arguments, **settings)
        trainings.extend((seed, note["upper"]) for seed, note in zip(arguments[5], notes, strict=True))
        return slopes, notes

    monkeypatch.setattr(module, "slopes_at_the_end", spied)
    return trainings


@pytest.mark.parametrize("kind", ["image", "table"])
def test_bases_are_exchanged_within_their_pools_and_for_the_better(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, trainings = asked_of(kind), uppers(monkeypatch)
    inputs, labels = asked.clean.batch(torch.arange(16)), asked.clean.labels[:16]
    pools = [torch.arange(6), torch.arange(6, 14)]
    places = exchanged(asked, inputs, labels, pools)
    for pool in pools:
        assert set(places[pool].tolist()) <= set(pool.tolist())
    assert places[14:].tolist() == [14, 15]  # in no pool
    assert places.tolist() != list(range(16))
    assert [seed for seed, _ in trainings] == list(range(15))  # a seed of its own for each
    rounds = torch.tensor([end for _, end in trainings]).reshape(5, 3).mean(dim=1)
    assert float(rounds.min()) < float(rounds[0])
    trainings.clear()
    exchanged(asked, inputs[places], labels[places], [])
    fresh_mean = torch.tensor([end for _, end in trainings[:3]]).mean()
    assert float(fresh_mean) == pytest.approx(
        float(rounds.min()), rel=0.2
    )  # what is handed out is what was best, by other seeds
    assert torch.equal(exchanged(asked, inputs, labels, pools), places)


def test_a_round_that_makes_it_worse_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_of("table")

    def worse_and_worse(*arguments: Any, **settings: Any) -> Any:
        return torch.arange(8.0).repeat(len(arguments[5]), 1), [{"upper": float(seed)} for seed in arguments[5]]

    monkeypatch.setattr(module, "slopes_at_the_end", worse_and_worse)
    inputs, labels = asked.clean.batch(torch.arange(8)), asked.clean.labels[:8]
    assert exchanged(asked, inputs, labels, [torch.arange(8)]).tolist() == list(range(8))


def test_the_part_with_the_steepest_fall_takes_the_places_of_that_with_the_steepest_rise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = asked_of("table")
    monkeypatch.setattr(module, "ROUNDS", 1)

    def better(*arguments: Any, **settings: Any) -> Any:
        slopes = torch.tensor([3.0, -2, 0, -9, 5, 1, 2, 4]).repeat(len(arguments[5]), 1)
        return slopes, [{"upper": -float(seed)} for seed in arguments[5]]

    monkeypatch.setattr(module, "slopes_at_the_end", better)
    inputs, labels = asked.clean.batch(torch.arange(8)), asked.clean.labels[:8]
    assert exchanged(asked, inputs, labels, [torch.arange(8)]).tolist() == [0, 1, 2, 3, 1, 5, 6, 3]


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.25, 0.5), (0.0, "balanced"), (0.6, 0.4)])
def test_classes_and_copies_of_the_target_stay_and_controls_have_the_same(shares: Any) -> None:
    asked, count = asked_of("table"), 11
    first = choose_bases(asked, Budget(count=count), count, *shares, "influential")
    bases = choose_bases(asked, Budget(count=count), count, *shares, "metagradient")
    assert torch.equal(first.labels == asked.label, bases.labels == asked.label)
    if shares[1] == "balanced":
        assert torch.equal(first.labels, bases.labels)
    assert torch.equal(first.rows < 0, bases.rows < 0)
    drawn = bases.rows >= 0
    assert torch.equal(asked.clean.labels[bases.rows[drawn]], bases.labels[drawn])
    assert torch.equal(bases.inputs[~drawn], first.inputs[~drawn])
    arguments: dict[str, Any] = dict(zip(("target_share", "other_share"), shares, strict=True)) | {
        "bases": "metagradient"
    }
    poison = Influence(models=1, epochs=1, **arguments)(asked, Budget(count=count), torch.Generator().manual_seed(3))
    for control in (BaseSamples(**arguments), RandomNoise(**arguments)):
        assert control.uses_explainer
        made = control(asked, Budget(count=count), torch.Generator().manual_seed(4))
        assert torch.equal(made.bases, poison.bases)
        assert torch.equal(made.base_inputs, poison.base_inputs)


def test_rows_that_are_overwritten_are_not_exchanged() -> None:
    with pytest.raises(InputError, match="bases: influential, or mode: inject"):
        choose_bases(asked_of("table"), Budget(count=5, mode="replace"), 5, 0.0, 0.4, "metagradient")


def test_an_order_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError):
        BaseSamples(bases="best")  # type: ignore[arg-type]
