"""What a model store makes once: features after frozen stages, ensembles, victims, and the choice of a code path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from encircle.audit import Audit, Case, code_paths, frozen_views
from encircle.audit.case_file import own_settings
from encircle.audit.code_paths import CODE_PATH
from encircle.audit.models import ModelStore
from encircle.audit.progress import Silent, WorkLog
from encircle.audit.run import run_audit
from encircle.core import EncircleError, InputError
from encircle.data.poison import Poison
from encircle.storage import read_json, write_json
from encircle.training import CodePath, Ensemble
from encircle.training.frozen import frozen_samples
from tests.audit.tiny_cases import TINY, TINY_IMAGES, case_of, scores_of
from tests.training.problems import same, weights

FREE = {"code_path": None}


def store_of(case: Case, folder: Path | None = None, **more: Any) -> ModelStore:
    audit = Audit.from_case(case)
    return ModelStore(audit, audit.data.check(), WorkLog(Silent()), cache=folder, **more)


def poison_of(audit: Audit, count: int, *, replaced: bool = False) -> Poison:
    rows = torch.arange(count)
    inputs = 1 - audit.data.train.batch(rows)
    where = rows + 3 if replaced else torch.full((count,), -1)
    return Poison(inputs, audit.data.train.labels[rows], rows, inputs, where, content="some")


@pytest.mark.parametrize("limit", [None, 10], ids=["kept", "too large to keep"])
@pytest.mark.parametrize("replaced", [False, True])
def test_poisoned_features_are_those_of_the_poisoned_set(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, replaced: bool
) -> None:
    if limit is not None:
        monkeypatch.setattr(frozen_samples, "__kwdefaults__", {"limit": limit})
    models = store_of(case_of(TINY_IMAGES))
    poison = poison_of(models.audit, 4, replaced=replaced)
    whole = models.audit.data.train.with_poison(poison.inputs, poison.labels, poison.overwritten)
    model = models.clean_model("victim", 0)
    found, rows = models.views.poisoned(poison), torch.arange(len(whole))
    assert torch.equal(found.labels, whole.labels)
    with torch.no_grad():
        expected = model.early(whole.batch(rows), 2)  # type: ignore[operator]
    torch.testing.assert_close(found.batch(rows), expected)


def test_without_frozen_stages_nothing_is_worked_out_or_kept(tmp_path: Path) -> None:
    models = store_of(case_of(TINY), tmp_path)
    assert models.views.train() is models.audit.data.train
    poison = poison_of(models.audit, 3)
    assert len(models.views.poisoned(poison)) == len(models.audit.data.train) + 3
    assert list(tmp_path.iterdir()) == []


def test_features_and_ensembles_are_read_by_the_next_audit_of_the_same_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store_of(case_of(TINY_IMAGES), tmp_path)
    features, ensemble = first.views.train().batch(torch.arange(5)), first.ensemble(2, True)

    def forbidden(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("worked out a second time")

    monkeypatch.setattr(frozen_views, "frozen_samples", forbidden)
    monkeypatch.setattr(Ensemble, "pretrained", forbidden)
    other = store_of(case_of(TINY_IMAGES, explainer={"kind": "cam"}), tmp_path)
    assert torch.equal(other.views.train().batch(torch.arange(5)), features)
    for mine, theirs in zip(other.ensemble(2, True).learners, ensemble.learners, strict=True):
        assert same(weights(mine.model), weights(theirs.model))
        assert mine.taken == theirs.taken


@pytest.mark.parametrize("way", ["loop", "vectorised"])
@pytest.mark.parametrize("shared", [False, True])
def test_victims_are_the_same_whichever_is_asked_for_first(tmp_path: Path, way: str, shared: bool) -> None:
    case = case_of(TINY, code_path={"members": way})
    models = store_of(case, tmp_path)
    poison = poison_of(models.audit, 3)
    forwards, backwards = models.victims(poison, shared=shared), models.victims(poison, shared=shared)
    found = [weights(forwards(number)) for number in (0, 1)]
    again = [weights(backwards(number)) for number in (1, 0)]
    assert same(found[0], again[1])
    assert same(found[1], again[0])
    assert not same(found[0], found[1])
    assert same(weights(forwards(0)), found[0])  # asked for once more


class TestAttackers:
    def test_one_who_knows_the_victims_recipe_and_network_works_in_the_same_place(self) -> None:
        models = store_of(case_of(TINY))
        assert models.attackers is models

    @pytest.mark.parametrize(
        "attacker", [{"model": {"kind": "small-resnet", "widths": [4, 6, 6]}}, {"recipe": {"epochs": 2}}], ids=str
    )
    def test_another_s_models_are_those_of_an_audit_of_what_is_supposed(self, attacker: dict[str, Any]) -> None:
        case = case_of(TINY_IMAGES, attacker=attacker)
        supposed = case.supposed
        assert supposed is not None
        models, theirs = store_of(case), store_of(supposed)
        assert same(weights(models.attackers.references[0]), weights(theirs.references[0]))
        assert torch.equal(
            models.attackers.views.train().batch(torch.arange(3)), theirs.views.train().batch(torch.arange(3))
        )
        mine, other = (one.ensemble(2, True).learners[1].model for one in (models.attackers, theirs))
        assert same(weights(mine), weights(other))
        plain = store_of(case_of(TINY_IMAGES))
        assert same(weights(models.clean_victims[0]), weights(plain.clean_victims[0]))
        assert not same(weights(models.attackers.references[0]), weights(plain.references[0]))

    def test_one_of_several_starts_has_learnt_none_of_the_victims(self) -> None:
        models = store_of(case_of(TINY_IMAGES, attacker={"recipe": {"starts": 3}}))
        theirs = models.attackers
        assert len({*models.starts.keys, *theirs.starts.keys}) == 4
        assert theirs.views.train() is models.audit.data.train  # nothing is shared, so nothing is worked out for all
        stems = [weights(learner.model.stages[0]) for learner in theirs.ensemble(3, True).learners]  # type: ignore[operator, index]
        learnt = [theirs.source.checkpoint or {}, *theirs.source.others]
        for stem in stems:
            assert (
                sum(all(torch.equal(start[f"stem.{name}"], value) for name, value in stem.items()) for start in learnt)
                == 1
            )
        assert not same(stems[0], stems[1])
        assert not same(stems[1], stems[2])
        assert theirs.path.members == "loop"

    def test_in_python_the_attacker_is_an_audit_of_its_own(self) -> None:
        case = case_of(TINY)
        mine = Audit.from_case(case)
        theirs = Audit.from_case(case_of(TINY, recipe={**TINY["recipe"], "epochs": 4}), data=mine.data)
        names = ("recipe", "explainer", "goal", "budget")
        settings = own_settings({name: getattr(mine.settings, name) for name in names})
        told = Audit(mine.build, mine.data, settings, attacker=theirs)
        assert told.describe()["attacker"] == theirs.describe()
        models = ModelStore(told, "data", WorkLog(Silent()))
        assert models.attackers.audit is theirs
        other = Audit.from_case(case_of(TINY, recipe={**TINY["recipe"], "epochs": 4}))
        with pytest.raises(InputError, match="the attacker's audit has other data"):
            Audit(mine.build, mine.data, settings, attacker=other)


class TestCodePath:
    @pytest.fixture
    def coming(self, monkeypatch: pytest.MonkeyPatch) -> list[CodePath]:
        paths: list[CodePath] = []
        monkeypatch.setattr(code_paths, "measured", lambda *_: paths.pop(0))
        return paths

    def test_a_case_that_names_one_is_not_measured(self, coming: list[CodePath], tmp_path: Path) -> None:
        models = store_of(case_of(TINY, code_path={"members": "vectorised"}), tmp_path / "cache", home=tmp_path)
        assert models.path == CodePath("vectorised", "reverse")
        assert read_json(tmp_path / CODE_PATH) == {"members": "vectorised", "product": "reverse"}

    def test_is_measured_once_and_shared_by_audits_of_the_same_models(
        self, coming: list[CodePath], tmp_path: Path
    ) -> None:
        coming.append(CodePath("vectorised", "forward"))
        for number, changes in enumerate([{}, {"goal": {"kind": "features", "count": 3}}]):
            (tmp_path / str(number)).mkdir()
            models = store_of(case_of(TINY, **FREE, **changes), tmp_path / "cache", home=tmp_path / str(number))
            assert models.path == CodePath("vectorised", "forward")
            assert models.ensemble(2, True).path == models.path

    def test_a_resumed_run_keeps_its_own_whatever_would_be_measured_now(
        self, coming: list[CodePath], tmp_path: Path
    ) -> None:
        coming += [CodePath("vectorised", "reverse"), CodePath("loop", "reverse")]
        (tmp_path / "run").mkdir()
        for _ in range(2):  # the cache is cleared in between
            models = store_of(case_of(TINY, **FREE), None, home=tmp_path / "run")
            assert models.path == CodePath("vectorised", "reverse")
        assert len(coming) == 1

    def test_a_damaged_one_is_one_clear_sentence(self, tmp_path: Path) -> None:
        for content in ({"members": "both"}, [1], {"member": "loop"}):
            write_json(tmp_path / CODE_PATH, content)
            with pytest.raises(EncircleError, match=r"code_path\.json names no code path .* delete it"):
                _ = store_of(case_of(TINY, **FREE), None, home=tmp_path).path

    def test_is_kept_with_the_run(self, coming: list[CodePath], tmp_path: Path) -> None:
        coming.append(CodePath("vectorised", "forward"))
        folder = run_audit(Audit.from_case(case_of(TINY, **FREE)), tmp_path).folder
        expected = {"members": "vectorised", "product": "forward"}
        assert read_json(folder / CODE_PATH) == read_json(folder / "environment.json")["code_path"] == expected


def test_a_vectorised_run_resumes_to_the_same_scores(tmp_path: Path) -> None:
    """All victims of an arm are trained at once, so also those that are there already."""
    audit = Audit.from_case(case_of(TINY, code_path={"members": "vectorised"}))
    whole = run_audit(audit, tmp_path / "whole").folder

    class Interrupted(Exception):
        pass

    class Stops(Silent):
        left = 9

        def finish(self, kind: str, *, reused: bool = False) -> None:
            Stops.left -= 1
            if Stops.left == 0:
                raise Interrupted

    for stop in (9, 14, 18):
        Stops.left = stop
        with pytest.raises(Interrupted):
            run_audit(audit, tmp_path / "killed", Stops())
    again = run_audit(audit, tmp_path / "killed").folder
    assert scores_of(again).equals(scores_of(whole))


def test_augmentation_draws_for_each_model_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a victim sees must not depend on how many others are trained, or on which machine was faster at what."""
    recipe = {"start": "scratch", "epochs": 1, "augmentation": "flip-and-shift"}
    images = {**TINY_IMAGES, "recipe": recipe, "pretraining": None, "code_path": None}
    monkeypatch.setattr(code_paths, "measured", lambda *_: CodePath("vectorised", "forward"))
    assert store_of(case_of(images), tmp_path).path == CodePath("loop", "forward")
    asked = {"members": "vectorised", "product": "reverse"}
    with pytest.raises(InputError, match=r"augmentation draws for each model by itself.* set code_path\.members: loop"):
        store_of(case_of(images, code_path=asked), tmp_path)
