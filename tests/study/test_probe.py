"""Forecasts: what is timed on a little of the work is what all of it takes, by a clock that counts passes through layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from encircle.attacks import Attack
from encircle.study.grid import expand
from encircle.study.plan import Plan, plan
from encircle.study.probe import forecast
from encircle.study.study_file import read_study_file

from ..audit.tiny_cases import TINY
from .serial import do


class Clock:
    """As many seconds as linear layers were passed."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def tick(self, module: nn.Module, *_: object) -> None:
        self.now += isinstance(module, nn.Linear)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr("encircle.study.costs.time.monotonic", clock)
    hook = torch.nn.modules.module.register_module_forward_hook(clock.tick)
    yield clock
    hook.remove()


def planned(attack: dict[str, Any], folder: Path) -> Plan:
    case = {**TINY, "attack": attack, "code_path": {"members": "loop"}, "targets": 1}
    text = yaml.safe_dump({"title": "Tiny", "case": case, "grid": {"victims": [2]}}, sort_keys=False)
    return plan(expand(read_study_file(text, "study.yaml"), "study.yaml"), folder)


@pytest.mark.parametrize(
    "attack",
    [
        {"kind": "influence", "models": 2, "epochs": 3},
        {"kind": "back-gradient", "models": 1, "epochs": 3},
        {"kind": "back-gradient", "models": 2, "epochs": 2},
    ],
    ids=lambda attack: f"{attack['kind']}-{attack['models']}",
)
def test_crafting_takes_what_its_forecast_says(
    attack: dict[str, Any], tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = planned(attack, tmp_path)
    told = forecast(todo, tmp_path, 1, lambda _: None).seconds
    tasks = [task.kind for task in todo.tasks]
    victims = told["model"] / tasks.count("model") * 2 * tasks.count("attack")

    spent, plain = list[float](), Attack.__call__

    def timed(self: Attack, *given: Any) -> Any:
        begun = clock.now
        try:
            return plain(self, *given)
        finally:
            if self.kind == attack["kind"]:
                spent.append(clock.now - begun)

    monkeypatch.setattr(Attack, "__call__", timed)
    do(todo, tmp_path)
    assert len(spent) == tasks.count("attack")
    assert told["attack"] - victims == pytest.approx(sum(spent), rel=0.15)


def test_no_more_crafting_is_timed_than_is_enough(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = planned({"kind": "imf", "models": 1, "epochs": 2}, tmp_path)
    told, taken = list[float](), list[float]()
    for enough in (0.0, math.inf):
        monkeypatch.setattr("encircle.study.costs.ENOUGH", enough)
        begun = clock.now
        told.append(forecast(todo, tmp_path, 1, lambda _: None).seconds["attack"])
        taken.append(clock.now - begun)
    assert taken[0] < taken[1]
    assert told[0] == pytest.approx(told[1], rel=0.15)
