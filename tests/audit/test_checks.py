"""A budget under which nothing changes, whatever the data, norm and mode, is refused before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.utils.data import TensorDataset

from encircle.attacks import IMF, Attack, FeatureEncirclement, Influence, Watermark
from encircle.audit import Audit, Case, run_audit
from encircle.audit.case_file import own_settings
from encircle.core import InputError
from encircle.data import DataSet, TensorSamples
from encircle.explain import Attribution, Cam, Explainer, Grad
from encircle.goals import Features, Goal, Region
from encircle.models import WithCamHead
from encircle.threat import Budget, Column, Legal
from encircle.training import CodePath, Recipe

from ..any_networks import conv
from .tiny_cases import TINY, case_of

COLUMNS = ("age", "visits", "is north", "is south")
KINDS = {
    "continuous": None,
    "coarse integer": Column("integer", step=0.2),
    "fine integer": Column("integer", step=0.05),
    "category": Column("categorical", values=(0.0, 1.0)),
    "immutable": Column("immutable"),
}


def table(kinds: tuple[str, str], budget: Budget, attack: Attack | None = None, classes: int = 2, **more: Any) -> Audit:
    rows = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)).mul(20).round().div(20)
    rows[:, 1] = rows[:, 1].round() if kinds[1] == "category" else rows[:, 1]
    labels = torch.arange(60) % 12 // 11 if classes == 2 else torch.arange(60) % classes
    columns = {"is north": Column("immutable"), "is south": Column("immutable")}
    columns |= {name: column for name, kind in zip(COLUMNS, kinds, strict=False) if (column := KINDS[kind]) is not None}
    data = DataSet(
        name="people",
        kind="table",
        train=TensorSamples(rows[:48], labels[:48]),
        validation=TensorSamples(rows[:0], labels[:0]),
        test=TensorSamples(rows[48:], labels[48:]),
        pretrain=None,
        classes=[f"class {number}" for number in range(classes)],
        features=COLUMNS,
        columns=columns,
    )
    settings = {"explainer": Grad(), "goal": Features(("age",)), "recipe": Recipe(epochs=1, batch_size=16), **more}
    settings |= {"budget": budget, "attack": attack or IMF(models=1, epochs=1)}
    return Audit(lambda: nn.Linear(4, classes), data, own_settings(settings))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("mode", ["inject", "replace"])
@pytest.mark.parametrize(
    ("kinds", "epsilon", "sentence"),
    [
        (("immutable", "immutable"), 0.5, "no column may change"),
        (("coarse integer", "immutable"), 0.1, "is less than a step of any column"),
        (("coarse integer", "category"), 0.1, "is less than a step of any column"),
        (("continuous", "immutable"), 1e-12, "is less than a step of any column"),
    ],
)
def test_tables_in_which_nothing_may_move(
    kinds: tuple[str, str], epsilon: float, sentence: str, norm: Any, mode: Any
) -> None:
    with pytest.raises(InputError, match=sentence):
        table(kinds, Budget(count=3, epsilon=epsilon, norm=norm, mode=mode))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("kinds", "epsilon"),
    [
        (("continuous", "immutable"), 0.01),
        (("fine integer", "immutable"), 0.06),  # alone, a column may use the whole l2 ball
        (("coarse integer", "continuous"), 0.1),
        (("immutable", "category"), 1.0),
    ],
)
def test_tables_in_which_something_may_move(kinds: tuple[str, str], epsilon: float, norm: Any) -> None:
    table(kinds, Budget(count=3, epsilon=epsilon, norm=norm))


def test_a_norm_that_all_entries_share_must_leave_each_a_step() -> None:
    # 0.06 moves one column of steps of 0.05, and not two at once.
    with pytest.raises(
        InputError, match=r"an l2 epsilon of 0\.06 is less than a step of any column once all entries move"
    ):
        table(("fine integer", "fine integer"), Budget(count=3, epsilon=0.06, norm="l2"))


def test_an_attack_that_no_ball_bounds_is_held_to_what_may_move_alone() -> None:
    table(("coarse integer", "immutable"), Budget(count=3, epsilon=0.1), Watermark())
    with pytest.raises(InputError, match="no column may change"):
        table(("immutable", "immutable"), Budget(count=3, epsilon=0.1), Watermark())


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        (Budget(count=0), "a budget of 0 samples leaves nothing to judge; raise budget.count"),
        (Budget(fraction=0.0), "a budget of 0 of 48 training samples comes to none"),
        (Budget(fraction=0.02), "a budget of 0.02 of 48 training samples comes to none"),
        (Budget(fraction=0.02, mode="replace"), "comes to none"),
    ],
)
def test_no_sample_at_all(budget: Budget, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        table(("continuous", "continuous"), budget)


@given(
    epsilon=st.floats(1e-4, 1.0),
    norm=st.sampled_from(["linf", "l2"]),
    columns=st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_what_is_called_movable_moves(epsilon: float, norm: Any, columns: list[str], seed: int) -> None:
    budget = Budget(count=1, epsilon=epsilon, norm=norm)
    random = torch.Generator().manual_seed(seed)
    base = torch.rand(6, len(columns), generator=random).mul(20).round().div(20)
    legal = Legal(columns={place: kind for place, name in enumerate(columns) if (kind := KINDS[name]) is not None})
    movable = budget.movable(base, legal)
    immutable = torch.tensor([name == "immutable" for name in columns])
    assert not bool(movable[:, immutable].any())
    if "continuous" in columns and epsilon > 1e-3:
        assert bool(movable[:, columns.index("continuous")].all())
    if norm == "linf":  # entries move by themselves: whatever noise can move was called movable
        noisy = budget.project(base + epsilon * (torch.rand(base.shape, generator=random) * 2 - 1), base, legal)
        assert not bool(((noisy != base) & ~movable).any())


class TestReplacing:
    def test_more_than_a_class_has_is_refused_before_training(self) -> None:
        # 44 training samples of the one class, 4 of the other
        with pytest.raises(InputError, match="replace mode can overwrite at most 4 samples of class 1, not 9"):
            table(("continuous", "continuous"), Budget(count=10, mode="replace"))

    def test_targets_that_are_named_are_asked_about_alone(self) -> None:
        audit = table(("continuous", "continuous"), Budget(count=10, mode="replace"), targets=[0])
        assert int(audit.data.test.labels[0]) == 0

    def test_what_other_classes_give_counts(self) -> None:
        with pytest.raises(InputError, match="at most 4 samples of other classes, not 5"):
            attack = IMF(models=1, epochs=1, other_share=0.5)
            table(("continuous", "continuous"), Budget(count=10, mode="replace"), attack, targets=[0])

    def test_injecting_repeats_what_there_is(self) -> None:
        table(("continuous", "continuous"), Budget(count=10))


LABELS = torch.arange(24) % 2
IMAGES = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def images(**changes: Any) -> Audit:
    settings: dict[str, Any] = {
        "classes": ["cat", "dog"],
        "recipe": Recipe(epochs=1, batch_size=8),
        "explainer": Cam(),
        "goal": Region(),
        "budget": Budget(count=2),
        "attack": Influence(models=1, epochs=1),
        "targets": 1,
        "victims": 1,
        "references": 1,
    }
    data = TensorDataset(IMAGES, LABELS)
    return Audit.of(lambda: WithCamHead(nn.Sequential(conv()), nn.Linear(8, 2)), data, data, **settings | changes)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.003), ("l2", 0.1), ("l2", 0.108)])
def test_images_that_move_by_less_than_a_level(norm: Any, epsilon: float) -> None:
    with pytest.raises(InputError, match=r"less than one level of an 8-bit file \(0.0039\)"):
        images(budget=Budget(count=2, norm=norm, epsilon=epsilon))


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.004), ("l2", 0.11)])
def test_images_that_move_by_a_level(norm: Any, epsilon: float) -> None:
    images(budget=Budget(count=2, norm=norm, epsilon=epsilon))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("targets", np.int64(2)),
        ("targets", torch.tensor(2)),
        ("targets", np.array([1, 3])),
        ("targets", torch.tensor([1, 3])),
        ("targets", range(2)),
        ("victims", np.int32(2)),
        ("seed", np.uint8(3)),
        ("threads", np.int64(1)),
    ],
)
def test_numbers_of_any_library_are_numbers(setting: str, value: Any) -> None:
    plain = value.tolist() if hasattr(value, "tolist") else list(value)
    assert images(**{setting: value}).describe() == images(**{setting: plain}).describe()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("victims", 1.5),
        ("seed", "3"),
        ("targets", "all"),
        ("victims", True),
        ("victims", torch.tensor(True)),
        ("targets", {1: 2}),
    ],
)
def test_what_is_no_whole_number_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{setting}: input should be a valid (integer|tuple)"):
        images(**{setting: value})


def test_class_names_go_with_the_numbers_of_the_data_set() -> None:
    data = TensorDataset(IMAGES, LABELS)
    data.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    settings = {"recipe": Recipe(), "explainer": Grad(grid=(4, 4)), "goal": Region(), "budget": Budget(count=2)}
    build = lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 2))  # noqa: E731
    assert list(Audit.of(build, data, data, classes={"dog": 1, "cat": 0}, **settings).data.classes) == ["cat", "dog"]
    with pytest.raises(InputError, match="in your data set that is class 1"):
        Audit.of(build, data, data, classes=["dog", "cat"], **settings)
    other = TensorDataset(IMAGES, LABELS)
    other.classes = ["dog", "cat"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="in your data set that is class 1"):
        Audit.of(build, data, other, classes=["cat", "dog"], **settings)


class Opaque(Explainer):
    """An explainer that nothing can be differentiated through."""

    differentiable = False
    kind = "opaque"
    title = "opaque"

    def _attribute(
        self, model: nn.Module, inputs: torch.Tensor, target: torch.Tensor, graph: bool, random: torch.Generator
    ) -> Attribution:
        return Attribution(inputs.mean(dim=1))


def test_an_attack_on_what_cannot_be_differentiated_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="choose another explainer or the attack watermark"):
        images(explainer=Opaque())
    images(explainer=Opaque(), attack=Watermark())


@pytest.mark.parametrize("device", ["cuda:99", "mps", "meta", "xpu"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_done(device: str, tmp_path: Any) -> None:
    with pytest.raises(InputError, match=f"torch finds no device '{device}' on this machine"):
        run_audit(images(device=device), tmp_path)
    assert not list(tmp_path.iterdir())


def test_more_threads_than_there_are_are_refused(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="4096 threads are more than the"):
        run_audit(images(threads=4096), tmp_path)


def test_a_code_path_that_the_network_cannot_take_is_refused(tmp_path: Any) -> None:
    build = lambda: nn.Sequential(  # noqa: E731
        nn.utils.parametrizations.spectral_norm(conv()), nn.Flatten(), nn.Linear(8 * 49, 2)
    )
    data = TensorDataset(IMAGES, LABELS)
    settings = {"recipe": Recipe(), "explainer": Grad(grid=(4, 4)), "goal": Region(), "budget": Budget(count=2)}
    audit = Audit.of(build, data, data, classes=["a", "b"], code_path=CodePath("vectorised"), **settings)
    with pytest.raises(InputError, match="set it to loop, or leave code_path out"):
        run_audit(audit, tmp_path)


def test_an_attack_on_features_needs_a_network_that_has_them() -> None:
    data = TensorDataset(IMAGES, LABELS)
    settings = {"recipe": Recipe(), "explainer": Grad(grid=(4, 4)), "goal": Region(), "budget": Budget(count=2)}
    build = lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 2))  # noqa: E731
    with pytest.raises(InputError, match="needs a model with features and Sequential has no CAM head"):
        Audit.of(build, data, data, classes=["a", "b"], attack=FeatureEncirclement(models=1), **settings)
    images(attack=FeatureEncirclement(models=1))


def test_inputs_that_are_single_numbers_are_refused() -> None:
    data = TensorDataset(torch.rand(24), LABELS)
    settings = {"recipe": Recipe(), "explainer": Grad(), "goal": Region(), "budget": Budget(count=2)}
    with pytest.raises(InputError, match="neither images"):
        Audit.of(lambda: nn.Linear(1, 2), data, data, classes=["a", "b"], **settings)


class Nameless(Attack):
    """An attack without a kind."""

    title = "nameless"

    def _craft(self, *_: Any) -> Any:
        raise NotImplementedError


class OwnGoal(Goal):
    """A goal that is no pydantic dataclass."""

    kind = "own"

    def _desired(self, context: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"attack": Nameless()}, "attack: Nameless has no kind; give its class a short name"),
        ({"model": 3}, "unknown key 'model'; see"),
        ({"recpie": 3}, "unknown key 'recpie'; did you mean 'recipe'"),
    ],
    ids=["no kind", "no key", "a slip"],
)
def test_what_python_gives_wrongly_is_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        own_settings(values)


def test_a_case_takes_only_what_can_be_written_as_text() -> None:
    with pytest.raises(ValidationError, match=r"goal: OwnGoal cannot be written as text.* use Audit\.of"):
        Case(goal=OwnGoal())


def test_a_hint_names_a_key_that_is_one() -> None:
    with pytest.raises(InputError) as caught:
        case_of({**TINY, "attack": {"kind": "imf", "needs_gradiant": 1}})
    assert "needs_gradient" not in str(caught.value)
