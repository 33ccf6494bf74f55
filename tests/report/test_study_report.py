"""The page of a study: what it says, what it refuses, and that it stays small, offline and harmless."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, sync_playwright
from safetensors.numpy import save_file
from saved_study import NOTHING, Axes, estimate, failed, write_study
from test_report import Page as Markup

from encircle.core import InputError
from encircle.report import render_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)> javascript:alert(3) & " \''


def page_of(root: Path, **settings: Any) -> str:
    """The page, having been looked over: tags that match, ids that are unique, and links that lead somewhere."""
    text = render_study(root, **settings).read_text(encoding="utf-8")
    markup = Markup(text)
    ids = [held["id"] for _, held in markup.elements if "id" in held]
    inner = [str(held["href"]) for _, held in markup.elements if str(held.get("href")).startswith("#")]
    assert markup.unmatched == []
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in inner} <= set(ids)
    assert not [name for _, held in markup.elements for name in held if name.startswith("on")]
    assert not re.search(r"\b(?:nan|inf)\b", "".join(re.findall(r'\b(?:d|x|y|cx|cy)="[^"]*"', text)))
    return text


def test_the_answer_comes_first_and_every_cell_is_there(tmp_path: Path) -> None:
    page = page_of(write_study(tmp_path / "study"))
    body = page[page.index("<body>") :]
    assert body.index("The explanation can be bent in some cells.") < body.index("<table")
    assert 'badge fail">FAIL</span> 4 cells' in body
    assert 'badge warn">WARN</span> 2 cells' in body
    assert 'badge pass">PASS</span> 6 cells' in body
    table = body[body.index('<table class="heat">') : body.index("</table>")]
    assert len(re.findall(r'<td class="(?:up|down)"', table)) == 12
    assert "+0.24" in table
    assert "+0.19 to +0.29" in table
    for number in range(12):
        assert f'href="./runs/run-{number}/report.html"' in table
        assert f"The sentence of cell {number}." in body
        assert f'id="cell-{number + 1}"' in body
    assert body.count("data:image/png;base64,") == 12 * 4
    quiet = Markup(body[body.index("Where nothing was found") : body.index('id="advice"')]).words
    assert quiet.count("0.00 [−0.05, 0.05]; one of 0.07 or more would have been claimed") == 6
    facts = {"Runs": "12 of 12 finished", "Machine": "Linux", "Commit": "abc", "Versions": "torch 2.13.0"}
    for name, value in facts.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in body
    assert "12, of which 12 make a claim" in body
    assert '<th scope="row">attack</th><td>7</td><td>1</td><td>5\xa0min 12\xa0s</td>' in body
    assert "title: How much is enough?" in body


def test_rows_of_the_table_say_once_what_they_share(tmp_path: Path) -> None:
    axes: Axes = (
        ("budget.fraction", ["1%", "2%"], [0.01, 0.02]),
        *((name, [f"{name} {n}" for n in range(2)], None) for name in ("data", "goal", "model")),
    )
    page = page_of(write_study(tmp_path / "study", axes, change=lambda number, at: None if at[1:] == (0, 0, 1) else {}))
    table = page[page.index('<table class="heat">') : page.index("</table>")]
    found = re.findall(r'rowspan="(\d)">(data \d|goal \d)<', table)
    assert found == [
        *(("3", "data 0"), ("1", "goal 0"), ("2", "goal 1")),
        *(("4", "data 1"), ("2", "goal 0"), ("2", "goal 1")),
    ]
    assert table.count("<tr>") == 2 + 7


def test_curves_have_a_panel_an_explainer_and_a_line_an_attack(tmp_path: Path) -> None:
    page = page_of(write_study(tmp_path / "study"))
    section = page[page.index('id="curves"') : page.index('id="open"')]
    assert section.count("<figcaption>") == 2
    assert section.count('class="drift"') == 2
    assert section.count('class="threshold"') == 2
    assert len(re.findall(r'<g class="s\d">', section)) == 4
    assert len(re.findall(r'class="whisker-of"', section)) == 12
    [first, _] = re.findall(r'aria-label="(Effect against dose[^"]*)"', section)
    assert first.startswith("Effect against dose. IMF: 2%: +0.08 [0.03,\xa00.13], 5%: +0.16 ")


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ([0.02, 0.05, 0.1], False),
        ([0.001, 0.002, 0.01, 0.5], True),
        ([0.0, 0.002, 0.01, 0.5], False),
        ([-1.0, 3.0, 3.0], False),
        ([5.0, 5.0], False),
        ([n / 100 for n in range(1, 41)], False),
    ],
)
def test_doses_keep_apart_and_stay_in_the_frame(values: list[float], logarithmic: bool, tmp_path: Path) -> None:
    axes: Axes = (("budget.epsilon", [f"{v:g}" for v in values], values), ("attack", [*"abcdef"], None))
    page = page_of(write_study(tmp_path / "study", axes, kind="table"))
    section = page[page.index('id="curves"') : page.index('id="open"')]
    assert ("the budget.epsilon, logarithmic" in section) == logarithmic
    for group in re.findall(r'<g class="s\d">(.*?)</g>', section, flags=re.S):
        path = re.search(r'class="line" d="M([^"]*)"', group)
        assert path is not None
        places = [float(point.split()[0]) for point in path[1].split("L")]
        assert places == sorted(places)
        assert len(places) == len(values)
        assert 46 <= places[0] <= places[-1] <= 346


@pytest.mark.parametrize(
    "axes",
    [
        (),
        (("victims", ["3"], [3.0]),),
        (("goal", ["left", "right"], None),),
        (("budget.fraction", ["1%", "50%"], [0.01, 0.5]),),
        (("goal", ["a", "b"], None), ("model", ["small", "large"], None)),
        (("budget.fraction", ["1%", "2%"], [0.01, 0.02]), ("goal", [f"goal {n}" for n in range(30)], None)),
    ],
)
def test_grids_of_every_shape(axes: Axes, tmp_path: Path) -> None:
    page = page_of(write_study(tmp_path / "study", axes))
    cells = 1
    for _, labels, _ in axes:
        cells *= len(labels)
    assert page.count('<details class="cell-entry"') == cells
    assert ('id="curves"' in page) == any(values and len(labels) > 1 for _, labels, values in axes)


def test_more_panels_than_anyone_looks_at_are_counted(tmp_path: Path) -> None:
    axes: Axes = (
        ("budget.fraction", ["1%", "2%"], [0.01, 0.02]),
        ("goal", [f"goal {n}" for n in range(10)], None),
        ("model", [f"model {n}" for n in range(10)], None),
    )
    page = page_of(write_study(tmp_path / "study", axes))
    assert "76 more panels are not drawn" in page
    assert page.count('role="img"') == 24


def test_what_is_left_out_failed_or_undefined_says_so(tmp_path: Path) -> None:
    def change(number: int, at: tuple[int, ...]) -> dict[str, Any] | None:
        special: dict[int, dict[str, Any] | None] = {
            0: None,
            1: failed("5% · CAM · WM"),
            2: {"reason": "undefined", "shift": NOTHING, "verdict": "WARN"},
            3: {"reason": "few", "demonstration": True, "verdict": "WARN", "shift": estimate(0.2, None)},
            4: {"reason": "chance", "p_adjusted": 0.2, "verdict": "WARN", "shift": estimate(0.2)},
            5: {"reason": "weak", "verdict": "WARN", "shift": estimate(0.0), "smallest_detectable_shift": 0.2},
            6: {"reason": "away", "verdict": "WARN", "shift": estimate(-0.3)},
            7: {"reason": "label", "verdict": "WARN", "shift": estimate(0.3), "label_kept": 0.4, "label_lost": True},
            8: {"reason": "small", "verdict": "WARN", "shift": estimate(0.07, 0.02)},
            9: {"reason": "some", "verdict": "WARN", "shift": estimate(0.0)},
            10: {"reason": "same", "verdict": "WARN", "shift": estimate(0.0, 0.0), "smallest_detectable_shift": 0.0},
            11: {"reason": "undefined", "verdict": "WARN", "shift": NOTHING, "demonstration": True},
        }
        return special.get(number, {})

    page = page_of(write_study(tmp_path / "study", change=change))
    assert "left out" in page
    assert "did not finish" in page
    assert 'href="./logs/attack-1.log"' in page
    opened = page[page.index('id="open"') : page.index('id="advice"')]
    for reason in (
        "Did not finish",
        "Undefined explanations",
        "Too few targets",
        "May be chance",
        "Too little evidence",
        "away from the attacker",
        "gave itself away",
        "smaller than the threshold",
        "Undefined for some targets",
        "The same score everywhere",
    ):
        assert reason in opened, reason
    notes = dict(re.findall(r'<li><a href="#cell-\d+">([^<]*)</a>: (.*?)</li>', opened))
    assert notes["2% · CAM · WM"] == 'the disk was full. <a href="./logs/attack-1.log">log</a>'
    assert notes["5% · CAM · WM"] == "0.00 [−0.05,\xa00.05]; one of 0.20 or more would have been claimed"
    assert notes["5% · GRAD · IMF"] == "−0.30 [−0.35,\xa0−0.25]"
    assert notes["10% · CAM · IMF"] == "+0.07 [0.05,\xa00.09]"
    assert notes["10% · GRAD · IMF"] == "0.00 [0.00,\xa00.00]"
    undefined = opened[opened.index("Undefined explanations") : opened.index("May be chance")]
    assert "10% · GRAD · WM" in undefined
    assert "encircle study retry" in page
    assert "undefined" in page


def test_a_curve_is_broken_where_a_dose_has_no_shift(tmp_path: Path) -> None:
    axes: Axes = (("budget.fraction", ["1%", "2%", "3%", "4%"], [0.01, 0.02, 0.03, 0.04]), ("attack", ["a", "b"], None))
    gaps = {(1, 0): failed("x"), (1, 1): {"shift": NOTHING, "verdict": "WARN", "reason": "undefined"}, (2, 1): None}
    page = page_of(write_study(tmp_path / "study", axes, change=lambda number, at: gaps.get(at, {})))
    section = page[page.index('id="curves"') : page.index('id="open"')]
    first, second = re.findall(r'<g class="s\d">\s*<path class="line" d="([^"]*)"', section)
    assert re.sub(r"[\d. ]+", "", first) == "MML"
    assert re.sub(r"[\d. ]+", "", second) == "MM"
    assert "2%: did not finish, 3%: +0.24" in section
    assert "2%: undefined, 4%: +0.32" in section
    assert "the line is broken" in section
    whole = page_of(write_study(tmp_path / "whole", axes))
    assert "the line is broken" not in whole


def test_everything_may_have_failed(tmp_path: Path) -> None:
    page = page_of(
        write_study(
            tmp_path / "study",
            change=lambda number, at: failed(f"run {number}", log=None),
            verdict="ERROR",
            advice=[],
            environment=None,
        )
    )
    assert 'badge error">ERROR</span> 12 cells' in page
    assert 'id="curves"' not in page


def test_pooled_seeds_are_listed_under_their_cell(tmp_path: Path) -> None:
    runs = [{"folder": f"seed-{seed}", "seed": seed, "verdict": "WARN"} for seed in (3, 4)]
    page = page_of(write_study(tmp_path / "study", (), change=lambda number, at: {"runs": runs}))
    assert 'href="#cell-1" title' in page
    for seed in (3, 4):
        assert f"Report of seed {seed}" in page
        assert f"runs/seed-{seed}/report.html" in page
        assert f'<a href="./runs/seed-{seed}/">runs/seed-{seed}</a>, seed {seed}<' in page


def test_a_cell_that_lacks_several_runs_says_so_once(tmp_path: Path) -> None:
    missing = [{"title": f"seed {seed}", "why": "it was killed.", "log": None} for seed in (3, 4)]
    root = write_study(tmp_path / "study", (), change=lambda number, at: {**failed("x"), "missing": missing})
    assert "it was killed. (2 runs did not finish)</li>" in page_of(root)


def test_links_follow_the_page(tmp_path: Path) -> None:
    root = write_study(tmp_path / "a study", ())
    page = page_of(root, destination=tmp_path / "pages" / "page.html")
    assert 'href="../a%20study/runs/run-0/report.html"' in page
    assert "<h1>Mine</h1>" in page_of(root, title="Mine")


def test_nothing_from_the_data_gets_out_as_markup(tmp_path: Path) -> None:
    axes: Axes = (("budget.fraction", [HOSTILE, "b"], [0.1, 0.2]), ("attack", [HOSTILE, "y"], None))

    def change(number: int, at: tuple[int, ...]) -> dict[str, Any]:
        if number == 3:
            return {**failed(HOSTILE, why=HOSTILE), "title": HOSTILE}
        return {
            "title": HOSTILE,
            "sentence": HOSTILE,
            "attack_title": HOSTILE,
            "control": {"title": HOSTILE, "change": estimate(0.0)},
        }

    page = page_of(
        write_study(
            tmp_path / "study",
            axes,
            change=change,
            title=HOSTILE,
            sentence=HOSTILE,
            advice=[HOSTILE],
            study=HOSTILE,
            environment={"platform": HOSTILE, "versions": {HOSTILE: HOSTILE}, "commit": HOSTILE},
            counts={"runs": 4, "finished": 3, "tasks": {HOSTILE: {"done": 1}}},
            seconds={HOSTILE: 1.0},
        )
    )
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("<script>") == 1
    markup = Markup(page)
    links = [str(value) for _, held in markup.elements for name, value in held.items() if name in {"href", "src"}]
    assert [link for link in links if not link.startswith(("#", "data:", "./runs/run-", "./logs/"))] == []
    assert markup.words.count("javascript:alert(3)") > 20


@pytest.mark.parametrize("name", ["../out", "a/b", "..", ".hidden", "a\\b", "a\x00b", "a\nb", "a\x7fb", ""])
def test_run_folders_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    root = write_study(tmp_path / "study", ())
    facts = json.loads((root / "study.json").read_text())
    facts["cells"][0]["runs"][0]["folder"] = name
    (root / "study.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="not of this study"):
        render_study(root)


@pytest.mark.parametrize(
    "log", ["../logs/x", "/etc/passwd", "logs/../../x", "javascript:alert(1)", "logs/", "logs/a\nb"]
)
def test_logs_elsewhere_are_refused(log: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not of this study"):
        render_study(write_study(tmp_path / "study", (), change=lambda number, at: failed("x", log=log)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: facts.pop("cells"),
        lambda facts: facts.update(cells=[]),
        lambda facts: facts["cells"][0].update(at=[9, 9, 9]),
        lambda facts: facts["cells"][0].update(verdict="GOOD"),
        lambda facts: facts["cells"][0].pop("shift"),
        lambda facts: facts["cells"][0].update(shift={"mean": "x", "low": None, "high": None}),
        lambda facts: facts["axes"][0].update(values=["x", "y", "z"]),
        lambda facts: facts["axes"][0].update(values=[math.nan, 0.1, 0.2]),
        lambda facts: facts["axes"][0].update(values=[0.1]),
        lambda facts: facts.update(axes=3),
        lambda facts: facts.update(dose="nothing of the kind"),
        lambda facts: facts.update(dose="attack"),
        lambda facts: facts.update(verdict="GOOD"),
        lambda facts: facts.update(threshold=math.nan),
        lambda facts: facts.update(title="\ud800"),
        lambda facts: facts["cells"][0]["shift"].update(mean=math.inf),
        lambda facts: facts["cells"][0]["shift"].update(mean=10**400),
        lambda facts: facts["cells"][0].update(control={}),
        lambda facts: facts["cells"][0].update(control={"title": "noise", "change": {"mean": 0.1}}),
        lambda facts: facts["cells"][1].update(at=facts["cells"][0]["at"]),
        lambda facts: facts["counts"]["tasks"].update(attack=3),
        lambda facts: facts["counts"]["tasks"].update(attack={"done": None}),
        lambda facts: facts["seconds"].update(attack="long"),
    ],
)
def test_a_damaged_study_is_named_in_one_sentence(damage: Any, tmp_path: Path) -> None:
    root = write_study(tmp_path / "study")
    facts = json.loads((root / "study.json").read_text())
    damage(facts)
    (root / "study.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"study\.json .*(resume|anew)"):
        render_study(root)
    for content in ("", "{", "[]", "[" * 100_000):
        (root / "study.json").write_text(content)
        with pytest.raises(InputError, match=r"study\.json"):
            render_study(root)
    (root / "study.json").unlink()
    with pytest.raises(InputError, match="is missing"):
        render_study(root)


def test_a_run_that_is_gone_or_damaged_has_no_thumbnails(tmp_path: Path) -> None:
    root = write_study(tmp_path / "study")
    shutil.rmtree(root / "runs" / "run-0")
    (root / "runs" / "run-1" / "maps.safetensors").unlink()
    (root / "runs" / "run-1" / "maps.safetensors").write_bytes(b"garbage")
    odd = {"0/input": np.zeros((1, 8, 8)), "0/goal": np.eye(8), "0/clean/0": np.zeros((2, 8, 8)), "0/imf/0": np.eye(8)}
    run = root / "runs" / "run-2"
    (run / "maps.safetensors").unlink()
    save_file(odd, run / "maps.safetensors")
    environment = json.loads((run / "environment.json").read_text())
    environment["targets"][0]["row"] = 0
    (run / "environment.json").unlink()
    (run / "environment.json").write_text(json.dumps(environment))
    assert page_of(root).count("data:image/png;base64,") == 9 * 4
    assert page_of(write_study(tmp_path / "table", (), kind="table")).count("data:image/png") == 0


def test_the_same_study_gives_the_same_page_and_nothing_else_runs(tmp_path: Path) -> None:
    root = write_study(tmp_path / "study")
    page = page_of(root)
    assert page == page_of(root)
    [script] = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page or f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "http:" not in page
    assert "https:" not in page


@pytest.mark.slow
def test_a_thousand_runs_fit(tmp_path: Path) -> None:
    axes: Axes = (
        ("budget.fraction", [f"{n}%" for n in range(1, 11)], [n / 100 for n in range(1, 11)]),
        ("goal", [f"goal {n}" for n in range(10)], None),
        ("attack.epochs", [f"{n}" for n in range(1, 11)], None),
    )
    root = write_study(tmp_path / "study", axes)
    started = time.monotonic()
    size = render_study(root).stat().st_size
    print(f"1,000 runs: {time.monotonic() - started:.1f} s, {size / 2**20:.1f} MB")
    assert size < 15 * 2**20
    page = page_of(root)
    assert page.count('<details class="cell-entry"') == 1000
    assert "and 860 more, in the list of all cells" in page


@pytest.fixture
def browser_page(request: pytest.FixtureRequest) -> Iterator[tuple[Page, list[str]]]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": request.param, "height": 900})
        trouble: list[str] = []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on(
            "request", lambda sent: trouble.append(sent.url) if not sent.url.startswith(("file:", "data:")) else None
        )
        yield page, trouble
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs an installed Chromium; `apt-get install chromium` or the like")
@pytest.mark.parametrize("browser_page", [1280, 390], indirect=True)
def test_clicking_through(browser_page: tuple[Page, list[str]], tmp_path: Path) -> None:
    page, trouble = browser_page
    root = write_study(tmp_path / "study", change=lambda number, at: failed("5% · CAM · WM") if number == 1 else {})
    page.goto(render_study(root).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".cell-entry").count() == 12
    assert page.locator(".filter output").inner_text() == "12 of 12 cells"

    page.locator(".heat td a").nth(5).click()
    assert page.locator("h1").inner_text() == "A run's own report"
    page.go_back()

    page.locator(".filter input").fill("cam imf")
    assert page.locator(".cell-entry:visible").count() == 3
    page.locator(".filter select").select_option("FAIL")
    assert page.locator(".filter output").inner_text() == "2 of 12 cells"
    page.locator(".filter input").fill("nothing of the kind")
    assert page.locator(".cell-entry:visible").count() == 0

    for _ in range(2):  # from a filtered list, and to an entry that was closed again
        page.locator("#open a").first.click()
        page.locator("details:target[open]").wait_for()
        assert page.locator(".filter output").inner_text() == "12 of 12 cells"
        page.locator("details:target summary").click()
        assert page.locator(".cell-entry[open]").count() == 0
    entry = page.locator("#cell-12")
    entry.locator("summary").click()
    assert entry.get_by_text("Report of the run").is_visible()
    assert entry.locator("img").first.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    page.locator(".scroll").first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.querySelector('.heat td a')")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.locator("h1").inner_text() == "A run's own report"
    assert trouble == []
