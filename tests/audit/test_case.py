"""Case files: what they mean, and one clear sentence for whatever is wrong with them."""

from __future__ import annotations

import pytest

from encircle.attacks import IMF, GradientMatching
from encircle.audit import Audit, Case, embedded_cases, read_case
from encircle.audit.kinds import KINDS
from encircle.core import InputError

from .tiny_cases import TINY, TINY_IMAGES, case_of


@pytest.mark.parametrize(
    ("text", "overrides", "sentence"),
    [
        ("budget: {fracton: 0.1}", [], "unknown key 'budget.fracton'; did you mean 'fraction'?"),
        ("attack: {kind: imf, epoch: 3}", [], "unknown key 'attack.epoch'; did you mean 'epochs'?"),
        ("recipe: {epoch: 3}", [], "unknown key 'recipe.epoch'; did you mean 'epochs'?"),
        ("pretraining: {epoch: 3}", [], "unknown key 'pretraining.epoch'; did you mean 'epochs'?"),
        ("explainr: {kind: cam}", [], "unknown key 'explainr'; did you mean 'explainer'?"),
        ("attack: {kind: imff}", [], "unknown attack kind 'imff'; did you mean 'imf'?"),
        ("explainer: {kind: xyz}", [], "choose one of: grad, cam"),
        ("goal: {name: mid-left}", [], "goal needs its kind, as in goal.kind=region."),
        ("goal: {kind: of-class}", [], "goal.label: field required"),
        ("goal: {kind: units}", [], "goal: give either units or count"),
        ("goal: {kind: features, names: [a], count: 1}", [], "goal: give either names or count"),
        ("", ["explainer=grad"], "explainer needs its kind, as in explainer.kind=grad."),
        ("", ["model=two-layers"], "model needs its kind, as in model.kind=two-layer."),
        ("attack: [imf, 3]", [], "attack needs its kind, as in attack.kind=imf."),
        ("data:", [], "data needs its kind, as in data.kind=digits."),
        ("", ["budget=0.1"], "budget needs keys (fraction, count, epsilon, norm, mode), not 0.1."),
        ("budget: {fraction: 1.0}", [], "budget.fraction: input should be less than 1 (given: 1.0)"),
        ("budget: {fraction: 0.1, epsilon: 0}", [], "budget.epsilon: input should be greater than 0"),
        ("budget: {fraction: 0.1, epsilon: -1}", [], "budget.epsilon: input should be greater than 0"),
        ("budget: {epsilon: 0.1}", [], "give either fraction or count"),
        ("targets: 0", [], "targets must be at least 1"),
        ("recipe: {frozen_stages: 2}", [], "frozen_stages needs start='checkpoint'"),
        ("recipe: {start: checkpoint}", [], "needs either pretraining or checkpoint"),
        ("pretraining: {epochs: 1}", [], "only used by a recipe with start: checkpoint"),
        ("data: {kind: digits, side: 13}", [], "data.side"),
        ("a: [", [], "is not YAML"),
        ("- 1", [], "must hold keys and values"),
        ("", ["budget.fraction"], "not of the form key=value"),
        ("seed: 3", ["seed.deep=1"], "holds a value, not keys"),
        ("[]", [], "must hold keys and values"),
        ("attacker: {model: {last_blocks: 1}}", [], "attacker.model needs its kind, as in attacker.model.kind="),
        (
            "attacker: {model: small-resnett}",
            [],
            "attacker.model needs its kind, as in attacker.model.kind=small-resnet.",
        ),
        ("code_path: loop", [], "code_path needs keys (members, "),
        ("", ["title=2020-13-45"], "'title' is not YAML"),
        ("", [f"title={'[' * 3000}"], "'title' is not YAML"),
        ("a: &a [*a]", [], "entries once its aliases are written out"),
        ("!!python/object/apply:os.system ['true']", [], "is not YAML"),
        ("budget: {fraction: 0.3}\nbudget: {count: 1}", [], "has the key 'budget' twice, in lines 1 and 2; drop one"),
        ("", ["attack={kind: imf, kind: matching}"], "--set 'attack' has the key 'kind' twice"),
        ("seed: 010", [], 'write 10 or "010".'),
        ("", ["seed=1:30"], "--set 'seed' has 1:30 in line 1"),
        ("victims: true", [], "victims needs a number, not true; correct it."),
        ("", ["victims=true"], "victims needs a number, not true; correct it."),
        ("victims: yes", [], "victims: input should be a valid integer"),
        ("budget: {count: true}", [], "budget.count needs a number, not true"),
        ("budget: {fraction: 0.1, epsilon: True}", [], "budget.epsilon needs a number, not true"),
        ("targets: [3, true]", [], "targets.1 needs a number, not true"),
        ("seed: false", [], "seed needs a number, not false"),
        (
            "attack: {kind: influence, target_share: 0, other_share: true}",
            [],
            "attack.other_share needs a number, not true",
        ),
        ("attacker: {recipe: {epochs: true}}", [], "attacker.recipe.epochs needs a number, not true"),
    ],
)
def test_one_sentence_for_what_is_wrong(text: str, overrides: list[str], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read_case(text, overrides, "case.yaml")
    message = str(caught.value)
    assert sentence in message
    assert message.startswith(("case.yaml", "--set"))
    assert "\n" not in message


def test_aliases_in_what_an_attacker_supposes_are_not_written_out() -> None:
    bomb = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    with pytest.raises(InputError, match="entries once its aliases are written out"):
        read_case(f"{bomb}attacker: {{recipe: {{class_weights: *a39}}}}\n", [], "case.yaml")


def test_overrides_win() -> None:
    case = read_case("budget: {fraction: 0.1}", ["budget.fraction=0.05", "attack.kind=imf", "attack.epochs=3"], "case")
    assert case.budget.fraction == 0.05
    assert isinstance(case.attack, IMF)
    assert case.attack.epochs == 3


def test_numbers_and_switches_mean_what_they_look_like() -> None:
    case = read_case(
        "recipe: {lr: 1e-2, augmentation: null}\nattack: {kind: matching, other_share: .5, dirty_label: yes}",
        ["seed=1E1"],
        "case",
    )
    assert case.recipe.lr == 0.01
    assert isinstance(case.attack, GradientMatching)
    assert case.attack.dirty_label is True
    assert case.seed == 10
    assert read_case("title: yes", [], "case").title == "yes"


@pytest.mark.parametrize("name", sorted(embedded_cases()))
def test_embedded_cases_are_auditable(name: str) -> None:
    case = read_case(embedded_cases()[name], [], name)
    audit = Audit.from_case(case)
    assert audit.plan()["craft"] == case.targets
    assert Case.model_validate(audit.describe()) == case


def test_every_kind_is_named_and_described() -> None:
    for kinds in KINDS.values():
        known = kinds()
        assert known
        for name, member in known.items():
            assert name == name.lower()
            assert member.__doc__


def test_a_set_of_mixed_channels_is_refused() -> None:
    with pytest.raises(InputError, match="two-layer is for tables"):
        Audit.from_case(read_case("model: {kind: two-layer}", [], "case")).build()
    with pytest.raises(InputError, match="small-resnet is for images"):
        Audit.from_case(read_case("data: {kind: breast-cancer}\nexplainer: {kind: grad}", [], "case")).build()


def test_controls_are_made_of_the_attack_s_own_bases_and_dirty_labels_are_named() -> None:
    attack = {
        "kind": "matching",
        "target_share": 0.2,
        "other_share": 0.3,
        "bases": "influential",
        "repeats": 2,
        "dirty_label": True,
    }
    audit = Audit.from_case(case_of(TINY, attack=attack))
    by_key = {arm.key: arm for arm in audit.arms}
    for key in ("base", "noise", "matching"):
        control = by_key[key].attack
        assert {name: getattr(control, name) for name in attack if name != "kind"} == {
            name: value for name, value in attack.items() if name != "kind"
        }
        assert control.uses_explainer
        assert by_key[key].title.endswith(" (dirty label)")
    assert by_key["watermark"].title == "WM (unbounded)"
    plain = Audit.from_case(case_of(TINY))
    assert not any(arm.attack.uses_explainer for arm in plain.arms if arm.key in {"clean", "base", "noise"})
    assert not any("dirty" in arm.title for arm in plain.arms)


class TestAttacker:
    def test_supposes_what_is_not_said_otherwise(self) -> None:
        case = case_of(TINY, attacker={"recipe": {"epochs": 9}})
        supposed = case.supposed
        assert supposed is not None
        assert (supposed.recipe.epochs, supposed.recipe.lr) == (9, case.recipe.lr)
        assert supposed.model == case.model
        assert supposed.attacker is None
        assert case_of(TINY).supposed is None

    def test_an_attacker_may_lack_the_weights_that_victims_start_from(self) -> None:
        case = case_of(TINY_IMAGES, attacker={"recipe": {"start": "scratch", "frozen_stages": 0}})
        assert case.pretraining is not None
        supposed = case.supposed
        assert supposed is not None
        assert supposed.pretraining is None
        attacker = Audit.from_case(case).attacker
        assert attacker is not None
        assert (attacker.settings.recipe.start, attacker.settings.pretraining) == ("scratch", None)
        assert attacker.describe()["pretraining"] is None

    @pytest.mark.parametrize(
        ("attacker", "words"),
        [
            ({"recipe": {"epoch": 9}}, "attacker.recipe: 'epoch' is no key of a recipe"),
            ({"recipe": {"epochs": 0}}, r"attacker.recipe.epochs: Input should be greater than or equal to 1"),
            ({"recipe": {"start": "checkpoint"}}, "attacker: a recipe that starts from a checkpoint needs"),
            ({"recipe": {"starts": 2}}, "attacker.recipe: several starts need start='checkpoint'"),
            ({"modle": None}, "did you mean 'model'"),
            ({"model": {"kind": "two-layers"}}, "did you mean 'two-layer'"),
        ],
    )
    def test_refuses_what_is_no_supposition(self, attacker: dict[str, object], words: str) -> None:
        with pytest.raises(InputError, match=words):
            case_of(TINY, attacker=attacker)

    def test_maps_of_another_grid_are_refused(self) -> None:
        case = case_of(
            TINY_IMAGES, pretraining=None, recipe={"start": "scratch"}, attacker={"model": {"kind": "resnet13"}}
        )
        with pytest.raises(
            InputError, match=r"the attacker's network gives maps of \(1, 1\) and the victims' of \(4, 4\)"
        ):
            Audit.from_case(case)

    def test_other_hidden_units_are_refused(self) -> None:
        changes = {
            "explainer": {"kind": "cam"},
            "goal": {"kind": "units", "count": 2},
            "recipe": {"start": "checkpoint"},
        }
        case = case_of(TINY, **changes, pretraining={}, attacker={"model": {"kind": "two-layer", "hidden": 8}})
        with pytest.raises(InputError, match="an attacker of another network has other units"):
            Audit.from_case(case)
