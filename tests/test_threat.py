"""Budgets: sizes round down, and no projection ever leaves ball, range or legal values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from encircle.core import InputError
from encircle.data.poison import Poison
from encircle.threat import Budget, Column, Legal

SLACK = 1e-6  # float32 rounding of x - base; one 8-bit level is 0.0039
COLUMNS = {
    0: Column("immutable"),
    1: Column("integer", step=0.1),
    2: Column("integer", step=1 / 37),
    3: Column("categorical", values=(0.0, 0.05, 0.5, 1.0)),
}
EPSILONS = st.sampled_from([0.1, 0.03, 1 / 255, 25.5 / 255, 26 / 255, 0.0999, 0.5, 1.0]) | st.floats(1e-3, 1)


@st.composite
def samples_and_bases(draw: st.DrawFn, kind: str) -> tuple[Tensor, Tensor]:
    """Bases in range and samples anywhere: far outside, exactly on a boundary, or on the base."""
    shape = (3, 2, 4, 4) if kind == "image" else (6, 5)
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    base = torch.rand(shape, generator=random)
    if kind == "image":
        base = (base * 255).round() / 255
    else:  # rows of a real table: integers and categories hold legal values
        base[:, 3] = torch.tensor(COLUMNS[3].values)[torch.randint(4, (len(base),), generator=random)]
    corners = torch.rand(shape, generator=random)
    base = torch.where(corners < 0.1, 0.0, torch.where(corners > 0.9, 1.0, base))
    scale = draw(st.sampled_from([0.0, 0.01, 0.1, 0.3, 5.0]))
    return base + scale * torch.randn(shape, generator=random), base


def distance(samples: Tensor, base: Tensor, norm: str) -> float:
    shift = (samples.double() - base.double()).flatten(1)
    return float(shift.abs().max() if norm == "linf" else shift.norm(dim=1).max())


def assert_legal(samples: Tensor, base: Tensor, legal: Legal) -> None:
    if legal.levels:
        levels = samples.double() * legal.levels
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    for position, column in (legal.columns or {}).items():
        here, there = samples[:, position], base[:, position]
        if column.kind == "immutable":
            assert torch.equal(here, there)
        elif column.kind == "integer":
            steps = (here.double() - there.double()) / column.step
            torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
        else:
            allowed = torch.tensor(column.values)
            assert bool(((here[:, None] == allowed).any(dim=1) | (here == there)).all())


class TestProjection:
    @pytest.mark.parametrize("norm", ["linf", "l2"])
    @pytest.mark.parametrize(
        ("kind", "legal"),
        [("image", Legal(levels=255)), ("image", Legal()), ("table", Legal(columns=COLUMNS)), ("table", Legal())],
        ids=["image, 8 bit", "image", "table with types", "table"],
    )
    @given(data=st.data(), epsilon=EPSILONS)
    def test_keeps_ball_range_and_legal_values_and_changes_nothing_the_second_time(
        self, data: st.DataObject, kind: str, legal: Legal, norm: str, epsilon: float
    ) -> None:
        samples, base = data.draw(samples_and_bases(kind))
        budget = Budget(count=1, epsilon=epsilon, norm=norm)
        projected = budget.project(samples, base, legal)
        assert distance(projected, base, norm) <= epsilon + SLACK
        assert float(projected.min()) >= 0
        assert float(projected.max()) <= 1
        assert budget.excess(projected, base) <= 0
        assert_legal(projected, base, legal)
        again = budget.project(projected, base, legal)
        torch.testing.assert_close(again, projected, rtol=0, atol=2e-7)
        if legal.levels:
            assert torch.equal((again * 255).round(), (projected * 255).round())

    @given(data=st.data(), epsilon=EPSILONS)
    def test_moves_every_entry_towards_its_base_and_never_past_it(self, data: st.DataObject, epsilon: float) -> None:
        for kind, legal in (("image", Legal(levels=255)), ("table", Legal(columns=COLUMNS))):
            samples, base = data.draw(samples_and_bases(kind))
            moved = Budget(count=1, epsilon=epsilon).project(samples, base, legal)
            assert bool(((moved - base).abs() <= (samples - base).abs() + 5e-7).all())
            assert bool(((moved - base) * (samples - base) >= 0).all())

    @given(data=st.data())
    def test_legal_samples_inside_are_left_alone(self, data: st.DataObject) -> None:
        _, base = data.draw(samples_and_bases("image"))
        steps = torch.randint(-25, 26, base.shape, generator=torch.Generator().manual_seed(0))
        inside = ((base * 255).round() + steps).clamp(0, 255) / 255
        projected = Budget(count=1, epsilon=0.1).project(inside, base, Legal(levels=255))
        torch.testing.assert_close(projected, inside, rtol=0, atol=1e-7)

    @given(data=st.data(), epsilon=EPSILONS)
    def test_without_legal_values_linf_is_the_clipped_box(self, data: st.DataObject, epsilon: float) -> None:
        samples, base = data.draw(samples_and_bases("table"))
        projected = Budget(count=1, epsilon=epsilon).project(samples, base, Legal())
        for value, sample, centre in zip(projected.flatten(), samples.flatten(), base.flatten(), strict=True):
            lowest, highest = max(0.0, float(centre) - epsilon), min(1.0, float(centre) + epsilon)
            assert float(value) == pytest.approx(min(max(float(sample), lowest), highest), abs=2e-7)

    def test_a_tenth_is_25_levels_never_26(self) -> None:
        base = torch.arange(256).reshape(1, 1, 16, 16) / 255
        for sign in (1, -1):
            projected = Budget(count=1, epsilon=0.1).project(base + sign * 0.1, base, Legal(levels=255))
            levels = (projected * 255).round() - (base * 255).round()
            assert int(levels.abs().max()) == 25
            assert int((levels * sign).min()) >= 0

    def test_a_whole_number_of_levels_is_used_up(self) -> None:
        base = torch.full((1, 1, 1, 1), 100 / 255)
        projected = Budget(count=1, epsilon=26 / 255).project(base + 1, base, Legal(levels=255))
        assert float((projected * 255).round()) == 126

    def test_an_integer_just_out_of_reach_is_not_reached(self) -> None:
        legal = Legal(columns={0: Column("integer", step=0.1)})
        base = torch.tensor([[0.5]])
        for epsilon, reached in ((0.1, 0.6), (0.09999, 0.5), (0.0999, 0.5)):
            budget = Budget(count=1, epsilon=epsilon)
            projected = budget.project(base + 1, base, legal)
            assert float(projected) == pytest.approx(reached)
            assert budget.excess(projected, base) <= 0

    def test_a_category_is_only_left_when_another_is_in_reach(self) -> None:
        legal = Legal(columns={0: Column("categorical", values=(0.0, 0.3, 1.0))})
        base = torch.tensor([[0.3], [0.3], [0.3], [0.25]])
        samples = torch.tensor([[0.04], [0.0], [0.95], [0.29]])
        projected = Budget(count=1, epsilon=0.3).project(samples, base, legal)
        torch.testing.assert_close(projected, torch.tensor([[0.3], [0.0], [0.3], [0.25]]))

    def test_a_categorical_column_without_values_is_refused(self) -> None:
        legal = Legal(columns={0: Column("categorical")})
        with pytest.raises(InputError, match="needs its legal values"):
            Budget(count=1).project(torch.ones(1, 2), torch.ones(1, 2), legal)

    def test_nothing_to_project_stays_nothing(self) -> None:
        for legal, shape in ((Legal(levels=255), (0, 1, 4, 4)), (Legal(columns=COLUMNS), (0, 5))):
            budget = Budget(count=0)
            none = torch.zeros(shape)
            assert budget.project(none, none, legal).shape == shape
            assert budget.excess(none, none) == 0

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    @given(data=st.data(), epsilon=EPSILONS)
    def test_is_still_inside_when_read_back_from_8_bit_files(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        data: st.DataObject,
        norm: str,
        epsilon: float,
    ) -> None:
        samples, base = data.draw(samples_and_bases("image"))
        samples, base = samples[:, :1], base[:, :1]
        budget = Budget(count=len(samples), epsilon=epsilon, norm=norm)
        inputs = budget.project(samples, base, Legal(levels=255))
        labels = torch.zeros(len(inputs), dtype=torch.int64)
        folder = tmp_path_factory.mktemp("poison") / "poison"
        Poison(inputs, labels, labels, base, labels - 1).save(folder)
        read = Poison.load(folder, lambda rows: base)
        torch.testing.assert_close(read.inputs, inputs, rtol=0, atol=1e-7)
        assert budget.excess(read.inputs, read.base_inputs) <= 0
        assert distance(read.inputs, base, norm) <= epsilon + SLACK


class TestExcess:
    @pytest.mark.parametrize(("norm", "expected"), [("linf", 0.1), ("l2", 0.3 * 2**0.5 - 0.2)])
    def test_is_how_far_the_worst_sample_leaves_the_ball(self, norm: str, expected: float) -> None:
        base = torch.full((2, 4), 0.5)
        samples = base.clone()
        samples[1, :2] = 0.8
        assert Budget(count=1, epsilon=0.2, norm=norm).excess(samples, base) == pytest.approx(expected, abs=3e-6)

    def test_counts_leaving_the_range(self) -> None:
        base = torch.tensor([[0.0, 1.0]])
        assert Budget(count=1).excess(torch.tensor([[-0.05, 1.0]]), base) == pytest.approx(0.05, abs=3e-6)
        assert Budget(count=1).excess(torch.tensor([[0.0, 1.02]]), base) == pytest.approx(0.02, abs=3e-6)

    def test_one_8_bit_level_too_many_is_seen(self) -> None:
        base = torch.full((1, 1, 2, 2), 100 / 255)
        assert Budget(count=1, epsilon=25 / 255).excess(base + 26 / 255, base) > 0.003


class TestLegal:
    @given(data=st.data())
    def test_quantised_bases_are_what_a_file_holds(self, data: st.DataObject) -> None:
        base = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
        levels = Legal(levels=255).quantised(base)
        assert torch.equal(levels, (base * 255).round().to(torch.uint8) / 255)
        assert torch.equal(Legal().quantised(base), base)

    def test_relaxed_keeps_immutable_columns_and_leaves_the_rest_to_the_end(self) -> None:
        relaxed = Legal(columns=COLUMNS).relaxed()
        samples, base = torch.full((1, 5), 0.4), torch.full((1, 5), 0.45)
        assert relaxed.towards_base(samples, base)[0].tolist() == pytest.approx([0.45, 0.4, 0.4, 0.4, 0.4])
        assert Legal(levels=255).relaxed() == Legal(columns={})


class TestBudget:
    @pytest.mark.parametrize(
        ("fraction", "clean", "expected"),
        [(0.29, 100, 29), (0.1, 1797, 179), (0.1, 9, 0), (0.0, 100, 0), (0.07, 100, 7), (0.1, 10, 1), (0.999, 10, 9)],
    )
    def test_a_fraction_is_rounded_down(self, fraction: float, clean: int, expected: int) -> None:
        assert Budget(fraction=fraction).size(clean) == expected

    @given(st.integers(0, 1000), st.integers(1, 20_000))
    def test_a_fraction_written_as_a_ratio_gives_that_ratio(self, part: int, clean: int) -> None:
        fraction = part / 1001
        assert Budget(fraction=fraction).size(clean) == part * clean // 1001

    def test_a_count_is_a_count(self) -> None:
        assert Budget(count=7).size(8) == 7

    def test_a_count_as_large_as_the_clean_set_is_refused(self) -> None:
        with pytest.raises(InputError, match="not below the 7 clean samples"):
            Budget(count=7).size(7)

    @pytest.mark.parametrize(("norm", "reach"), [("linf", 0.5), ("l2", 0.25)])
    def test_how_far_every_entry_can_move_at_once(self, norm: Any, reach: float) -> None:
        base = torch.full((1, 4), 0.5)
        budget = Budget(count=1, epsilon=0.5, norm=norm)
        assert budget.entry_radius(base) == reach
        assert torch.allclose(budget.project(base + reach, base, Legal()), base + reach)
        assert not torch.allclose(
            budget.project(base + 1.01 * reach, base, Legal()), base + 1.01 * reach, rtol=0, atol=1e-4
        )

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"fraction": 0.1, "count": 3},
            {"fraction": 1.0},
            {"fraction": 1.5},
            {"fraction": -0.1},
            {"fraction": float("nan")},
            {"count": -1},
            {"count": 1.5},
            {"count": 1, "epsilon": 0.0},
            {"count": 1, "epsilon": -0.1},
            {"count": 1, "epsilon": 1.1},
            {"count": 1, "epsilon": float("nan")},
            {"count": 1, "norm": "l1"},
            {"count": 1, "mode": "delete"},
            {"count": 1, "epsilom": 0.1},
        ],
        ids=str,
    )
    def test_refuses_what_makes_no_sense(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Budget(**settings)

    def test_the_paper_s_ball_is_the_default(self) -> None:
        budget = Budget(fraction=0.1)
        assert (budget.epsilon, budget.norm, budget.mode) == (0.1, "linf", "inject")
