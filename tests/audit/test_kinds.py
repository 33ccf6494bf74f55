"""A row in a folder's `ALL`, or a class that an installed package brings, is all that a new kind needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, final

import pytest
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from tools import case_reference
from torch import Tensor, nn

from encircle.attacks import Attack, Bases, Problem, Watch
from encircle.attacks.bases import base_inputs
from encircle.audit import Audit, embedded_cases, read_case, run_audit
from encircle.audit.finish import _about_parts
from encircle.audit.kinds import KINDS, Kinds, _installed
from encircle.cli import main
from encircle.core import CONFIGURED, InputError
from encircle.data import DataSet, DataSource, TensorSamples
from encircle.defences import Defence
from encircle.explain import Attribution, Explainer
from encircle.goals import DesiredMap, Goal, GoalContext
from encircle.models import Architecture
from encircle.report import render
from encircle.study.grid import expand
from encircle.study.study_file import StudyFile
from encircle.threat import Budget
from encircle.training import Recipe

HERE = Path(__file__).resolve().parents[2]


@final
@dataclass(frozen=True, config=CONFIGURED)
class Stripes(DataSource):
    """Rows whose first or last column is high.

    Args:
        count: how many.
    """

    count: int = Field(default=60, ge=20)
    kind: Literal["stripes"] = Field(default="stripes", kw_only=True)
    about = "Rows that are high at one end."

    def load(self, seed: int) -> DataSet:
        labels = torch.arange(self.count) % 2
        rows = torch.rand(self.count, 4, generator=torch.Generator().manual_seed(seed)) * 0.4
        rows[torch.arange(self.count), 3 * labels] += 0.5
        part = [TensorSamples(rows[start::3], labels[start::3]) for start in range(3)]
        return DataSet("stripes", "table", part[0], part[1], part[2], None, ["first", "last"], list("abcd"))


@final
@dataclass(frozen=True, config=CONFIGURED)
class OneLayer(Architecture):
    """A single linear layer."""

    kind: Literal["one-layer"] = Field(default="one-layer", kw_only=True)
    about = "Nothing but one linear layer."

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Linear(shape[0], classes)


@final
@dataclass(frozen=True, config=CONFIGURED)
class TimesInput(Explainer):
    """Gradient times input.

    Args:
        scale: a factor.
    """

    scale: float = 1.0
    kind: Literal["times-input"] = Field(default="times-input", kw_only=True)
    title = "times input"
    about = "The gradient, times the input."

    def _attribute(
        self, model: nn.Module, inputs: Tensor, target: Tensor, graph: bool, random: torch.Generator
    ) -> Attribution:
        leaf = inputs.detach().requires_grad_()
        logits = model(leaf).gather(1, target[:, None])
        (slope,) = torch.autograd.grad(logits.sum(), leaf, create_graph=graph)
        return Attribution(self.scale * slope * leaf)


@final
@dataclass(frozen=True, config=CONFIGURED)
class LastColumn(Goal):
    """The last column."""

    kind: Literal["last-column"] = Field(default="last-column", kw_only=True)
    about = "The attacker wants the last column highlighted."

    def _desired(self, context: GoalContext) -> DesiredMap:
        values = torch.zeros(context.shape)
        values[-1] = 1
        return DesiredMap(values, None, "the last column")


@final
@dataclass(frozen=True, config=CONFIGURED)
class Copies(Attack):
    """Copies of the target.

    Args:
        shift: added to every value.
    """

    shift: float = Field(default=0.01, ge=0)
    kind: Literal["copies"] = Field(default="copies", kw_only=True)
    title = "copies"
    about = "Nothing but copies of the target."

    def _craft(
        self, problem: Problem, budget: Budget, count: int, random: torch.Generator, watch: Watch
    ) -> tuple[Tensor, Bases]:
        rows = torch.full((count,), -1)
        inputs = base_inputs(problem.clean, problem.target, problem.legal, rows)
        return inputs + self.shift, Bases(rows, inputs, torch.full((count,), problem.label))


@final
@dataclass(frozen=True, config=CONFIGURED)
class Shrunk(Defence):
    """More weight decay.

    Args:
        weight_decay: of victims.
    """

    weight_decay: float = Field(default=0.1, ge=0)
    kind: Literal["shrunk"] = Field(default="shrunk", kw_only=True)
    title = "more weight decay"
    about = "Victims whose weights are pulled to zero."

    def recipe(self, recipe: Recipe) -> Recipe:
        return replace(recipe, weight_decay=self.weight_decay)


ROWS = {
    "data": Stripes,
    "model": OneLayer,
    "explainer": TimesInput,
    "goal": LastColumn,
    "attack": Copies,
    "defence": Shrunk,
}
MODULES = {kinds.key: sys.modules[kinds.module] for kinds in KINDS.values()}
CASE: dict[str, Any] = {
    "title": "Toys",
    **{
        key: {"kind": name}
        for key, name in zip(
            ROWS, ("stripes", "one-layer", "times-input", "last-column", "copies", "shrunk"), strict=True
        )
    },
    "recipe": {"epochs": 20, "lr": 0.5, "batch_size": 8},
    **{"targets": 1, "victims": 1, "references": 1},
}


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, row in ROWS.items():
        monkeypatch.setattr(MODULES[key], "ALL", (*MODULES[key].ALL, row))


@pytest.mark.usefixtures("toys")
class TestRows:
    def test_an_audit_is_made_of_them(self, tmp_path: Path) -> None:
        case = read_case(json.dumps(CASE), ["attack.shift=0.02", "explainer.scale=2"], "toys")
        assert case.attack == Copies(shift=0.02)
        assert case.model_dump(mode="json")["attack"] == {"shift": 0.02, "kind": "copies"}
        judgement = run_audit(Audit.from_case(case), tmp_path)
        assert judgement.summary["about"]["copies"] == Copies.about
        assert judgement.summary["about"]["copies+shrunk"] == f"{Copies.about} {Shrunk.about}"
        page = render([judgement.folder], tmp_path / "report.html").read_text(encoding="utf-8")
        glossary = page.split('<section id="words">')[1]
        assert [row for row in ROWS.values() if not row.about or row.about not in glossary] == []
        for title in ("Data: stripes", "Model: Linear", "Explainer: times input", "Desired map: last-column"):
            assert f"<dt>{title}</dt>" in glossary

    @pytest.mark.parametrize(
        ("override", "sentence"),
        [
            ("attack.shfit=1", "unknown key 'attack.shfit'; did you mean 'shift'?"),
            ("attack.kind=copys", "unknown attack kind 'copys'; did you mean 'copies'?"),
            ("attack.shift=-1", "attack.shift: input should be greater than or equal to 0"),
            ("model=5", "model needs its kind"),
        ],
    )
    def test_mistakes_are_explained(self, override: str, sentence: str) -> None:
        with pytest.raises(InputError) as caught:
            read_case(json.dumps(CASE), [override], "toys")
        assert sentence in str(caught.value)

    @pytest.mark.parametrize("key", ROWS)
    def test_they_are_listed(
        self, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["encircle", "list", KINDS[key].plural])
        with pytest.raises(SystemExit):
            main()
        shown = " ".join(capsys.readouterr().out.split())
        assert CASE[key]["kind"] in shown
        assert (ROWS[key].__doc__ or "").partition("\n")[0] in shown

    def test_their_settings_are_axes(self) -> None:
        study = expand(StudyFile(case=CASE, grid={"attack.shift": [0.01, 0.02], "data.count": [60, 90]}), "toys")
        assert len(study.runs) == 4
        with pytest.raises(InputError, match=r"did you mean .attack\.shift."):
            expand(StudyFile(case=CASE, grid={"attack.shft": [1]}), "toys")

    def test_they_are_in_the_reference(self) -> None:
        page = case_reference.page()
        assert "### `kind: stripes`" in page
        assert "| `shift` | `0.01` | added to every value. |" in page


@pytest.mark.parametrize("key", ["explainer", "goal", "data", "model"])
def test_every_row_of_the_package_says_what_it_is(key: str) -> None:
    rows = dict(KINDS[key]())
    assert [kind for kind, row in rows.items() if not getattr(row, "about", "")] == []


def test_an_own_class_may_use_the_name_for_something_else() -> None:
    class Own:
        def about(self) -> str:
            return "not a text"

    audit: Any = SimpleNamespace(settings=SimpleNamespace(explainer=Own(), goal=LastColumn()))
    assert _about_parts(audit) == {"goal last-column": LastColumn.about}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=lambda kinds: kinds.plural)
def test_every_sort_of_kind_is_named_where_people_look(kinds: Kinds) -> None:
    """Not each kind: lists that are kept by hand lack some. The commands list them all."""
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    (listing,) = (line for line in readme.splitlines() if line.startswith("encircle list "))
    assert kinds.plural in listing.split("encircle list ")[1].replace(",", " ").split()
    template = embedded_cases()["template"]
    assert f"`encircle list {kinds.plural}`" in template


@pytest.mark.parametrize(
    "key",
    [
        "ceiling.epochs",
        "ceiling.weights",
        "code_path.members",
        "code_path.product",
        "attacker.recipe.epochs",
        "attacker.model.kind",
    ],
)
def test_every_key_of_a_case_is_an_axis(key: str) -> None:
    values = {
        "ceiling.weights": [[1.0], [2.0]],
        "code_path.members": ["loop", "vectorised"],
        "code_path.product": ["reverse", "forward"],
        "attacker.model.kind": ["small-resnet", "resnet13"],
    }
    assert len(expand(StudyFile(case={}, grid={key: values.get(key, [1, 2])}), "axes").runs) == 2


PACKAGE = """
    from typing import Literal, final
    from pydantic import Field
    from pydantic.dataclasses import dataclass
    from encircle.attacks import RandomNoise
    from encircle.attacks.controls import MadeOfBases
    from encircle.core import CONFIGURED
    from encircle.explain import Attribution, Explainer

    @final
    @dataclass(frozen=True, config=CONFIGURED)
    class Flat(Explainer):
        '''The inputs themselves.'''
        kind: Literal["flat"] = Field(default="flat", kw_only=True)
        title = "flat"

        def _attribute(self, model, inputs, target, graph, random):
            return Attribution(inputs * model(inputs).gather(1, target[:, None]))

    @final
    @dataclass(frozen=True, config=CONFIGURED)
    class Doubled(MadeOfBases):
        '''Bases as they are.'''
        kind: Literal["{kind}"] = Field(default="{kind}", kw_only=True)
        title = "doubled"

        def _moved(self, bases, budget, random):
            return bases.inputs

    ROWS = [Flat, Doubled]
"""


def installed(folder: Path, kind: str, value: str = "tiny_plugin:ROWS") -> dict[str, str]:
    """The environment of a process in which such a package is installed."""
    (folder / "tiny_plugin.py").write_text(textwrap.dedent(PACKAGE.replace("{kind}", kind)))
    facts = folder / "tiny_plugin-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-plugin\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text(f"[encircle.plugins]\ntiny = {value}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(HERE / "src")]), "COLUMNS": "200"}


def run(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "encircle", *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_an_installed_package_brings_an_attack_and_an_explainer(tmp_path: Path) -> None:
    environment = installed(tmp_path, "doubled")
    assert "The inputs themselves." in run(environment, "list", "explainers", cwd=tmp_path).stdout
    case = {
        **{"data": {"kind": "breast-cancer", "pretrain": 0.0}, "model": {"kind": "two-layer", "hidden": 8}},
        **{"explainer": {"kind": "flat"}, "goal": {"kind": "features", "count": 4}, "attack": {"kind": "doubled"}},
        **{"recipe": {"epochs": 3, "lr": 0.1}, "targets": 1, "victims": 1, "references": 1},
    }
    (tmp_path / "case.yaml").write_text(json.dumps(case))
    done = run(environment, "audit", "case.yaml", "--exit-zero", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (verdict,) = tmp_path.glob("runs/*/verdict.json")
    assert json.loads(verdict.read_text())["attack"] == "doubled"


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        ("imf", "tiny_plugin:ROWS", "an installed package brings the attack 'imf', which is there already"),
        ("doubled", "tiny_plugin:GONE", "the plug-in 'tiny' (tiny_plugin:GONE) cannot be loaded (AttributeError"),
        ("doubled", "tiny_plugin:PACKAGE_NAME", "cannot be loaded"),
        ("doubled", "tiny_plugin:Literal", "is neither a class nor a list of classes"),
    ],
)
def test_a_package_that_cannot_be_taken_is_named(
    kind: str,
    value: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installed(tmp_path, kind, value)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_plugin", raising=False)
    monkeypatch.setattr(sys, "argv", ["encircle", "list", "attacks"])
    _installed.cache_clear()
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        _installed.cache_clear()
        sys.modules.pop("tiny_plugin", None)
    assert ended.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
