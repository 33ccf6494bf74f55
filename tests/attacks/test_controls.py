"""Controls do exactly what their names say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from encircle.attacks import IMF, BaseSamples, NoPoison, RandomNoise, Watch, choose_bases
from encircle.threat import Budget, Legal
from tests.attacks.problems import problem


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_unperturbed_bases_are_the_bases_of_the_attack(kind: Any, share: float) -> None:
    asked, budget = problem(kind), Budget(count=7)
    control = BaseSamples(target_share=share)(asked, budget, seeded())
    attack = IMF(models=1, epochs=1, target_share=share)(asked, budget, seeded())
    assert torch.equal(control.inputs, control.base_inputs)
    assert torch.equal(control.base_inputs, attack.base_inputs)
    assert torch.equal(control.bases, attack.bases)


@pytest.mark.parametrize("kind", ["image", "table"])
def test_noise_is_plus_or_minus_epsilon_before_range_and_rounding(kind: Any) -> None:
    asked, budget = problem(kind), Budget(count=40, epsilon=0.07)
    samples, bases = RandomNoise()._craft(asked, budget, 40, seeded(), Watch())
    shift = (samples - bases.inputs).double()
    torch.testing.assert_close(shift.abs(), torch.full_like(shift, 0.07), rtol=0, atol=1e-7)
    assert float((shift > 0).double().mean()) == pytest.approx(0.5, abs=0.1)
    assert torch.equal(bases.rows, choose_bases(asked, budget, 40, 0.1).rows)


def test_noise_uses_all_whole_levels_of_8_bit_files() -> None:
    poison = RandomNoise()(problem("image"), Budget(count=6), seeded())
    levels = ((poison.inputs - poison.base_inputs) * 255).round().abs()
    inside = (poison.base_inputs > 0.1) & (poison.base_inputs < 0.9)
    assert levels[inside].unique().tolist() == [25]


def test_copies_of_one_base_get_noise_of_their_own() -> None:
    poison = RandomNoise(target_share=1.0)(problem("table", legal=Legal()), Budget(count=4), seeded())
    assert len({tuple(row) for row in poison.inputs.tolist()}) == 4


def test_no_poison_is_none_whatever_the_budget() -> None:
    assert len(NoPoison()(problem("image"), Budget(fraction=0.9), seeded())) == 0
