"""A real study whose driver and workers are killed at random moments ends with the files of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from ..audit.tiny_cases import TINY
from ..programs import Program, children_of, program, wait_for_end_of

HERE = Path(__file__).resolve().parents[2]
STUDY = {
    "title": "Killed",
    "case": TINY,
    "set": {"targets": 1},
    "grid": {
        "attack": {"IMF": {"kind": "imf", "models": 2, "epochs": 3}, "WM": {"kind": "watermark-projected"}},
        "seed": [1, 2],
    },
}


def command(folder: Path, study: Path, name: str) -> list[str]:
    return [sys.executable, "-m", "encircle", "study", "run", str(study), "--folder", str(folder / name), "--cpus", "2"]


def contents(root: Path) -> dict[str, bytes]:
    """Everything of the runs that must not depend on how often the study was killed."""
    names = ("scores.parquet", "poisons.parquet", "history.parquet", "maps.safetensors", "verdict.json", "case.yaml")
    files = [path for name in names for path in root.glob(f"runs/*/{name}")]
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in [*files, *root.glob("runs/*/poison/*/*/*")]
    }


def said(driver: Program, event: str) -> int:
    """How often a driver told of an event."""
    return sum(json.loads(line)["event"] == event for line in driver.lines())


@pytest.mark.slow
def test_killed_drivers_and_workers_change_nothing(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    environment = {**os.environ, "PYTHONPATH": str(HERE / "src")}
    plain = subprocess.run(command(tmp_path, study, "plain"), env=environment, capture_output=True, check=False)
    assert plain.returncode in {0, 1}, plain.stderr.decode()
    undisturbed = contents(tmp_path / "plain")
    assert len({name.split("/")[1] for name in undisturbed}) == 4

    choose, kills = random.Random(3), 4
    for kill in range(kills):
        with program(*command(tmp_path, study, "killed")[1:], "--json") as driver:
            few = choose.randint(1, 9)
            driver.reach(lambda driver=driver, few=few: said(driver, "done") >= few, f"{few} tasks are done")
            if kill % 2:  # a worker first: the driver goes on with another one
                os.kill(choose.choice(children_of(driver.pid)), signal.SIGKILL)
                more = said(driver, "done") + 2
                driver.reach(lambda driver=driver, more=more: said(driver, "done") >= more, "it went on")
            children = children_of(driver.pid)
            driver.interrupt(signal.SIGKILL)
            assert driver.end() == -signal.SIGKILL
            wait_for_end_of(children)
    last = subprocess.run(command(tmp_path, study, "killed"), env=environment, capture_output=True, check=False)
    assert last.returncode == plain.returncode, last.stderr.decode()
    assert contents(tmp_path / "killed") == undisturbed
    for name in ("cells", "scores"):
        mine, theirs = (pl.read_parquet(tmp_path / folder / f"{name}.parquet") for folder in ("killed", "plain"))
        assert mine.equals(theirs)
    judged = [json.loads((tmp_path / folder / "study.json").read_text())["cells"] for folder in ("killed", "plain")]
    assert judged[0] == judged[1]
    assert not list((tmp_path / "killed").rglob(".partial-*"))
    assert not list((tmp_path / "killed" / "pieces").iterdir())
    assert not list((tmp_path / "killed" / "shared").iterdir())


@pytest.mark.slow
def test_a_study_on_ray_equals_one_on_worker_processes(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    few = {**STUDY, "grid": {"budget.fraction": [0.03, 0.05]}, "set": {"targets": 1}}
    study.write_text(yaml.safe_dump(few, sort_keys=False))
    environment = {**os.environ, "PYTHONPATH": str(HERE / "src")}
    for name, more in (("local", []), ("ray", ["--executor", "ray"])):
        done = subprocess.run(
            [*command(tmp_path, study, name), "--json", *more],  # events on stdout: stderr is for what goes wrong
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in {0, 1}, done.stderr
        assert done.stderr == ""
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
