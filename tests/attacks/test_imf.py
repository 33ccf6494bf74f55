"""IMF equals a plain-loop Algorithm 1, and its two forms equal each other where they should."""

from __future__ import annotations

import itertools
import random as python_random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from encircle.attacks import IMF, Problem, Watch, choose_bases
from encircle.attacks.imf import exact, finite_difference
from encircle.attacks.objective import Objective
from encircle.attacks.optimised import stepped
from encircle.threat import Budget, Column, Legal
from encircle.training import CodePath, Ensemble, Learner
from encircle.training.derivatives import loss_of
from encircle.training.frozen import frozen_forward, trainable, trainable_forward
from tests.attacks.problems import NO_CLEAN, distance_at_the_end, first_time, problem
from tests.networks import tiny
from tests.reference import algorithm1 as reference
from tests.training.problems import recipe, same, weights

KINDS = ["image", "table"]
EXPLAINERS = ["grad", "cam"]
FROZEN_ENTRIES = {"image": 4, "table": 2}  # entries of θ in the first stage
PLAIN = {
    "models": 2,
    "epochs": 2,
    "gamma": 0.3,
    "target_share": 0.2,
    "form": "exact",
    "step": "normalised",
    "alpha": 0.01,
    "label_weight": 0.2,
}


def learnt_from(learner: Learner) -> reference.Net:
    """What the reference calls a net, from one of ours."""
    model = learner.model
    means = [value.clone() for name, value in model.named_buffers() if name.endswith("running_mean")]
    variances = [value.clone() for name, value in model.named_buffers() if name.endswith("running_var")]
    learning = trainable(model)
    state = learner.optimiser.state
    velocity = [state[p]["momentum_buffer"].clone() if p in state else torch.zeros_like(p) for p in learning]
    theta = [value.detach().clone() for value in model.parameters()]
    return reference.Net(theta, list(zip(means, variances, strict=True)), velocity, learner.taken)


class Comparison:
    """One crafting by `IMF` and by the reference, from the same start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: Any, explainer: str, settings: dict[str, Any]) -> None:
        imf = IMF(**{**PLAIN, **{name: value for name, value in settings.items() if name in IMF.__dataclass_fields__}})
        frozen = settings.get("frozen", 0)
        how = recipe(
            start="checkpoint", frozen_stages=frozen, lr=0.05, batch_size=6, schedule=settings.get("schedule", "cosine")
        )
        legal = Legal(columns={0: Column("immutable")}) if kind == "table" else Legal()
        asked = problem(
            kind, explainer, dtype=torch.float64, how=how, mask=settings.get("mask", False), legal=legal, clean=14
        )
        budget = Budget(
            count=settings.get("count", 5),
            epsilon=settings.get("epsilon", 0.1),
            norm=settings.get("norm", "linf"),
            mode=settings.get("mode", "inject"),
        )
        bases = choose_bases(asked, budget, budget.size(len(asked.clean)), imf.target_share)
        rows = bases.rows.tolist() if budget.mode == "replace" else [-1] * len(bases.rows)

        self.ensembles: list[Ensemble] = []
        self.nets: list[reference.Net] = []

        def ensemble(members: int, staggered: bool) -> Ensemble:
            self.ensembles.append(asked.ensemble(members, staggered))
            self.ensembles[0].path = CodePath(*settings.get("path", ("loop", "reverse")))
            self.nets = [learnt_from(learner) for learner in self.ensembles[0].learners]
            self.total = self.ensembles[0].total_steps
            return self.ensembles[0]

        self.deltas: list[Tensor] = []
        direction = IMF._direction

        def watched(self_: IMF, *arguments: Any, **named: Any) -> Any:
            actual = direction(self_, *arguments, **named)
            self.deltas.append(actual[0].clone())
            return actual

        monkeypatch.setattr(IMF, "_direction", watched)
        self.watch = Watch()
        parts = {name: getattr(asked, name) for name in asked.__dataclass_fields__}
        self.poison = imf(
            Problem(**{**parts, "ensemble": ensemble}), budget, torch.Generator().manual_seed(11), self.watch
        )
        if imf.lower == "plain":
            for net in self.nets:
                net.velocity = [torch.zeros_like(item) for item in net.velocity]
        plain = imf.lower == "plain"
        lr = imf.alpha if plain else how.lr
        constant = plain or how.schedule == "constant"
        fresh = learnt_from(Learner(tiny(kind), how, 1))
        assert isinstance(asked.desired.values, Tensor)
        entries = FROZEN_ENTRIES[kind] if frozen else 0
        fresh.velocity = [torch.zeros_like(item) for item in fresh.theta[entries:]]
        setting = reference.Setting(
            T=asked.target,
            c=asked.label,
            G=asked.desired.values.double(),
            M=asked.desired.mask,
            features=reference.image_features if kind == "image" else reference.table_features,
            interpreter=explainer,
            distance=imf.distance,
            lambda1=imf.poison_weight,
            lambda2=imf.label_weight,
            hinge=imf.hinge,
            alpha=imf.alpha,
            gamma=imf.gamma,
            epsilon=budget.epsilon,
            norm=budget.norm,
            step=imf.step,
            decay=imf.decay,
            momentum=imf.momentum,
            form=imf.form,
            poison_batch=imf.poison_batch,
            frozen=entries,
            immutable=[0] if kind == "table" else [],
            rate=(lambda progress: lr) if constant else (lambda progress: reference.cosine_rate(lr, progress)),
            sgd_momentum=0.0 if plain else how.momentum,
            weight_decay=0.0 if plain else how.weight_decay,
            total_steps=self.total,
            batch_size=how.batch_size,
            E=imf.epochs,
            restart=imf.restart,
        )
        self.setting = setting
        self.expected = reference.algorithm1(
            setting,
            asked.clean.batch(torch.arange(len(asked.clean))),
            asked.clean.labels,
            bases.inputs,
            bases.labels,
            rows,
            self.nets,
            fresh,
            frozen,
            torch.Generator().manual_seed(11),
        )
        self.bases = bases

    def assert_equal(self) -> None:
        close = {"rtol": 1e-6, "atol": 1e-12}
        assert len(self.deltas) == len(self.expected.deltas) > 2
        for actual, expected in zip(self.deltas, self.expected.deltas, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
            assert float(expected.abs().max()) > 0
        torch.testing.assert_close(self.poison.inputs, self.expected.P, **close)
        for learner, net in zip(self.ensembles[0].learners, self.nets, strict=True):
            assert learner.taken == net.taken
            for value, expected in zip(learner.model.parameters(), net.theta, strict=True):
                torch.testing.assert_close(value.detach(), expected, **close)
            running = [value for name, value in learner.model.named_buffers() if name.endswith(("_mean", "_var"))]
            for value, expected in zip(running, itertools.chain(*net.statistics), strict=True):
                torch.testing.assert_close(value, expected, **close)
        assert len(self.watch.history) == len(self.expected.history)
        for actual, expected in zip(self.watch.history, self.expected.history, strict=True):
            assert {name: actual.get(name) for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-12)


VARIATIONS: dict[str, dict[str, Any]] = {
    "as it stands": {},
    "one model": {"models": 1},
    "three models": {"models": 3},
    "finite difference": {"form": "finite-difference"},
    "frozen trunk": {"frozen": 1},
    "frozen trunk, finite difference": {"frozen": 1, "form": "finite-difference", "models": 3},
    "poison of the mini-batch": {"poison_batch": "batch"},
    "raw steps": {"step": "raw", "gamma": 30.0},
    "signs": {"step": "sign"},
    "plain lower level": {"lower": "plain"},
    "constant rate": {"schedule": "constant"},
    "pulled towards the target": {"poison_weight": 1e-3},
    "no restart": {"restart": False, "models": 3, "epochs": 4},
    "restart": {"restart": True, "models": 3, "epochs": 4},
    "not staggered": {"staggered": False, "restart": False, "schedule": "constant"},
    "momentum": {"momentum": 0.7},
    "no decay": {"decay": False},
    "raw distance": {"distance": "none"},
    "max distance": {"distance": "max"},
    "min-max distance": {"distance": "minmax"},
    "mixed distance": {"distance": "mixed"},
    "plain label term": {"hinge": None},
    "masked": {"mask": True},
    "l2 ball": {"norm": "l2", "epsilon": 0.5},
    "replacing": {"mode": "replace", "count": 4},
    "the paper's letter": {
        "distance": "none",
        "hinge": None,
        "step": "raw",
        "gamma": 100.0,
        "form": "finite-difference",
        "lower": "plain",
        "staggered": False,
        "restart": False,
        "poison_batch": "batch",
    },
}


EVERYWHERE = {
    "as it stands",
    "finite difference",
    "frozen trunk",
    "frozen trunk, finite difference",
    "the paper's letter",
}
CASES = [
    (name, kind, explainer)
    for index, name in enumerate(VARIATIONS)
    for kind in KINDS
    for explainer in EXPLAINERS
    # What is not tried everywhere is tried with each kind of data and with each explainer, in turn this way and that.
    if name in EVERYWHERE or ((kind == "image") == (explainer == "grad")) == bool(index % 2)
]


PATHS = [(members, product) for members in ("loop", "vectorised") for product in ("reverse", "forward")]


@pytest.mark.parametrize(
    ("path", "name", "kind", "explainer"),
    # Each setting by the obvious path and by the one that is furthest from it; what is tried everywhere, by all.
    [(path, *case) for case in CASES for path in PATHS if case[0] in EVERYWHERE or path in {PATHS[0], PATHS[-1]}],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_equals_the_plain_loop(
    monkeypatch: pytest.MonkeyPatch, path: tuple[str, str], name: str, kind: str, explainer: str
) -> None:
    Comparison(monkeypatch, kind, explainer, {**VARIATIONS[name], "path": path}).assert_equal()


def combinations(count: int) -> list[dict[str, Any]]:
    """Settings drawn together, so that they are also tried in each other's company."""
    draw = python_random.Random(0)
    choices: dict[str, list[Any]] = {
        "kind": KINDS,
        "explainer": EXPLAINERS,
        "models": [1, 3],
        "form": ["exact", "finite-difference"],
        "frozen": [0, 1],
        "poison_batch": ["batch", "all"],
        "step": ["raw", "normalised", "sign"],
        "lower": ["recipe", "plain"],
        "restart": [True, False],
        "poison_weight": [0.0, 1e-3],
        "momentum": [0.0, 0.5],
        "mask": [True, False],
        "distance": ["none", "max", "minmax", "cosine", "mixed"],
        "mode": ["inject", "replace"],
        "count": [3, 4],
        "path": PATHS,
    }
    return [{name: draw.choice(values) for name, values in choices.items()} for _ in range(count)]


@pytest.mark.parametrize("settings", combinations(24), ids=lambda s: "-".join(str(v) for v in s.values()))
def test_equals_the_plain_loop_whatever_is_combined(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    rest = {name: value for name, value in settings.items() if name not in {"kind", "explainer"}}
    if settings["step"] == "raw":
        rest["gamma"] = 30.0
    Comparison(monkeypatch, settings["kind"], settings["explainer"], rest).assert_equal()


def test_members_were_begun_anew_in_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    restarted = Comparison(monkeypatch, "table", "grad", VARIATIONS["restart"])
    assert restarted.ensembles[0]._restarts >= 2
    running = Comparison(monkeypatch, "table", "grad", VARIATIONS["no restart"])
    assert running.ensembles[0]._restarts == 0
    assert max(learner.taken for learner in running.ensembles[0].learners) > running.ensembles[0].total_steps


def of_objective(kind: Any, explainer: str) -> tuple[Objective, Problem]:
    asked = problem(kind, explainer, dtype=torch.float64)
    return Objective(asked.explainer, asked.target, asked.label, asked.desired, "cosine", 0.2, 0.1), asked


def pieces(kind: Any, explainer: str, frozen: int, activation: Any = "softplus") -> tuple[Any, ...]:
    """A model with some frozen stages, poison as they see it, labels, and the attack's gradient."""
    wanted, asked = of_objective(kind, explainer)
    model = tiny(kind, activation=activation, seed=4)
    for stage in model.stages[:frozen]:
        stage.requires_grad_(False)
    rows = torch.arange(6)
    poison, labels = asked.clean.batch(rows), asked.clean.labels[rows]
    attack_gradient = torch.autograd.grad(wanted(model)[0], trainable(model), materialize_grads=True)
    return model, frozen_forward(model, poison, frozen).detach(), labels, attack_gradient


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("explainer", EXPLAINERS)
@pytest.mark.parametrize("frozen", [0, 1, 2])
class TestForms:
    @pytest.mark.parametrize("activation", ["softplus", "tanh"])
    def test_agree_on_a_smooth_network_as_alpha_goes_to_zero(
        self, kind: Any, explainer: str, frozen: int, activation: Any
    ) -> None:
        parts = pieces(kind, explainer, frozen, activation)
        errors = [
            relative(finite_difference(*parts, alpha, frozen), exact(*parts, alpha, frozen)) for alpha in (1e-3, 1e-5)
        ]
        assert errors[1] < 1e-4
        assert errors[1] < errors[0] / 20  # an error of first order in α

    def test_finite_difference_leaves_the_parameters_bit_identical(
        self, kind: Any, explainer: str, frozen: int
    ) -> None:
        model, *rest = pieces(kind, explainer, frozen)
        before_, flags = weights(model), [value.requires_grad for value in model.parameters()]
        finite_difference(model, *rest, 0.7, frozen)
        exact(model, *rest, 0.7, frozen)
        assert same(before_, weights(model))
        assert [value.requires_grad for value in model.parameters()] == flags
        assert all(value.grad is None for value in model.parameters())
        assert not model.training

    @pytest.mark.parametrize("form", [finite_difference, exact])
    def test_a_sample_s_direction_does_not_depend_on_the_others(
        self, kind: Any, explainer: str, frozen: int, form: Any
    ) -> None:
        model, frozen_features, labels, attack_gradient = pieces(kind, explainer, frozen)
        together = form(model, frozen_features, labels, attack_gradient, 0.01, frozen)
        for index in range(len(labels)):
            item = slice(index, index + 1)
            alone = form(model, frozen_features[item], labels[item], attack_gradient, 0.01, frozen)
            torch.testing.assert_close(alone[0], together[index], rtol=1e-6, atol=1e-12)

    def test_a_small_step_along_it_raises_the_inner_product_of_the_two_gradients(
        self, kind: Any, explainer: str, frozen: int
    ) -> None:
        """What δ is for: the poison's gradient should point where the attack wants θ to go."""
        model, frozen_features, labels, attack_gradient = pieces(kind, explainer, frozen)

        def product(at: Tensor) -> float:
            slopes = torch.autograd.grad(loss_of(trainable_forward(model, at, frozen), labels), trainable(model))
            return float(sum((item * other).sum() for item, other in zip(slopes, attack_gradient, strict=True)))

        delta = exact(model, frozen_features, labels, attack_gradient, 1.0, frozen)
        size = 1e-6 / float(delta.norm())
        gained = (product(frozen_features + size * delta) - product(frozen_features - size * delta)) / (2 * size)
        assert gained == pytest.approx(float(delta.norm()) ** 2, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_loss_is_a_sum_over_samples(kind: Any) -> None:
    model, frozen_features, labels, _ = pieces(kind, "cam", 1)
    expected = sum(
        F.cross_entropy(model.late(item[None], 1), label[None])
        for item, label in zip(frozen_features, labels, strict=True)
    )
    torch.testing.assert_close(loss_of(trainable_forward(model, frozen_features, 1), labels), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["finite-difference", "exact"])
@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("frozen", [1, 2])
def test_one_pass_through_the_shared_stages_equals_a_full_pass_a_model(
    kind: Any, form: Any, models: int, frozen: int
) -> None:
    asked = problem(kind, dtype=torch.float64, how=recipe(start="checkpoint", frozen_stages=frozen))
    objective = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.2, 0.1)
    ensemble = asked.ensemble(models, True)
    rows = torch.arange(5)
    poison, labels = asked.clean.batch(rows), asked.clean.labels[rows]
    imf = IMF(models=models, form=form, alpha=1e-3)
    fast, _ = imf._direction(ensemble, objective, poison, labels, clean=NO_CLEAN, **first_time())
    slow = torch.zeros_like(poison)
    for learner in ensemble.learners:
        gradient = torch.autograd.grad(objective(learner.model)[0], trainable(learner.model), materialize_grads=True)
        full = finite_difference if form == "finite-difference" else exact
        slow += full(learner.model, poison, labels, gradient, 1e-3, 0) / models  # 0: through every stage
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-6 * float(slow.abs().max()))


@pytest.mark.parametrize("form", ["finite-difference", "exact"])
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_class_s_weight_multiplies_its_samples_gradient(form: Any, frozen: int) -> None:
    actual = []
    for class_weights in (None, (1.0, 3.0, 0.5)):
        how = recipe(start="checkpoint", frozen_stages=frozen)
        asked = problem("image", dtype=torch.float64, how=how)
        objective = Objective(asked.explainer, asked.target, 1, asked.desired, "cosine", 0.2, 0.1)
        ensemble = asked.ensemble(
            1, False
        )  # trained by one recipe, so that they differ in the weights of L_train alone
        ensemble.recipe = replace(ensemble.recipe, class_weights=class_weights)
        rows = torch.arange(6)
        labels = torch.arange(6) % 3
        imf = IMF(models=1, form=form, staggered=False, restart=False)
        actual.append(
            imf._direction(ensemble, objective, asked.clean.batch(rows), labels, clean=NO_CLEAN, **first_time())[0]
        )
    factors = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)[torch.arange(6) % 3].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(actual[1], actual[0] * factors, rtol=1e-6, atol=1e-12)


def test_surrogates_weigh_classes_as_victims_of_the_poisoned_set_will() -> None:
    how = recipe(start="checkpoint", class_weights="balanced")
    asked, made = problem("table", how=how), list[Ensemble]()

    def ensemble(members: int, staggered: bool) -> Ensemble:
        made.append(asked.ensemble(members, staggered))
        return made[0]

    parts = {name: getattr(asked, name) for name in asked.__dataclass_fields__}
    poison = IMF(models=2, epochs=1)(Problem(**{**parts, "ensemble": ensemble}), Budget(count=4), torch.Generator())
    mixed = torch.cat([asked.clean.labels, poison.labels])
    assert [learner.recipe for learner in made[0].learners] == [how.for_labels(mixed)] * 2
    assert how.for_labels(mixed) != how.for_labels(asked.clean.labels)


class TestNotes:
    @pytest.mark.parametrize("form", ["finite-difference", "exact"])
    def test_the_agreement_of_the_two_forms_is_noted_once_an_epoch(self, form: Any) -> None:
        watch = Watch()
        asked = problem("table", activation="relu", legal=Legal())
        IMF(models=2, epochs=3, form=form, alpha=0.5)(asked, Budget(count=4), torch.Generator().manual_seed(0), watch)
        noted = [row for row in watch.history if "form_cosine" in row]
        assert [(row["epoch"], row["member"]) for row in noted] == [(epoch, k) for epoch in (0, 1, 2) for k in (0, 1)]
        assert all(-1 <= row["form_cosine"] <= 1 + 1e-6 for row in noted)
        assert min(row["form_cosine"] for row in noted) < 0.999  # on a ReLU network the two differ

    def test_on_a_smooth_network_they_agree(self) -> None:
        watch = Watch()
        asked = problem("image", dtype=torch.float64, legal=Legal())
        IMF(models=2, epochs=1, alpha=1e-5)(asked, Budget(count=4), torch.Generator().manual_seed(0), watch)
        assert all(row["form_cosine"] > 1 - 1e-6 for row in watch.history if "form_cosine" in row)

    def test_history_has_a_row_for_every_model_and_iteration(self) -> None:
        watch, reports = Watch(), []
        watch.progress = lambda done, planned: reports.append((done, planned))
        asked = problem("table")
        IMF(models=3, epochs=2)(asked, Budget(count=4), torch.Generator().manual_seed(0), watch)
        per_epoch = 5  # 25 samples in batches of 5
        assert [(row["iteration"], row["member"]) for row in watch.history] == [
            (iteration, member) for iteration in range(2 * per_epoch) for member in range(3)
        ]
        assert reports == [(done, 2 * per_epoch) for done in range(1, 2 * per_epoch + 1)]
        assert {"iteration", "epoch", "member", "upper", "distance", "label", "lower"} <= set(watch.history[0])


class TestStepRule:
    def test_raw_is_the_direction_itself(self) -> None:
        delta = torch.randn(2, 3)
        assert stepped(delta, "raw") is delta

    def test_sign(self) -> None:
        assert stepped(torch.tensor([[-2.0, 0.0, 1e-30]]), "sign").tolist() == [[-1, 0, 1]]

    @pytest.mark.parametrize("scale", [1.0, 1e-30])
    def test_normalised_is_a_sample_at_a_time_and_of_any_scale(self, scale: float) -> None:
        delta = torch.tensor([[[1.0, -4.0]], [[0.5, 0.25]], [[0.0, 0.0]]]) * scale
        actual = stepped(delta, "normalised")
        torch.testing.assert_close(actual, torch.tensor([[[0.25, -1.0]], [[1.0, 0.5]], [[0.0, 0.0]]]))


def test_copies_of_one_base_do_not_stay_copies() -> None:
    asked = problem("image", clean=9)
    poison = IMF(models=1, epochs=1)(asked, Budget(count=8), torch.Generator().manual_seed(0))
    assert len(poison.bases.unique()) < 8
    assert len({tuple(item.flatten().tolist()) for item in poison.inputs}) == 8


@pytest.mark.parametrize("settings", [{"models": 0}, {"alpha": 0.0}, {"momentum": 1.0}, {"step": "big"}, {"gama": 0.1}])
def test_refuses_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        IMF(**settings)


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_moves_the_attacker_s_own_explanation_towards_what_is_wanted(explainer: str) -> None:
    """The point of it all, on the models it crafts with: later iterations have a smaller distance than without steps."""
    moved, still = (IMF(models=2, epochs=6, gamma=gamma, restart=False, staggered=False) for gamma in (0.1, 1e-9))
    assert distance_at_the_end(moved, explainer) < distance_at_the_end(still, explainer)
