"""What holds for every attack: one table of attacks, images and tables; and what the base class does not trust."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from encircle.attacks import (
    IMF,
    Attack,
    BackGradient,
    Bases,
    BaseSamples,
    FeatureEncirclement,
    GradientMatching,
    Influence,
    NoPoison,
    Problem,
    ProjectedWatermark,
    RandomNoise,
    Unrolled,
    Watch,
    Watermark,
    choose_bases,
)
from encircle.attacks.bases import base_inputs
from encircle.core import EncircleError, InputError
from encircle.data import TensorSamples
from encircle.data.poison import Poison
from encircle.explain import Attribution, Explainer
from encircle.threat import Budget, Legal
from encircle.training import Ensemble
from tests.attacks.problems import COLUMNS, problem
from tests.training.problems import same, weights

ATTACKS: dict[str, Attack] = {
    "clean": NoPoison(),
    "base": BaseSamples(),
    "noise": RandomNoise(),
    "watermark": Watermark(),
    "watermark-projected": ProjectedWatermark(),
    "imf": IMF(models=2, epochs=1),
    "influence": Influence(models=2, epochs=1),
    "matching": GradientMatching(models=2, epochs=1),
    "unrolled": Unrolled(models=2, epochs=1),
    "back-gradient": BackGradient(models=1, epochs=2, last_steps=2),
    "back-gradient by all means": BackGradient(
        models=1, epochs=1, attempts=2, bases="influential", step="adam", momentum=0.5
    ),
    "encirclement": FeatureEncirclement(models=2, epochs=1),
    "aligned bases": BaseSamples(bases="aligned"),
    "influential bases": RandomNoise(bases="influential"),
    "influence by all means": Influence(models=2, epochs=1, attempts=2, bases="influential", poison_batch="batch"),
    "matching, best of two": GradientMatching(models=2, epochs=1, attempts=2, softplus=5.0, bases="aligned"),
    "matching by adam": GradientMatching(models=2, epochs=1, step="adam", poison_batch="batch", distance="mixed"),
    "imf as printed": IMF(
        models=2,
        epochs=1,
        distance="none",
        hinge=None,
        step="raw",
        gamma=1e4,
        form="finite-difference",
        lower="plain",
        staggered=False,
        restart=False,
        poison_batch="batch",
    ),
}
"""A new attack adds a row."""
KINDS = ["image", "table"]
BUDGETS = {
    "count": Budget(count=6),
    "fraction": Budget(fraction=0.2),
    "one": Budget(count=1),
    "l2": Budget(count=5, epsilon=0.3, norm="l2"),
    "replace": Budget(count=6, mode="replace"),
}


@pytest.fixture(scope="module", params=KINDS)
def asked(request: pytest.FixtureRequest) -> Problem:
    return problem(request.param)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits(poison: Poison) -> list[Any]:
    return [getattr(poison, name).tolist() for name in ("inputs", "labels", "bases", "base_inputs", "overwritten")]


@pytest.mark.parametrize("name", ATTACKS)
class TestEveryAttack:
    @pytest.mark.parametrize("budget", BUDGETS)
    def test_keeps_to_the_budget_and_says_what_it_was_made_from(self, name: str, budget: str, asked: Problem) -> None:
        attack, bound = ATTACKS[name], BUDGETS[budget]
        poison = attack(asked, bound, seeded())
        assert len(poison) == (0 if name == "clean" else bound.size(len(asked.clean)))
        assert poison.inputs.shape == (len(poison), *asked.target.shape[1:])
        assert poison.inputs.dtype == torch.float32
        assert bool(poison.inputs.isfinite().all())
        assert bool(((poison.inputs >= 0) & (poison.inputs <= 1)).all())
        if attack.bounded:
            assert bound.excess(poison.inputs, poison.base_inputs) <= 0
        assert_legal(poison, asked)
        expected = base_inputs(asked.clean, asked.target, asked.legal, poison.bases)
        assert torch.equal(poison.base_inputs, expected)
        clean = [asked.label if row < 0 else int(asked.clean.labels[row]) for row in poison.bases.tolist()]
        assert poison.labels.tolist() == clean
        if not getattr(attack, "other_share", 0):
            assert clean == [asked.label] * len(poison)
        if bound.mode == "inject":
            assert poison.overwritten.tolist() == [-1] * len(poison)
        else:
            assert torch.equal(poison.overwritten, poison.bases)
            rows = poison.overwritten[poison.overwritten >= 0].tolist()
            assert len(set(rows)) == len(rows)

    def test_the_same_generator_gives_the_same_poison(self, name: str, asked: Problem) -> None:
        first, second = (ATTACKS[name](asked, Budget(count=5), seeded(3)) for _ in range(2))
        assert bits(first) == bits(second)
        if name in {"noise", "imf"}:
            assert bits(first) != bits(ATTACKS[name](asked, Budget(count=5), seeded(4)))

    @pytest.mark.parametrize("nothing", [Budget(count=0), Budget(fraction=0.0), Budget(fraction=0.04)], ids=str)
    def test_no_budget_is_no_poison(self, name: str, nothing: Budget, asked: Problem) -> None:
        poison = ATTACKS[name](asked, nothing, seeded())
        assert poison.inputs.shape == poison.base_inputs.shape == (0, *asked.target.shape[1:])
        assert len(poison.labels) == len(poison.bases) == len(poison.overwritten) == 0
        mixed = asked.clean.with_poison(poison.inputs, poison.labels, poison.overwritten)
        assert torch.equal(mixed.batch(torch.arange(len(mixed))), asked.clean.batch(torch.arange(len(asked.clean))))

    def test_changes_nothing_that_it_was_given(self, name: str, asked: Problem) -> None:
        ensemble = asked.ensemble(2, True)
        watched = replace(asked, ensemble=lambda members, staggered: ensemble.copy())
        assert isinstance(asked.clean, TensorSamples)
        inputs, target = asked.clean.inputs.clone(), asked.target.clone()
        models = [*asked.references, *(learner.model for learner in ensemble.learners)]
        saved_states = [weights(model) for model in models]
        state = torch.get_rng_state()
        ATTACKS[name](watched, Budget(count=5), seeded())
        assert torch.equal(asked.clean.inputs, inputs)
        assert torch.equal(asked.target, target)
        assert all(same(saved_state, weights(model)) for saved_state, model in zip(saved_states, models, strict=True))
        assert torch.equal(torch.get_rng_state(), state)

    def test_is_inside_when_read_back_from_files(self, name: str, asked: Problem, tmp_path: Path) -> None:
        budget, attack = Budget(count=5), ATTACKS[name]
        poison = attack(asked, budget, seeded())
        poison.save(tmp_path / "poison")
        read = Poison.load(tmp_path / "poison", lambda rows: base_inputs(asked.clean, asked.target, asked.legal, rows))
        torch.testing.assert_close(read.inputs, poison.inputs, rtol=0, atol=1e-7)
        assert torch.equal(read.base_inputs, poison.base_inputs)
        if attack.bounded:
            assert budget.excess(read.inputs, read.base_inputs) <= 0
        elif name != "clean":
            assert budget.excess(read.inputs, read.base_inputs) > 0

    def test_a_misspelt_setting_is_an_error(self, name: str, asked: Problem) -> None:
        with pytest.raises(ValidationError):
            type(ATTACKS[name])(target_shar=0.5)

    def test_an_explainer_without_gradients_is_refused_by_name_where_one_is_needed(
        self, name: str, asked: Problem
    ) -> None:
        class Occlusion(Explainer):
            differentiable: ClassVar[bool] = False
            title: ClassVar[str] = "occlusion"

            def _attribute(
                self, model: nn.Module, inputs: Tensor, target: Tensor, graph: bool, random: torch.Generator
            ) -> Attribution:
                shape = (len(inputs), *asked.desired.values.shape)
                return Attribution(torch.rand(shape, generator=seeded()))

        blunt = replace(asked, explainer=Occlusion())
        if ATTACKS[name].needs_gradient:
            with pytest.raises(
                InputError, match=f"{ATTACKS[name].title} differentiates through the explainer and Occlusion"
            ):
                ATTACKS[name](blunt, Budget(count=0), seeded())
        else:
            ATTACKS[name](blunt, Budget(count=3), seeded())

    def test_does_not_ask_for_an_explanation_it_says_it_does_not_use(self, name: str, asked: Problem) -> None:
        class Forbidden(Explainer):
            title: ClassVar[str] = "forbidden"

            def _attribute(
                self, model: nn.Module, inputs: Tensor, target: Tensor, graph: bool, random: torch.Generator
            ) -> Attribution:
                raise AssertionError

        def run() -> None:
            ATTACKS[name](replace(asked, explainer=Forbidden()), Budget(count=3), seeded())

        if ATTACKS[name].uses_explainer:
            with pytest.raises(AssertionError):
                run()
        else:
            run()


def assert_legal(poison: Poison, asked: Problem) -> None:
    if asked.legal.levels:
        levels = poison.inputs.double() * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
        return
    steps = (poison.inputs - poison.base_inputs).double()
    assert torch.equal(poison.inputs[:, 0], poison.base_inputs[:, 0])
    torch.testing.assert_close(steps[:, 1] * 50, (steps[:, 1] * 50).round(), rtol=0, atol=1e-4)
    allowed = torch.tensor(COLUMNS[2].values)
    assert bool((poison.inputs[:, 2, None] == allowed).any(dim=1).all())


def test_kinds_and_titles_tell_attacks_apart() -> None:
    types = {type(attack) for attack in ATTACKS.values()}
    for attribute in ("kind", "title"):
        assert len({getattr(kind(), attribute) for kind in types}) == len(types)


class Careless(Attack):
    """Returns what it is told to; nothing about it is checked but by the base class."""

    kind = "careless"
    title = "careless"

    def __init__(self, make: Any, bounded: bool = True) -> None:
        self.make = make
        self.bounded = bounded  # type: ignore[misc]

    def _craft(
        self, problem: Problem, budget: Budget, count: int, random: torch.Generator, watch: Watch
    ) -> tuple[Tensor, Bases]:
        bases = choose_bases(problem, budget, count, 0.5)
        return self.make(bases.inputs), bases


class TestBaseClass:
    @pytest.mark.parametrize("norm", ["linf", "l2"])
    @pytest.mark.parametrize("make", [lambda b: b + 7, lambda b: b - 0.3, lambda b: 1 - b], ids=["+7", "-0.3", "1-b"])
    def test_projects_what_leaves_the_ball(self, make: Any, norm: Any, asked: Problem) -> None:
        budget = Budget(count=4, norm=norm)
        poison = Careless(make)(asked, budget, seeded())
        assert budget.excess(poison.inputs, poison.base_inputs) <= 0
        assert_legal(poison, asked)
        assert not torch.equal(poison.inputs, poison.base_inputs)

    def test_an_unbounded_attack_still_keeps_range_and_legal_values(self, asked: Problem) -> None:
        poison = Careless(lambda b: b + 7, bounded=False)(asked, Budget(count=4), seeded())
        assert float(poison.inputs.max()) == 1
        assert_legal(poison, asked)

    @pytest.mark.parametrize("bounded", [True, False])
    @pytest.mark.parametrize(
        "make",
        [
            lambda b: b[:-1],
            lambda b: b[:1],
            lambda b: b[..., :-1],
            lambda b: b[..., :1],
            lambda b: b[None],
            lambda b: torch.cat([b, b]),
            lambda b: torch.full_like(b, torch.nan),
            lambda b: torch.where(torch.arange(b.numel()).reshape(b.shape) == 1, torch.inf, b),
            lambda b: torch.where(torch.arange(b.numel()).reshape(b.shape) % 5 == 2, torch.nan, b),
            lambda b: torch.where(torch.arange(b.numel()).reshape(b.shape) % 5 == 0, torch.nan, b),
        ],
        ids=[
            "one less",
            "one",
            "narrow",
            "broadcast",
            "extra dim",
            "twice",
            "nan",
            "inf",
            "nan in a category",
            "nan fixed",
        ],
    )
    def test_damaged_samples_are_an_error(self, make: Any, bounded: bool, asked: Problem) -> None:
        with pytest.raises(EncircleError, match="careless returned damaged poison"):
            Careless(make, bounded)(asked, Budget(count=4), seeded())

    def test_more_poison_than_the_budget_allows_is_an_error(self, asked: Problem) -> None:
        class Greedy(Careless):
            def _craft(self, problem: Problem, budget: Budget, count: int, *rest: Any) -> tuple[Tensor, Bases]:
                bases = choose_bases(problem, budget, count + 1, 0.5)
                return bases.inputs, bases

        with pytest.raises(EncircleError, match=r"careless made 5 samples .* 4"):
            Greedy(None)(asked, Budget(count=4), seeded())


def test_replacing_keeps_the_size_of_the_set(asked: Problem) -> None:
    poison = IMF(models=1, epochs=1)(asked, Budget(count=6, mode="replace"), seeded())
    mixed = asked.clean.with_poison(poison.inputs, poison.labels, poison.overwritten)
    copies = int((poison.bases < 0).sum())
    assert copies == round(0.1 * 6)
    assert len(mixed) == len(asked.clean) + copies


def test_ensembles_are_asked_for_as_configured(asked: Problem) -> None:
    calls: list[tuple[int, bool]] = []

    def ensemble(members: int, staggered: bool) -> Ensemble:
        calls.append((members, staggered))
        return asked.ensemble(members, staggered)

    watched = replace(asked, ensemble=ensemble)
    IMF(models=3, epochs=1, staggered=False, restart=False)(watched, Budget(count=2), seeded())
    RandomNoise()(watched, Budget(count=2), seeded())
    assert calls == [(3, False)]


def test_a_problem_can_be_attacked_twice(asked: Problem) -> None:
    again = copy.deepcopy(asked.clean)
    IMF(models=1, epochs=1)(asked, Budget(count=3), seeded())
    rows = torch.arange(len(again))
    assert torch.equal(again.batch(rows), asked.clean.batch(rows))


def test_the_default_range_is_the_only_law_without_legal_values() -> None:
    asked = problem("table", legal=Legal())
    poison = Careless(lambda b: b + 0.05)(asked, Budget(count=4), seeded())
    torch.testing.assert_close(poison.inputs, (poison.base_inputs + 0.05).clamp(max=1))
