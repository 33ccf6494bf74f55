"""What the documents show is what the code and the committed results say."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from encircle.audit import Judgement

HERE = Path(__file__).resolve().parent.parent


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- example: tests run this very block -->\n```python\n(.*?)```", text, flags=re.S)
    assert block is not None
    code = [line for line in block[1].splitlines() if line.strip()]
    assert len(code) <= 15
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 2
    images = torch.rand(600, 3, 16, 16, generator=random) * 0.5 + 0.4 * labels[:, None, None, None]
    names = {
        "nn": nn,
        "my_train_set": TensorDataset(images[:560], labels[:560]),
        "my_test_set": TensorDataset(images[560:], labels[560:]),
    }
    monkeypatch.chdir(tmp_path)
    exec(compile(block[1], "README.md", "exec"), names)
    judgement = names["judgement"]
    assert isinstance(judgement, Judgement)
    assert judgement.verdict in {"PASS", "WARN", "FAIL"}
    assert (tmp_path / judgement.folder / "verdict.json").is_file()


def test_the_readme_shows_the_committed_evidence() -> None:
    evidence = tool("evidence")
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert text.split(evidence.BEGIN)[1].split(evidence.END)[0].strip() == evidence.summary().strip()
    assert (HERE / "results" / "evidence.md").read_text(encoding="utf-8").endswith(evidence.table() + "\n")


@pytest.mark.parametrize(("folder", "count"), [("evidence", 4), ("kdd21/table1", 2), ("kdd21/table2", 2)], ids=str)
def test_the_committed_verdicts_follow_from_the_committed_scores(folder: str, count: int) -> None:
    from encircle.reproduce.packed import unpack

    runs = unpack(HERE / "results" / folder)
    assert len(runs) == count
    for run in runs.values():
        again = tool("rejudge").judged_anew(run.verdict, run.table("scores"))
        assert (run.verdict["label_kept_threshold"], run.verdict["minimum_targets"]) == (0.9, 5)
        for key in ("verdict", "sentence", "undefined"):
            assert again[key] == run.verdict[key]
        for judged, committed in zip(again["arms"], run.verdict["arms"], strict=True):
            for key in ("jaccard", "jaccard_change", "l1", "l1_change", "label_kept", "accuracy_change"):
                assert judged[key] == pytest.approx(committed[key])


def test_what_is_judged_anew_is_packed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    from encircle.reproduce.packed import pack, unpack

    run = unpack(HERE / "results" / "evidence")["digits-cam"]
    pack({"right": run, "wrong": replace(run, verdict={**run.verdict, "verdict": "PASS"})}, tmp_path / "study")
    assert dict(tool("rejudge").rejudge_packed(tmp_path / "study")) == {"wrong": "PASS -> FAIL"}
    assert {name: found.verdict for name, found in unpack(tmp_path / "study").items()} == dict.fromkeys(
        ("right", "wrong"), run.verdict
    )
    assert dict(tool("rejudge").rejudge_packed(tmp_path / "study")) == {}


def test_results_are_few_files() -> None:
    assert sum(path.is_file() for path in (HERE / "results").rglob("*")) < 60


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("case_reference", "case.md"),
        ("choices", "choices.md"),
        ("performance", "performance.md"),
        ("kdd21", "kdd21.md"),
        ("strength", "strength-tables.md"),
        ("study", "how-much.md"),
    ],
)
def test_generated_pages_are_up_to_date(name: str, page: str) -> None:
    assert (HERE / "docs" / page).read_text(encoding="utf-8") == tool(name).page()


def test_the_page_about_strength_is_short_and_shows_the_committed_answer() -> None:
    strength = tool("strength")
    text = (HERE / "docs" / "strength.md").read_text(encoding="utf-8")
    assert text.split(strength.BEGIN)[1].split(strength.END)[0].strip() == strength.answer()
    assert len(text.split()) <= 1200


def test_what_is_kept_about_strength_replaces_what_was_there_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from encircle.core import InputError
    from encircle.storage import write_json
    from pages.strength import results_of

    strength = tool("strength")
    monkeypatch.setattr(strength, "RESULTS", tmp_path / "results")
    for name, value in (("digits-cam", 1), ("digits-grad", 2), ("digits-cam", 3)):
        write_json(tmp_path / f"{name}-reach" / "reach.json", {"value": value})
        strength.keep(tmp_path / f"{name}-reach")
    write_json(tmp_path / "digits-cam-budget" / "smallest.json", {})
    strength.keep(tmp_path / "digits-cam-budget")
    assert results_of(tmp_path / "results", "reach") == {"digits-cam": {"value": 3}, "digits-grad": {"value": 2}}
    assert results_of(tmp_path / "results", "budget") == {"digits-cam": {}}
    with pytest.raises(InputError, match=r"holds none of ablation\.json, reach\.json, smallest\.json"):
        strength.keep(tmp_path)


def test_the_picture_of_strength_shows_every_attack_of_every_case_where_it_came() -> None:
    import json

    from encircle.strength.side_by_side import title_of

    drawn = tool("strength").picture()
    (ax,) = drawn.axes
    (legend,) = drawn.legends
    dots = {dots.get_label(): dots.get_offsets() for dots in ax.collections}
    assert [text.get_text() for text in legend.get_texts()] == list(dots)
    controls = dots.pop("strongest control of the selected")
    cases = list(json.loads((HERE / "results" / "strength" / "reach.json").read_text("utf-8")).values())
    assert [" ".join(label.get_text().split()) for label in ax.get_yticklabels()] == [case["title"] for case in cases]
    assert sum(map(len, dots.values())) == sum(len(case["rows"]) for case in cases)
    intervals = sorted(tuple(line.get_xdata()) for line in ax.lines if line.get_linewidth() > 1)
    shifts = [row["shift"] for case in cases for row in case["rows"]]
    assert intervals == sorted((shift["low"], shift["high"]) for shift in shifts if shift["low"] is not None)
    for place, case in enumerate(cases):
        for row in case["rows"]:
            x, y = min(dots[title_of(row["name"])], key=lambda dot: abs(dot[1] - place))
            assert x == row["shift"]["mean"]
            assert abs(y - place) < 0.5
    selected = [row for case in cases for row in case["rows"] if row["name"] == "selected"]
    known = [row["control"]["change"]["mean"] for row in selected if row.get("control")]
    assert known == [x for x, _ in controls]


def test_every_result_about_strength_has_the_command_that_it_came_from(tmp_path: Path) -> None:
    import shlex

    from encircle.audit.case_file import assign_text, named_case
    from encircle.strength.ablation import FACTORS, varied
    from encircle.strength.reached import PUBLISHED, variants_of
    from pages.strength import COMMANDS, commands_of, results_of

    (tmp_path / "weights").touch()
    cells = [sys.executable, str(HERE / "tools" / "cells.py"), str(tmp_path), "--weights", str(tmp_path / "weights")]
    subprocess.run(cells, check=True)
    folder = HERE / "results" / "strength"
    commands = commands_of(folder)
    results = {(kind, name): result for kind in COMMANDS for name, result in results_of(folder, kind).items()}
    assert len(results) == 21
    for (kind, stem), result in results.items():
        words = shlex.split(commands[kind][stem])[2:]
        flags = ("--set", "--selected", "--supposed")
        values = {name: [value for flag, value in pairwise(words) if flag == name] for name in flags}
        path = tmp_path / words[0]
        case = named_case(str(path) if path.is_file() else words[0], values["--set"], outside=True).model_dump(
            mode="json"
        )
        if kind == "budget":
            planned, committed = {"": {"attack": case["attack"]}}, {"": {"attack": result["attack"]}}
            size = result["doses"][0]
        elif kind == "ablation":
            committed = {row["name"]: {"attack": row["attack"]} for row in result["rows"] if row["phase"] == "choice"}
            planned = {name: {"attack": varied(case["attack"], FACTORS.get(name, {}))} for name in committed}
            size = result["rows"][0]
        else:
            variants: dict[str, dict[str, Any]] = {"--selected": {}, "--supposed": {}}
            for name, settings in variants.items():
                for setting in values[name]:
                    assign_text(settings, setting, name)
            planned = variants_of(case, *variants.values())
            committed = {row["name"]: row["settings"] for row in result["rows"]}
            size = result["rows"][0]
            assert set(planned) == set(committed)
            assert result["explainer"] == case["explainer"]["kind"]
        assert (result["title"], size["targets"], size["victims"]) == (case["title"], case["targets"], case["victims"])
        for name, settings in committed.items():
            # The paper's settings were read otherwise before; the page says where.
            attack = {
                key: value
                for key, value in settings["attack"].items()
                if key in planned[name]["attack"] and not (name == PUBLISHED and key == "decay")
            }
            assert attack == {key: planned[name]["attack"][key] for key in attack}, (kind, stem, name)
            assert {key: settings[key] for key in settings if key != "attack"} == {
                key: planned[name][key] for key in settings if key != "attack"
            }, (kind, stem, name)


def test_nothing_of_the_place_it_was_made_in() -> None:
    local = re.compile(r"/(?:home|root|work|tmp/[a-z])[/\w]*|pypi\.org|pythonhosted", flags=re.I)
    for path in [
        *HERE.glob("*.md"),
        *HERE.glob("docs/*.md"),
        *HERE.glob("src/**/*.py"),
        *HERE.glob("results/**/*.json"),
    ]:
        assert not local.search(path.read_text(encoding="utf-8")), path


def test_the_readme_shows_the_committed_study_and_is_short() -> None:
    from encircle.storage import read_json

    study = tool("study")
    text = (HERE / "README.md").read_text(encoding="utf-8")
    summary = read_json(HERE / "results" / "how-much" / "study.json")
    assert text.split(study.BEGIN)[1].split(study.END)[0].strip() == study.answer(summary)
    assert len(text.splitlines()) <= 120


def test_the_picture_of_the_floors_is_that_of_the_contracts() -> None:
    architecture = tool("architecture")
    text = (HERE / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert text.split(architecture.BEGIN)[1].split(architecture.END)[0].strip() == architecture.block()
    assert len(text.splitlines()) <= 100


def test_floors_are_drawn_with_what_they_may_not_import() -> None:
    rules = [
        {"type": "layers", "name": "Down", "layers": ["cli", "a | b", "core"]},
        {"type": "forbidden", "name": "No", "source_modules": ["x.cli"], "forbidden_modules": ["x.b", "x.core"]},
    ]
    assert tool("architecture").picture(rules).splitlines()[2:-1] == [
        '    subgraph floor1[" "]; a; b; end',
        "    cli --> floor1 --> core",
        "    cli -.-x b & core",
    ]
    with pytest.raises(ValueError, match="no picture of contracts of the type 'independence'"):
        tool("architecture").picture([{"type": "independence", "name": "Apart"}])


def test_the_page_about_the_architecture_names_every_folder() -> None:
    text = (HERE / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in (HERE / "src" / "encircle").iterdir():
        if not path.name.startswith("_") and path.suffix in {"", ".py"}:
            assert re.search(rf"`{path.stem}(/|\.py)`", text), path


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*HERE.glob("*.md"), *HERE.glob("docs/*.md"), *HERE.glob("results/**/*.md")]:
        if page.name == "note.md":
            continue  # part of another page
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert re.match("https?://", target) or (page.parent / target).exists(), (page, target)


@pytest.mark.slow
def test_the_committed_study_follows_from_the_committed_scores(tmp_path: Path) -> None:
    import json

    import polars as pl

    from encircle.scoring.verdicts import judge
    from encircle.storage import write_json
    from encircle.study.grid import expand
    from encircle.study.judge import answer, judge_cells
    from encircle.study.plan import Planned
    from encircle.study.study_file import parse_study_file

    folder = HERE / "results" / "how-much"
    kept = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    study = expand(parse_study_file((folder / "study.yaml").read_text(encoding="utf-8"), "study.yaml"), "study.yaml")
    scores = pl.read_parquet(folder / "scores.parquet")
    runs = []
    for run, cell in zip(study.runs, kept["cells"], strict=True):
        [one] = cell["runs"]
        summary = judge(
            scores.filter(pl.col("run") == one["folder"]),
            attack=cell["attack"],
            titles={"clean": "no poison", "base": "unperturbed bases", "noise": "random noise"}
            | {
                "watermark": "WM (unbounded)",
                "watermark-projected": "WM (projected)",
                cell["attack"]: cell["attack_title"],
            },
            victims=cell["victims"],
            accuracy_rows=kept_held_out(study.runs[0].case),
            threshold=0.1,
            label_threshold=0.9,
            minimum_targets=5,
        )
        write_json(tmp_path / "runs" / one["folder"] / "verdict.json", summary)
        runs.append(Planned(run, one["folder"], one["folder"]))
    again = judge_cells(study, runs, tmp_path, {})
    for mine, theirs in zip(again, kept["cells"], strict=True):
        assert {name: mine[name] for name in ("title", "verdict", "sentence")} == {
            name: theirs[name] for name in ("title", "verdict", "sentence")
        }
        assert mine["p_adjusted"] == pytest.approx(theirs["p_adjusted"])
        for name in ("shift", "drift", "jaccard_attack", "l1_attack", "accuracy_change"):
            assert mine[name] == pytest.approx(theirs[name])
    assert list(answer(study, again)) == [kept["verdict"], kept["sentence"]]


def kept_held_out(case: object) -> int:
    data = case.data.load(case.seed)  # type: ignore[attr-defined]
    return len(data.validation) + len(data.test) - 1


def test_the_study_page_shows_studies_that_expand() -> None:
    from encircle.study.grid import expand
    from encircle.study.study_file import embedded_studies, read_study_file

    text = (HERE / "docs" / "study.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    assert len(expand(read_study_file(block, "docs/study.md"), "docs/study.md").runs) == 10
    assert {
        name: len(expand(read_study_file(study, name), name).runs) for name, study in embedded_studies().items()
    } == {"how-much": 18}


def test_the_committed_kills_lost_nothing() -> None:
    import json

    found = json.loads((HERE / "results" / "kill.json").read_text(encoding="utf-8"))["runs"]
    assert {one["executor"]: one["kills"] for one in found} == {"local": 50, "cluster": 10}
    for one in found:
        assert one["wrong or left over"] == []
        assert one["done again after being recorded"] == one["processes left"] == 0


@pytest.mark.parametrize("path", sorted((HERE / "docs" / "cases").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_example_cases_are_cases(path: Path) -> None:
    from encircle.audit.case_file import read_case

    case = read_case(path.read_text(encoding="utf-8"), [], path.name, folder=path.parent)
    assert case.targets == 10
    assert case.budget.epsilon == 0.1


@pytest.mark.parametrize(("name", "cell"), [("dogs", "dogs-cam"), ("fractures-nhanes", "fractures-grad")])
def test_the_example_cases_have_the_settings_of_the_papers_cells(name: str, cell: str) -> None:
    import yaml

    from encircle.audit.case_file import read_yaml
    from encircle.reproduce.kdd21 import CELLS

    case = read_yaml((HERE / "docs" / "cases" / f"{name}.yaml").read_text(encoding="utf-8"), name)
    for key in ("data", "model", "recipe", "explainer", "goal", "attack", "budget"):
        assert case[key] == yaml.safe_load(yaml.safe_dump(CELLS[cell][key])), key


def test_what_cannot_be_measured_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = tool("measure")
    asked: list[list[str]] = []

    def status(command: list[str], place: Path) -> int:
        asked.append(command)
        return int("breast-cancer-grad" in command)

    monkeypatch.setattr(measure, "_status", status)
    monkeypatch.setattr(measure, "RUNS", tmp_path)
    monkeypatch.setenv("ENCIRCLE_DATA", str(tmp_path))
    names = ["reach/breast-cancer-grad", "reach/dogs-cam", "budget/breast-cancer-grad", "ablation/digits-cam"]
    monkeypatch.setattr(sys, "argv", ["measure.py", *names])
    with pytest.raises(SystemExit, match=r"not finished: reach/breast-cancer-grad, reach/dogs-cam, budget/breast-canc"):
        measure.main()
    assert "reach/dogs-cam is left out: its network starts from weights" in capsys.readouterr().err
    assert [command[3:5] for command in asked if command[1:3] == ["-m", "encircle"]] == [
        ["reach", "breast-cancer-grad"],
        ["budget", "breast-cancer-grad"],
        ["ablate", "digits-cam"],
    ]
    assert [command[-1] for command in asked if command[1].endswith("strength.py")] == [
        str(tmp_path / "digits-cam-ablation")
    ]
