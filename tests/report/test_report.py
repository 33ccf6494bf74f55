"""The report from synthetic run folders: what it says, what it must never do, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from saved_run import HOSTILE, write_run

from encircle.core import InputError
from encircle.report import load_run, render, to_html
from encircle.run_folder import FORMER_COLUMNS, SHAPE_VERSION

VOID = {"meta", "link", "img", "br", "input"}
FILES = [
    "case.yaml",
    "environment.json",
    "verdict.json",
    "scores.parquet",
    "poisons.parquet",
    "history.parquet",
    "maps.safetensors",
]


class Page(HTMLParser):
    """The page as a browser would read it: elements with attributes, visible text, and tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.unmatched: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.unmatched += self._open
        self.words = " ".join(self.text.replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unmatched.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in {"style", "script"}:
            self.text += data

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(*folders: Path, title: str | None = None) -> tuple[str, Page]:
    text = to_html([load_run(folder) for folder in folders], title=title)
    return text, Page(text)


@pytest.fixture(scope="module", params=["plain", "hostile", "demonstration"])
def pages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    """Four runs on one page, as the demo has them."""
    base = tmp_path_factory.mktemp(request.param)
    options = {"hostile": request.param == "hostile", "demonstration": request.param == "demonstration"}
    return page_of(
        write_run(base / "a", **options),
        write_run(base / "b", explainer="GRAD", channels=3, undefined=True, **options),
        write_run(base / "c", kind="table", explainer="GRAD", **options),
        write_run(base / "d", kind="table", undefined=True, **options),
    )


class TestPage:
    def test_is_self_contained(self, pages: tuple[str, Page]) -> None:
        text, page = pages
        addresses = [
            (tag, value)
            for tag, attributes in page.elements
            for name, value in attributes.items()
            if name in {"src", "href", "srcset", "poster", "data", "action", "xlink:href", "srcdoc"}
        ]
        assert addresses
        assert [found for found in addresses if not str(found[1]).startswith(("data:", "#"))] == []
        assert not {"script", "iframe", "object", "embed", "base"} & {
            tag for tag, held in page.elements if "src" in held
        }
        assert "url(" not in text
        assert "@import" not in text
        assert not re.search(r"https?://", text)

    def test_names_are_escaped(self, pages: tuple[str, Page]) -> None:
        text, page = pages
        assert len(page.every("script")) == 1
        assert text.count("<script") == 1
        assert HOSTILE not in text
        assert not [name for _, held in page.elements for name in held if name.startswith("on")]

    def test_is_well_formed(self, pages: tuple[str, Page]) -> None:
        _, page = pages
        assert page.unmatched == []
        ids = [held["id"] for _, held in page.elements if "id" in held]
        assert len(ids) == len(set(ids))
        inner = {held["href"][1:] for _, held in page.elements if str(held.get("href")).startswith("#")}
        assert inner <= set(ids)

    def test_every_picture_is_described(self, pages: tuple[str, Page]) -> None:
        _, page = pages
        pictures = page.every("img")
        drawings = [held for held in page.every("svg") if held.get("role") == "img"]
        assert len(pictures) > 4
        assert len(drawings) == len(page.every("svg")) > 8
        assert all((held.get("alt") or "").strip() for held in pictures)
        assert all((held.get("aria-label") or "").strip() for held in drawings)

    def test_policy_forbids_everything_but_its_own_script(self, pages: tuple[str, Page]) -> None:
        text, page = pages
        policy = next(
            held["content"] for held in page.every("meta") if held.get("http-equiv") == "Content-Security-Policy"
        )
        script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
        assert script is not None
        digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
        assert policy is not None
        assert policy.startswith("default-src 'none';")
        assert f"script-src 'sha256-{digest}'" in policy
        assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'", "")

    def test_is_small(self, pages: tuple[str, Page]) -> None:
        assert len(pages[0]) < 1_000_000

    def test_answers_first(self, pages: tuple[str, Page]) -> None:
        _, page = pages
        question, answer = page.words.index("If someone controls 10 %"), page.words.index("The answer, audit by audit")
        assert question < answer < page.words.index("The verdict in numbers")
        assert page.words.count("FAIL") >= 8


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("explainer", ["GRAD", "CAM"])
def test_one_run(tmp_path: Path, kind: str, explainer: str) -> None:
    _, page = page_of(write_run(tmp_path / "run", kind=kind, explainer=explainer))  # type: ignore[arg-type]
    words = page.words
    for part in (
        "The explanation can be bent",
        "+0.34 [0.30, 0.38]",
        "0.46 [0.41, 0.51]",
        "−0.4 [−1.0, 0.2]",
        "Watermark within the budget",
        "What to do about it",
        "Upper objective, L_adv",
        "0 (shown)",
        "lost: “class 1”",
        "sha256:9b2f0c4a",
        "torch 2.13.0",
        "data.seed 7",
        "13 min 58 s",
        "Responsible use",
        "would go unseen",
    ):
        assert part in words, part
    assert ("mean measure number 4" in words) == (kind == "table")
    assert ("unit 4" in words) == (kind == "table" and explainer == "CAM")
    assert ("Manipulated, every pixel" in words) == (kind == "image" and explainer == "GRAD")
    assert "A demonstration" not in words


@pytest.mark.parametrize("path", [None, "loop", [1], {"members": "<b>loop</b>", "product": "forward"}])
def test_the_code_path_is_told_where_the_run_says_it(tmp_path: Path, path: Any) -> None:
    folder = write_run(tmp_path / "run")
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps({**environment, "code_path": path}))
    page = render([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("Code path" in page) == isinstance(path, dict)
    assert "<b>loop" not in page


def test_a_demonstration_claims_no_interval(tmp_path: Path) -> None:
    _, page = page_of(write_run(tmp_path / "run", demonstration=True, resolvable=False))
    assert "A demonstration." in page.words
    assert "No interval is claimed" in page.words
    assert "not resolvable" in page.words
    assert "300 held-out rows are too few" in page.words
    assert "+0.34" in page.words
    assert not re.search(r"\d \[", page.words)


def test_undefined_scores_are_called_so_and_left_out_of_means(tmp_path: Path) -> None:
    text, page = page_of(write_run(tmp_path / "run", undefined=True))
    assert "Random noise undefined undefined 0.43" in page.words
    assert "undefined → undefined" in page.words
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text), re.IGNORECASE)
    row = re.search(r"mass in box.*?Influence \(IMF\) ?(\d\.\d\d)", page.words)
    assert row is not None
    assert float(row[1]) > 0.4


def test_budget_of_nothing_has_no_poison_to_show(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    maps = {
        key: value for key, value in load_file(run / "maps.safetensors").items() if not key.endswith(("poison", "base"))
    }
    save_file(maps, run / "maps.safetensors")
    poisons = pl.read_parquet(run / "poisons.parquet")
    empty = poisons.with_columns(
        pl.lit(0).alias("count"), *(pl.lit(None, pl.Float64).alias(key) for key in ("linf", "l2", "psnr"))
    )
    empty.with_columns(pl.lit(0.0).alias("share_of_set")).write_parquet(run / "poisons.parquet")
    pl.read_parquet(run / "history.parquet").clear().write_parquet(run / "history.parquet")
    _, page = page_of(run)
    assert "If someone controls 0 %" in page.words
    assert "Difference" not in page.words
    assert "How crafting went" not in page.words


def test_an_error_without_results_is_still_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", verdict="ERROR")
    for name in ("scores", "poisons", "history"):
        pl.read_parquet(run / f"{name}.parquet").clear().write_parquet(run / f"{name}.parquet")
    for name, change in (("environment", {"targets": []}), ("verdict", {"arms": [], "advice": []})):
        path = run / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    _, page = page_of(run)
    assert "ERROR" in page.words
    assert "controls a part of the training data" in page.words
    assert "has no advice" in page.words
    assert page.unmatched == []


def test_many_targets_are_folded_after_the_third(tmp_path: Path) -> None:
    _, page = page_of(write_run(tmp_path / "run", targets=10, victims=1))
    targets = [tag for tag, held in page.elements if held.get("class") == "target"]
    assert targets == ["article"] * 3 + ["details"] * 7


def test_constant_maps_are_said_to_be_constant(tmp_path: Path) -> None:
    for kind in ("image", "table"):
        run = write_run(tmp_path / kind, kind=kind)  # type: ignore[arg-type]
        maps = load_file(run / "maps.safetensors")
        save_file(
            {key: np.zeros_like(value) if "/imf/0" in key else value for key, value in maps.items()},
            run / "maps.safetensors",
        )
        text, _ = page_of(run)
        assert "the same everywhere" in text


def test_the_mask_limits_what_is_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", kind="table", explainer="GRAD", targets=1)
    maps = load_file(run / "maps.safetensors")
    key = next(name for name in maps if name.endswith("/mask"))
    maps[key] = (np.arange(30) < 12).astype(np.float32)
    save_file(maps, run / "maps.safetensors")
    text, page = page_of(run)
    assert "18 further entries are outside the goal's mask" in page.words
    assert text.count('class="manipulated"') == 12


def test_unscored_cells_of_a_picture_are_explained(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", targets=1)
    assert "not scored" not in page_of(run)[1].words
    maps = load_file(run / "maps.safetensors")
    key = next(name for name in maps if name.endswith("/mask"))
    maps[key][0] = 0
    save_file(maps, run / "maps.safetensors")
    assert "Cells without colour are outside the goal's mask and are not scored." in page_of(run)[1].words


def test_a_title_can_be_given(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in "ab"]
    assert "<h1>2 audits</h1>" in page_of(*runs)[0]
    assert "<h1>Ours &lt;3</h1>" in page_of(*runs, title="Ours <3")[0]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", explainer="GRAD")
    first = render([run], tmp_path / "one.html").read_bytes()
    assert render([run], tmp_path / "deep" / "two.html").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "one.html", "run"]


def test_a_failure_leaves_the_earlier_report_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    report = render([run], tmp_path / "report.html")
    before = report.read_bytes()
    (run / "scores.parquet").unlink()
    with pytest.raises(InputError):
        render([run], report)
    assert report.read_bytes() == before


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "truncated", "binary", "folder"])
def test_unusable_files_are_named_with_the_remedy(tmp_path: Path, name: str, harm: str) -> None:
    path = write_run(tmp_path / "run") / name
    content = path.read_bytes()
    path.unlink()
    if harm == "truncated":
        path.write_bytes(b"[" if name == "case.yaml" else content[: len(content) // 2])
    elif harm == "binary":
        path.write_bytes(b"\xff\x00\xfe" * 50)
    elif harm == "folder":
        path.mkdir()
    with pytest.raises(
        InputError, match=rf"{re.escape(name)} is (missing|damaged); run `encircle audit` .*again to resume"
    ) as caught:
        load_run(tmp_path / "run")
    assert "\n" not in str(caught.value)


def _edit(name: str, change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        content = json.loads((run / name).read_text())
        change(content)
        (run / name).write_text(json.dumps(content))

    return harm


def _maps(change: Callable[[str, np.ndarray], np.ndarray | None]) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        maps = {key: change(key, value) for key, value in load_file(run / "maps.safetensors").items()}
        save_file({key: value for key, value in maps.items() if value is not None}, run / "maps.safetensors")

    return harm


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_edit("verdict.json", lambda verdict: verdict.pop("sentence")), "verdict.json lacks the entry 'sentence'"),
        (_edit("verdict.json", lambda verdict: verdict["arms"][1].pop("l1")), r"lacks the entry 'arms\[1\].l1'"),  # type: ignore[index]
        (
            _edit("verdict.json", lambda verdict: verdict.update(advice="none")),
            "has an entry 'advice' of the wrong kind",
        ),
        (_edit("environment.json", lambda environment: environment["data"].pop("kind")), "lacks the entry 'data.kind'"),  # type: ignore[attr-defined]
        (lambda run: (run / "case.yaml").write_text("- 1"), "case.yaml is damaged"),
        (lambda run: (run / "verdict.json").write_text("[]"), "verdict.json is damaged"),
        (
            lambda run: pl.read_parquet(run / "scores.parquet").drop("l1").write_parquet(run / "scores.parquet"),
            "scores.parquet lacks the column 'l1'",
        ),
        (
            _maps(lambda key, value: None if key.endswith("/goal") else value),
            "maps.safetensors lacks the map '.*/goal'",
        ),
        (
            _maps(lambda key, value: value[:-1].copy() if key.endswith("/imf/0") else value),
            "of another shape than its goal",
        ),
        (
            _maps(lambda key, value: value[0].copy() if key.endswith("/input") else value),
            "of the wrong shape for target",
        ),
    ],
)
def test_incomplete_content_is_named(tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    run = write_run(tmp_path / "run")
    harm(run)
    with pytest.raises(InputError, match=message):
        load_run(run)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder; run `encircle audit` first"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="at least one run"):
        render([], tmp_path / "report.html")


def test_maps_are_read_when_asked_for(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", targets=1))
    row = run.environment["targets"][0]["row"]
    assert run.maps[f"{row}/goal"].shape == (8, 8)
    assert len(run.maps) == len(list(run.maps)) > 10
    assert "nothing" not in run.maps
    with pytest.raises(KeyError):
        run.maps["nothing"]
    assert run.case == yaml.safe_load((run.folder / "case.yaml").read_text())


@pytest.mark.parametrize(("former", "name"), FORMER_COLUMNS.items())
def test_the_history_of_an_earlier_version_has_the_names_of_today(tmp_path: Path, former: str, name: str) -> None:
    folder = write_run(tmp_path / "run", targets=1)
    path = folder / "history.parquet"
    history = pl.read_parquet(path).with_columns(pl.lit(0.5).alias(former))
    history.write_parquet(path)

    assert load_run(folder).history.equals(history.rename({former: name}))


def test_needs_no_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    code = (
        "import sys, pathlib\n"
        "sys.modules['torch'] = None\n"
        "from encircle.report import render\n"
        f"render([pathlib.Path({str(run)!r})], pathlib.Path({str(tmp_path / 'report.html')!r}))\n"
        "floors = ('attacks', 'audit', 'explain', 'goals', 'models', 'training')\n"
        "loaded = {'matplotlib.pyplot', *('encircle.' + name for name in floors)} & set(sys.modules)\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert (tmp_path / "report.html").is_file()


def test_an_audit_that_did_not_finish_is_on_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    page = render([run], tmp_path / "page.html", failures=[("<b>Other</b>", "the disk is full")]).read_text()
    assert "&lt;b&gt;Other&lt;/b&gt; did not finish" in page
    assert "the disk is full" in page


def test_a_run_of_a_newer_version_says_what_to_install(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", targets=1)
    path = folder / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shape_version": SHAPE_VERSION + 1}))
    with pytest.raises(InputError, match=rf"environment\.json is of a newer version of encircle .*{SHAPE_VERSION + 1}"):
        load_run(folder)


def test_a_run_of_before_versions_were_said_opens(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", targets=1)
    path = folder / "environment.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "shape_version"}))
    assert load_run(folder).attack


def test_the_words_say_what_was_audited_where_the_run_does(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", targets=1, explainer="GRAD")
    former = render([folder], tmp_path / "former.html").read_text()
    assert "What was audited" not in former
    path = folder / "verdict.json"
    verdict = json.loads(path.read_text())
    verdict["about"] = {"imf": "Drags.", "explainer grad": "A slope <b>.", "goal region": "A part.", "later thing": "?"}
    path.write_text(json.dumps(verdict))
    page = render([folder], tmp_path / "page.html").read_text().partition('<section id="words">')[2]
    assert "<dt>Explainer: GRAD</dt><dd>A slope &lt;b&gt;.</dd>" in page
    assert "<dt>Desired map: region</dt><dd>A part.</dd>" in page
    assert "<dd>Drags.</dd>" in page
    assert "later thing" not in page
