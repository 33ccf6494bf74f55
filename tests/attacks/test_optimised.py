"""What all attacks that move step by step share: attempts that are judged by surrogates held out, and a smooth L_adv."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from encircle.attacks import IMF, GradientMatching, OptimisedAttack, Problem, Watch
from encircle.attacks.objective import Objective
from encircle.attacks.optimised import VALIDATION_SURROGATES
from encircle.data.poison import Poison
from encircle.threat import Budget
from encircle.training import fit
from encircle.training.ensemble import VALIDATION_ROLE
from tests.attacks.problems import problem
from tests.training.problems import recipe, source


def crafted(attack: IMF, asked: Problem, seed: int = 0) -> tuple[Poison, list[dict[str, Any]]]:
    watch = Watch()
    return attack(asked, Budget(count=5, epsilon=0.3), torch.Generator().manual_seed(seed), watch), watch.history


class TestAttempts:
    @pytest.mark.parametrize("kind", ["image", "table"])
    @pytest.mark.parametrize("frozen", [0, 1])
    @pytest.mark.parametrize("mode", ["inject", "replace"])
    @pytest.mark.parametrize("lower", ["recipe", "plain"])
    def test_what_is_kept_is_what_bends_models_that_learn_from_it_anew(
        self, kind: Any, frozen: int, mode: Any, lower: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every attempt is judged by hand: victims of the held-out seeds, trained on the poison as it is handed in."""
        judged: list[float] = []
        planned_steps = OptimisedAttack._held_out_loss
        monkeypatch.setattr(
            OptimisedAttack, "_held_out_loss", lambda *arguments: judged.append(planned_steps(*arguments)) or judged[-1]
        )
        how = recipe(start="checkpoint", frozen_stages=frozen)
        asked = problem(kind, "cam", how=how)
        attack, budget, watch = (
            IMF(models=2, epochs=1, attempts=3, lower=lower),
            Budget(count=5, epsilon=0.3, mode=mode),
            Watch(),
        )
        best = attack(asked, budget, torch.Generator().manual_seed(0), watch)
        assert len(judged) == len(set(judged)) == 3
        assert {row["held_out"] for row in watch.history} == {min(judged)}
        assert {row["attempt"] for row in watch.history} == {judged.index(min(judged))}
        goal = Objective(asked.explainer, asked.target, asked.label, asked.desired, attack.distance, 0.1, 0.1)
        mixed = asked.clean.with_poison(best.inputs, best.labels, best.overwritten)
        judges = [
            fit(source(kind, dtype=torch.float32), how, mixed, VALIDATION_ROLE, seed)
            for seed in range(VALIDATION_SURROGATES)
        ]
        by_hand = sum(float(goal(judge)[0].detach()) for judge in judges) / VALIDATION_SURROGATES
        assert min(judged) == pytest.approx(by_hand, rel=1e-3)

    def test_one_attempt_is_not_judged_and_is_the_first_of_several(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = problem("image", "cam")
        alone, notes = crafted(IMF(models=2, epochs=1), asked)
        assert "attempt" not in notes[0]
        with monkeypatch.context() as patch:
            patch.setattr(OptimisedAttack, "_held_out_loss", lambda *arguments: 0.5)  # of equals the first is kept
            first, several = crafted(IMF(models=2, epochs=1, attempts=2), asked)
        assert [row["upper"] for row in several] == [row["upper"] for row in notes]
        assert torch.equal(first.inputs, alone.inputs)
        again, _ = crafted(IMF(models=2, epochs=1), asked)
        assert torch.equal(alone.inputs, again.inputs)

    def test_progress_is_of_all_attempts(self) -> None:
        calls = list[tuple[int, int]]()
        watch = Watch(progress=lambda done, planned: calls.append((done, planned)))
        IMF(models=1, epochs=1, attempts=2)(problem("table"), Budget(count=5), torch.Generator().manual_seed(0), watch)
        planned_steps = calls[0][1]
        assert [done for done, _ in calls] == list(range(1, planned_steps + 1))
        assert {planned for _, planned in calls} == {planned_steps}


class TestSoftplus:
    @pytest.mark.parametrize("kind", ["image", "table"])
    @pytest.mark.parametrize("explainer", ["grad", "cam"])
    def test_relus_count_as_softplus_in_l_adv(self, kind: Any, explainer: str) -> None:
        rough, smooth = (
            problem(kind, explainer, dtype=torch.float64, activation=variant) for variant in ("relu", "softplus")
        )
        model, same = (variant.ensemble(1, False).learners[0].model for variant in (rough, smooth))
        same.load_state_dict(model.state_dict())
        arguments = (rough.explainer, rough.target, 1, rough.desired, "cosine", 0.2, 0.1)
        actual = Objective(*arguments, softplus=1.0)(model)
        expected = Objective(*arguments)(same)
        torch.testing.assert_close(actual, expected)
        slopes = (
            torch.autograd.grad(variant[0].sum(), list(net.parameters()), materialize_grads=True)
            for variant, net in ((actual, model), (expected, same))
        )
        torch.testing.assert_close(next(slopes), next(slopes))

    @pytest.mark.parametrize("explainer", ["grad", "cam"])
    def test_the_sharper_the_nearer_to_the_network_itself(self, explainer: str) -> None:
        asked = problem("image", explainer, dtype=torch.float64, activation="relu")
        model = asked.references[0]
        arguments = (asked.explainer, asked.target, 1, asked.desired, "cosine", 0.2, 0.1)
        exact = float(Objective(*arguments)(model)[0].detach())
        far = [
            abs(float(Objective(*arguments, softplus=variant)(model)[0].detach()) - exact)
            for variant in (3.0, 30.0, 3000.0)
        ]
        assert far[0] > far[1] > far[2]
        assert far[2] < 1e-3

    def test_only_l_adv_sees_it(self) -> None:
        """What is crafted moves otherwise, and the surrogates that are trained keep their ReLUs."""
        asked = problem("table", "grad", activation="relu")
        plain, notes = crafted(IMF(models=1, epochs=1), asked)
        smooth, others = crafted(IMF(models=1, epochs=1, softplus=2.0), asked)
        assert not torch.equal(plain.inputs, smooth.inputs)
        assert notes[0]["lower"] == pytest.approx(others[0]["lower"], rel=0.05)

    def test_works_where_members_are_computed_at_once(self) -> None:
        from encircle.training import CodePath

        asked = problem("image", "cam", dtype=torch.float64, activation="relu")
        goal = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.2, 0.1, 4.0)
        actual = []
        for way in ("loop", "vectorised"):
            ensemble = asked.ensemble(2, True)
            ensemble.path = CodePath(way, "reverse")  # type: ignore[arg-type]
            actual.append(goal(ensemble.joined, 2)[0].detach())
        torch.testing.assert_close(*actual)


def test_matching_too_can_make_several_attempts() -> None:
    watch = Watch()
    attack = GradientMatching(models=1, epochs=1, attempts=2)
    attack(problem("table"), Budget(count=5), torch.Generator().manual_seed(0), watch)
    assert len({row["attempt"] for row in watch.history}) == 1
