"""The grid of a study: lists for any key of a case, and the audits they expand to."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, final

from ..audit import Case
from ..audit.case_file import assign, case_of
from ..audit.case_keys import all_keys
from ..audit.kinds import KINDS
from ..audit.yaml_text import dump
from ..core import InputError, number_text, unknown_name
from .study_file import CASE, StudyFile

MOST_RUNS = 10_000
"""Runs. A larger grid is taken for a mistake."""

POOLED = "seed"
"""The axis whose values are repetitions of a cell, not cells of their own."""

_TITLES = {
    "budget.fraction": "Poisoned share of the training set",
    "budget.count": "Number of poison samples",
    "budget.epsilon": "Largest change of a value (epsilon)",
    "explainer": "Explainer",
    "explainer.kind": "Explainer",
    "attack": "Attack",
    "attack.kind": "Attack",
    "attack.models": "Models of the attack's ensemble",
    "attack.epochs": "Epochs of crafting",
    "data": "Data",
    "data.kind": "Data",
    "model": "Model",
    "model.kind": "Model",
    "goal": "Desired map",
    "goal.name": "Desired map",
    "recipe.start": "Start of the victims",
    "recipe.frozen_stages": "Frozen stages",
    "targets": "Targets",
    "victims": "Victims",
    "seed": "Seed",
    CASE: "Case",
}


@final
@dataclass(frozen=True)
class Axis:
    """One key of the grid.

    Attributes:
        name: the key of a case that it sets, or a name for several keys at once.
        title: for people.
        labels: names of its values.
        changes: the keys that each value sets; none for `case`.
        numbers: its values if all are numbers, else None.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    changes: tuple[dict[str, Any], ...]
    numbers: tuple[float, ...] | None


@final
@dataclass(frozen=True)
class Run:
    """One audit of a study.

    Attributes:
        at: its index on each axis.
        case: its settings.
    """

    at: tuple[int, ...]
    case: Case


@final
@dataclass(frozen=True)
class Cell:
    """Runs that differ only in their seed, judged as one.

    Attributes:
        at: its index on each axis but the seed's.
        title: for people.
        runs: indices in `Study.runs`.
    """

    at: tuple[int, ...]
    title: str
    runs: tuple[int, ...]


@final
@dataclass(frozen=True)
class Study:
    """A grid of audits.

    Attributes:
        title: for people.
        axes: of the cells, without the seed.
        runs: every audit.
        cells: the judged combinations.
        limit: seconds after which a task counts as hung.
        text: the study with everything it refers to written out, as YAML.
    """

    title: str
    axes: tuple[Axis, ...]
    runs: tuple[Run, ...]
    cells: tuple[Cell, ...]
    limit: float
    text: str

    @property
    def dose(self) -> Axis | None:
        """The axis of the dose-response curve: the budget's if there is one, else the first numeric one."""
        numeric = [axis for axis in self.axes if axis.numbers is not None and len(axis.numbers) > 1]
        return next(iter(sorted(numeric, key=lambda axis: not axis.name.startswith("budget."))), None)


def expand(file: StudyFile, origin: str) -> Study:
    """Every audit of a study, and the cells for judging.

    Args:
        file: the study, its cases written out.
        origin: its name in errors.

    Raises:
        InputError: an unknown key (with the nearest right spelling), a value out of range, an exclude without effect, or a
            grid that is too large.
    """
    if CASE in file.settings:
        raise InputError(f"{origin}: a case cannot be set for all runs; name it as `case:`, or several in the grid.")
    axes = [_axis(name, values, origin) for name, values in file.grid.items()]
    runs = [_run(file, axes, at, origin) for at in _combinations(axes, file.exclude, origin)]
    return Study(
        title=file.title,
        axes=tuple(axis for axis in axes if axis.name != POOLED),
        runs=tuple(runs),
        cells=tuple(_cells(axes, runs, file.title)),
        limit=60 * file.limit,
        text=file.as_text(),
    )


def refuse_equal_runs(study: Study, origin: str) -> None:
    """Refuse a grid that names the same audit twice: the correction of claims would count it twice.

    A study made by a command may do so, to compare an audit with itself.

    Args:
        study: every audit.
        origin: its name in errors.

    Raises:
        InputError: two runs are the same audit; names both.
    """
    titles: dict[str, str] = {}
    for run in study.runs:
        case = run.case.model_dump_json(exclude={"title"})
        if case in titles:
            raise InputError(
                f"{origin}: {titles[case]!r} and {run.case.title!r} are the same audit under two names; drop one of them from the grid."
            )
        titles[case] = run.case.title


def _axis(name: str, values: list[Any] | dict[str, Any], origin: str) -> Axis:
    """One axis: a list of values, values by label, or, under a name that is no key, several keys by label."""
    if not values:
        raise InputError(f"{origin}: grid.{name} is empty; give at least one value, or leave the key out.")
    known = _is_key(name)
    if isinstance(values, list):
        if not known:
            raise _unknown("in the grid", name)
        labels, contents = [_label(name, value) for value in values], list(values)
    else:
        labels, contents = [str(label) for label in values], list(values.values())
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise InputError(
            f"{origin}: grid.{name} holds {twice!r} twice; drop one, or give each value a name of its own."
        )
    if name == POOLED and any(value in contents[:index] for index, value in enumerate(contents)):
        raise InputError(
            f"{origin}: grid.{name} holds a seed twice under two names; a run repeats nothing, so drop one."
        )
    changes: list[dict[str, Any]] = []
    for content in contents:
        if known:
            changes.append({name: content})
        elif not isinstance(content, dict):
            raise _unknown("in the grid", name)
        else:
            for key in content:
                if not _is_key(key):
                    raise _unknown(f"under grid.{name}", key)
            changes.append(dict(content))
    numeric = known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in contents)
    return Axis(
        name=name,
        title=_TITLES.get(name, name),
        labels=tuple(labels),
        changes=tuple(changes),
        numbers=tuple(float(value) for value in contents) if numeric else None,
    )


def _combinations(
    axes: Sequence[Axis], excludes: Sequence[Mapping[str, Any]], origin: str
) -> Iterator[tuple[int, ...]]:
    total = math.prod(len(axis.labels) for axis in axes)
    if total > MOST_RUNS:
        raise InputError(f"{origin}: the grid expands to {total} runs, more than {MOST_RUNS}; shorten its lists.")
    rules = [_rule(axes, exclude, origin) for exclude in excludes]
    used, run_count = [False] * len(rules), 0
    for at in itertools.product(*(range(len(axis.labels)) for axis in axes)):
        hits = [all(at[axis] in places for axis, places in rule.items()) for rule in rules]
        used = [before or hit for before, hit in zip(used, hits, strict=True)]
        if not any(hits):
            run_count += 1
            yield at
    if not all(used):
        raise InputError(f"{origin}: exclude number {used.index(False) + 1} excludes nothing; correct its values.")
    if not run_count:
        raise InputError(f"{origin}: everything is excluded; drop an exclude.")


def _rule(axes: Sequence[Axis], exclude: Mapping[str, Any], origin: str) -> dict[int, set[int]]:
    """Indices on the axes that an exclude names, by value or by label."""
    rule = {}
    for name, wanted in exclude.items():
        axis_index = next((number for number, axis in enumerate(axes) if axis.name == name), None)
        if axis_index is None:
            raise unknown_name("key in exclude", name, [axis.name for axis in axes])
        axis = axes[axis_index]
        options_of = wanted if isinstance(wanted, list) else [wanted]
        excluded = {
            number
            for number, (label, change) in enumerate(zip(axis.labels, axis.changes, strict=True))
            for option in options_of
            if option == label or change.get(name, _NOTHING) == option
        }
        if not excluded:
            raise InputError(
                f"{origin}: exclude names {name} {wanted!r}, which the grid has not; choose from {', '.join(axis.labels)}."
            )
        rule[axis_index] = excluded
    return rule


_NOTHING = object()


def _run(file: StudyFile, axes: Sequence[Axis], at: tuple[int, ...], origin: str) -> Run:
    """The case of one combination: the base, then the keys set for all, then the axes in their order."""
    labels = [axis.labels[index] for axis, index in zip(axes, at, strict=True)]
    where = f"{origin}, run {' · '.join(labels)}" if labels else origin
    changes = [axis.changes[index] for axis, index in zip(axes, at, strict=True)]
    base = next((change[CASE] for change in changes if CASE in change), file.case)
    if not isinstance(base, dict):
        raise InputError(f"{where}: the case {base!r} is not written out; start the study anew.")
    content = copy.deepcopy(base)
    for change in [file.settings, *changes]:
        for key, value in change.items():
            if key != CASE:
                _assign(content, key, value, where)
    content["title"] = " · ".join([file.title, *labels])
    return Run(at, case_of(content, where))


def _assign(content: dict[str, Any], key: str, value: Any, where: str) -> None:
    try:
        assign(content, key, copy.deepcopy(value))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _cells(axes: Sequence[Axis], runs: Sequence[Run], title: str) -> Iterator[Cell]:
    own = [number for number, axis in enumerate(axes) if axis.name != POOLED]
    pooled: dict[tuple[int, ...], list[int]] = {}
    for number, run in enumerate(runs):
        pooled.setdefault(tuple(run.at[axis] for axis in own), []).append(number)
    for at, members in pooled.items():
        labels = [axes[axis].labels[index] for axis, index in zip(own, at, strict=True)]
        yield Cell(at, " · ".join(labels) or title, tuple(members))


def _unknown(where: str, name: str) -> InputError:
    near = get_close_matches(name, _keys(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else "docs/case.md lists the keys of a case."
    return InputError(f"unknown key {name!r} {where}; {hint}")


def _is_key(name: str) -> bool:
    first, _, rest = name.partition(".")
    if first == CASE:
        return not rest
    if first not in Case.model_fields or first == "title":
        return False
    return not rest or name in _keys()


def _keys() -> list[str]:
    """Every dotted key that a grid may name."""
    return [*(key for key in all_keys() if key != "title"), CASE]


def _label(name: str, value: Any) -> str:
    """The name of a value for people."""
    first, _, rest = name.partition(".")
    if isinstance(value, dict) and first in KINDS and not rest:
        kind = str(value.get("kind", "?"))
        others = ", ".join(f"{key} {_label(key, item)}" for key, item in value.items() if key != "kind")
        return f"{_kind_title(first, kind)} ({others})" if others else _kind_title(first, kind)
    if first in KINDS and rest == "kind":
        return _kind_title(first, str(value))
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{number_text(value, percent=True)}%" if name == "budget.fraction" else number_text(value)
    return dump(value, flow=True)


def _kind_title(union: str, kind: str) -> str:
    member = KINDS[union]().get(kind)
    return str(getattr(member, "title", kind))
