"""An arm is an attack and a defence: what is undefended stays what it is, and what is defended is paired with clean victims under the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, final

import polars as pl
import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from encircle import defences
from encircle.attacks import IMF, NoPoison, Watermark
from encircle.audit import Audit, run_audit
from encircle.audit.arm import Arm, arms_of
from encircle.audit.identity import run_identity
from encircle.audit.progress import Silent
from encircle.core import CONFIGURED, InputError
from encircle.defences import Defence, NoDefence
from encircle.explain import Cam, Explainer
from encircle.jobs.task import Task
from encircle.report import render
from encircle.run_folder import load_run
from encircle.study.costs import TaskCost
from encircle.study.grid import expand
from encircle.study.plan import plan
from encircle.study.study_file import StudyFile
from encircle.training import Recipe
from tests.audit.tiny_cases import TINY, TINY_IMAGES, case_of, scores_of
from tests.study.serial import do


@final
@dataclass(frozen=True, config=CONFIGURED)
class Longer(Defence):
    """Longer training.

    Args:
        epochs: of victims.
        frozen_stages: of victims; None leaves them.
    """

    epochs: int = 3
    frozen_stages: int | None = None
    start: Literal["scratch", "checkpoint"] | None = None
    kind: Literal["longer"] = Field(default="longer", kw_only=True)
    title = "longer training"

    def recipe(self, recipe: Recipe) -> Recipe:
        changes: dict[str, Any] = {"epochs": self.epochs}
        if self.frozen_stages is not None:
            changes["frozen_stages"] = self.frozen_stages
        if self.start is not None:
            changes["start"] = self.start
        return replace(recipe, **changes)


@final
@dataclass(frozen=True, config=CONFIGURED)
class OtherMaps(Defence):
    """Explanations by CAM."""

    kind: Literal["other-maps"] = Field(default="other-maps", kw_only=True)
    title = "other maps"

    def explainer(self, explainer: Explainer) -> Explainer:
        return Cam()


@final
@dataclass(frozen=True, config=CONFIGURED)
class Nothing(Defence):
    """A defence that changes nothing."""

    kind: Literal["nothing"] = Field(default="nothing", kw_only=True)
    title = "nothing"


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defences, "ALL", (*defences.ALL, Longer, OtherMaps, Nothing))


def test_undefended_arms_are_called_by_their_attack_alone() -> None:
    arms = arms_of(IMF(), NoDefence())
    assert [arm.key for arm in arms] == ["clean", "base", "noise", "watermark", "watermark-projected", "imf"]
    assert {arm.reference for arm in arms} == {"clean"}
    assert [arm.title for arm in arms] == [arm.attack.title for arm in arms]


def test_a_defence_adds_clean_and_attacked_victims_under_it() -> None:
    arms = arms_of(Watermark(), Longer())
    keys = ["clean", "base", "noise", "watermark-projected", "watermark", "clean+longer", "watermark+longer"]
    assert [arm.key for arm in arms] == keys
    assert [arm.reference for arm in arms[-2:]] == ["clean+longer", "clean+longer"]
    assert arms[-1].title == "WM (unbounded) under longer training"
    assert Arm(NoPoison(), Longer()).is_clean


def test_no_defence_is_what_every_case_had_before_there_were_any() -> None:
    plain, said = case_of(TINY), case_of(TINY, defence={"kind": "none"})
    assert "defence" not in said.model_dump(mode="json")
    assert said == plain
    assert run_identity(Audit.from_case(said), "data") == run_identity(Audit.from_case(plain), "data")
    defended = Audit.from_case(case_of(TINY, defence={"kind": "longer"}))
    assert run_identity(defended, "data") != run_identity(Audit.from_case(plain), "data")
    assert defended.describe()["defence"] == {"epochs": 3, "frozen_stages": None, "start": None, "kind": "longer"}


def test_undefended_arms_have_the_scores_of_an_audit_without_a_defence(tmp_path: Path) -> None:
    plain = run_audit(Audit.from_case(case_of(TINY)), tmp_path / "plain")
    defended = run_audit(Audit.from_case(case_of(TINY, defence={"kind": "longer"})), tmp_path / "defended")
    scores = scores_of(defended.folder)
    undefended = scores.filter(~pl.col("arm").str.contains("+", literal=True))
    assert undefended.equals(scores_of(plain.folder))
    assert scores.filter(pl.col("arm") == "clean+longer")["seed"].unique().sort().to_list() == [0, 1, 2, 3]
    assert scores.filter(pl.col("arm") == "imf+longer").height == 4
    assert [path.name for path in sorted((defended.folder / "poison").glob("*/imf*"))] == ["imf", "imf"]
    assert defended.summary["attack"] == "imf+longer"
    assert "IMF under longer training" in defended.sentence
    assert defended.summary["case"]["defence"].startswith("longer")
    page = render([defended.folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "IMF under longer training" in page
    assert load_run(defended.folder).attack == "imf+longer"


def test_what_changes_nothing_gives_the_undefended_scores(tmp_path: Path) -> None:
    folder = run_audit(Audit.from_case(case_of(TINY, defence={"kind": "nothing"})), tmp_path).folder
    scores = scores_of(folder)
    for arm in ("clean", "imf"):
        both = [scores.filter(pl.col("arm") == key).drop("arm") for key in (arm, f"{arm}+nothing")]
        assert both[0].equals(both[1])


@pytest.mark.slow
@pytest.mark.parametrize("defence", [{"epochs": 2}, {"epochs": 2, "frozen_stages": 1}], ids=str)
def test_a_study_of_defences_equals_its_audits(defence: dict[str, Any], tmp_path: Path) -> None:
    none, longer = {"kind": "none"}, {"kind": "longer", **defence}
    case = case_of(TINY_IMAGES).model_dump(mode="json")
    study = expand(StudyFile(case=case, grid={"defence": [none, longer]}), "defences")
    todo = plan(study, tmp_path)
    counts = do(todo, tmp_path / "study")
    assert counts["defended"] == 2
    assert counts["attack"] == 1  # crafted once for both
    for planned in todo.runs:
        alone = run_audit(Audit.from_case(planned.run.case), tmp_path / "alone")
        folder = tmp_path / "study" / "runs" / planned.folder
        assert scores_of(folder).equals(scores_of(alone.folder))
        assert planned.folder == alone.folder.name


@pytest.mark.parametrize(
    ("case", "defence", "sentence"),
    [
        (
            TINY_IMAGES,
            {"kind": "longer", "start": "scratch", "frozen_stages": 0},
            "the defence longer changes where victims start",
        ),
        (TINY, {"kind": "other-maps"}, "under the defence other-maps maps are of"),
        (TINY, {"kind": "longr"}, "unknown defence kind 'longr'; did you mean 'longer'?"),
    ],
    ids=str,
)
def test_a_defence_that_does_not_fit_is_refused_before_training(
    case: dict[str, Any], defence: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence.replace("?", r"\?")):
        Audit.from_case(case_of(case, defence=defence))


class Reporter(Silent):
    """Counts pieces of work down from what was planned."""

    def __init__(self) -> None:
        self.remaining: dict[str, int] = {}

    def plan(self, title: str, work: dict[str, int]) -> None:
        self.remaining = dict(work)

    def finish(self, kind: str, *, reused: bool = False) -> None:
        self.remaining[kind] -= 1


@pytest.mark.parametrize("defence", [{"kind": "none"}, {"kind": "longer"}, {"kind": "nothing"}], ids=str)
def test_as_much_is_done_as_was_planned(defence: dict[str, Any], tmp_path: Path) -> None:
    for _ in range(2):  # also where everything is there already
        reporter = Reporter()
        run_audit(Audit.from_case(case_of(TINY, defence=defence, targets=1)), tmp_path, reporter)
        assert set(reporter.remaining.values()) == {0}


def test_the_forecast_counts_what_victims_learn_under_the_defence(tmp_path: Path) -> None:
    case = case_of(TINY_IMAGES, defence={"kind": "longer", "epochs": 7})
    probe = SimpleNamespace(epoch=10.0)
    arm = Task("1", "defended", "", {"arm": "imf+longer"}, "")
    assert TaskCost(probe, arm, case, print).defended() == 10.0 * 7 * case.victims  # type: ignore[arg-type]
    model = Task("1", "model", "", {"defended": True}, "")
    assert TaskCost(probe, model, case, print).model() == 70.0  # type: ignore[arg-type]
    assert TaskCost(probe, replace(model, spec={}), case, print).model() == 10.0 * case.recipe.epochs  # type: ignore[arg-type]


@final
@dataclass(frozen=True, config=CONFIGURED)
class Broken(Defence):
    """A defence whose code fails."""

    weights: tuple[float, ...] = ()
    kind: Literal["broken"] = Field(default="broken", kw_only=True)
    title = "broken"

    def recipe(self, recipe: Recipe) -> Recipe:
        return replace(recipe, class_weights=self.weights) if self.weights else replace(recipe, lr=-1.0)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ((), "the defence broken makes settings that cannot be: Input should be greater than 0"),
        ((1.0, 2.0, 3.0), "under the defence broken: 3 class weights for 2 classes"),
    ],
    ids=str,
)
def test_a_defence_whose_recipe_is_none_is_one_sentence(weights: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Audit.from_case(case_of(TINY).model_copy(update={"defence": Broken(weights)}))


def test_a_report_calls_the_defended_null_the_null(tmp_path: Path) -> None:
    folder = run_audit(Audit.from_case(case_of(TINY, defence={"kind": "longer"}, targets=1)), tmp_path).folder
    page = render([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Seed null: no poison, defended" in page
    assert "arms without the defence" in page
