"""What a study has to do: its runs taken apart into tasks, so that what several runs need is done once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from ..attacks import Attack
from ..audit import Audit, Case
from ..audit.case_file import rename_files
from ..audit.goal_context import rehearse
from ..audit.identity import settings_of
from ..audit.progress import Silent
from ..audit.run import run_folder, run_identity
from ..audit.workshop import Workshop, model_identity
from ..core import RESULTS_VERSION, EncircleError, InputError, digest
from ..data import DataSet
from ..jobs.task import Task
from .grid import Run, Study

KINDS = {
    "files": "files that cases name",
    "data": "data sets, decoded and checked",
    "weights": "starting weights",
    "features": "training sets as frozen stages see them",
    "path": "code paths, measured",
    "model": "clean victims and attacker's models",
    "ensemble": "ensembles",
    "targets": "draws of targets",
    "unexplained": "poisons and victims that serve every explainer",
    "clean": "targets and their clean scores",
    "control": "control arms",
    "attack": "attack arms",
    "ceiling": "ceilings",
    "run": "runs put together and judged",
}
"""The kinds of task in the order in which they come first, in words."""

SHARED = ("files", "data", "weights", "features", "path", "model", "ensemble", "targets", "unexplained")
"""Kinds whose products serve many runs."""


@final
@dataclass(frozen=True)
class Planned:
    """A run and its task.

    Attributes:
        run: the run.
        task: id of the task that ends it.
        folder: its run folder, by name below `runs/`.
        poison: samples that are poisoned for each of its targets; 0 where that was not worked out.
    """

    run: Run
    task: str
    folder: str
    poison: int = 0


@final
@dataclass(frozen=True)
class Plan:
    """Everything a study does.

    Attributes:
        runs: in the order of `Study.runs`.
        tasks: each after those it needs.
        wanted: how many tasks of each kind the runs need if each is counted for itself.
        device: where models are trained.
        notes: what was left out or changed while data were read.
    """

    runs: tuple[Planned, ...]
    tasks: tuple[Task, ...]
    wanted: dict[str, int]
    device: str
    notes: tuple[str, ...] = ()


def plan(study: Study, root: Path, *, device: str = "cpu", gpus: float = 0.0) -> Plan:
    """Take the runs of a study apart.

    Args:
        study: the expanded study.
        root: the folder that files named by its cases are relative to.
        device: where models are trained.
        gpus: share of an accelerator that training and crafting need.

    Raises:
        InputError: a case cannot be audited; names the run.
    """
    planner = _Planner(root, device, gpus, study.limit)
    runs = []
    for run in study.runs:
        try:
            runs.append(planner.add(run))
        except EncircleError as error:
            raise InputError(f"{run.case.title}: {error}") from None
    order = list(KINDS)
    shared = sorted((task for task in planner.tasks.values() if task.kind in SHARED), key=lambda t: order.index(t.kind))
    first = [task for task in shared if task.kind != "unexplained"]
    rest = [task for task in planner.tasks.values() if task.kind not in SHARED or task.kind == "unexplained"]
    return Plan(tuple(runs), (*first, *rest), planner.wanted, device, tuple(planner.notes))


def located(case: Case, root: Path) -> Case:
    """The case with its files' names made paths below `root`."""
    content = case.model_dump(mode="json")
    rename_files(content, lambda name: str(root / name))
    return Case.model_validate(content)


@final
class _Planner:
    """Collects tasks by id: what two runs have in common comes out with the same id."""

    def __init__(self, root: Path, device: str, gpus: float, limit: float) -> None:
        self.root, self.device, self.gpus, self.limit = root, device, gpus, limit
        self.tasks: dict[str, Task] = {}
        self.wanted: dict[str, int] = {}
        self.notes: dict[str, None] = {}
        self._tried: set[str] = set()
        self._data: Callable[[str, int], tuple[DataSet, str]] = lru_cache(maxsize=4)(self._load)

    def _load(self, settings: str, seed: int) -> tuple[DataSet, str]:
        data = self._loading.data.load(seed)
        return data, data.check()

    def add(self, run: Run) -> Planned:
        """The tasks of one run; returns its last."""
        self._loading = case = located(run.case, self.root)
        data, fingerprint = self._data(repr(case.data), case.seed)
        self.notes |= dict.fromkeys(data.notes)
        described = run.case.model_dump(mode="json")
        rehearse(
            Audit.from_case(case, data=data, described=described), self._tried
        )  # this machine may have no accelerator
        audit = Audit.from_case(case, self.device, data=data, described=described)
        return _RunTasks(self, run, audit, fingerprint).all()

    def task(self, kind: str, identity: str, label: str, spec: dict[str, Any], **more: Any) -> str:
        """Add a task unless it is there; returns its id."""
        self.wanted[kind] = self.wanted.get(kind, 0) + 1
        if identity not in self.tasks:
            folder = more.pop("folder", f"{'shared' if kind in SHARED else 'pieces'}/{identity[:24]}")
            self.tasks[identity] = Task(
                identity, kind, label, spec, folder, limit=self.limit, is_result=kind == "run", **more
            )
        return identity


@final
class _RunTasks:
    """The tasks of one run."""

    def __init__(self, planner: _Planner, run: Run, audit: Audit, fingerprint: str) -> None:
        self.planner, self.run, self.audit, self.fingerprint = planner, run, audit, fingerprint
        self.shop = Workshop(audit, fingerprint, Silent())  # for the names of models; trains none here
        self.spec: dict[str, Any] = {
            "case": run.case.model_dump(mode="json"),
            "device": planner.device,
            "fingerprint": fingerprint,
        }
        self.compute: dict[str, Any] = {"cpus": audit.threads, "gpus": planner.gpus}
        supposed = run.case.supposed()
        self.attackers = self
        if supposed is not None and audit.attacker is not None:
            self.attackers = _RunTasks(planner, Run(run.at, supposed), audit.attacker, fingerprint)

    def all(self) -> Planned:
        audit = self.audit
        data = self._data()
        start = self._start(data)
        path = self._path(start)
        victims = [self._model(start, "victim", seed) for seed in range(2 * audit.victims)]
        attacker_start = start if self.attackers is self else self.attackers._start(data)
        references = [
            *attacker_start,
            *(self.attackers._model(attacker_start, "reference", seed) for seed in range(audit.references)),
        ]
        targets = self._targets([*start, *victims])
        pieces = []
        for target in self._places():
            pieces.append(self._clean(target, list(dict.fromkeys([*start, *victims, *references, targets]))))
            needs = list(dict.fromkeys([*start, path, *victims[: audit.victims], *references, targets]))
            pieces += [self._arm(target, arm, needs) for arm in audit.arms[1:]]
            if audit.ceiling is not None:
                pieces.append(self._ceiling(target, needs))
        identity = run_identity(audit, self.fingerprint)
        folder = run_folder(audit, "runs", self.fingerprint).as_posix()
        ends = (*data, path, targets, *pieces)
        task = self.planner.task(
            "run", identity, audit.title, self.spec, needs=ends, cpus=audit.threads, here=True, folder=folder
        )
        return Planned(self.run, task, folder.removeprefix("runs/"), audit.budget.size(len(audit.data.train)))

    def _data(self) -> list[str]:
        """The decoded data and the files of the case: read on the driver's machine, where they lie."""
        files, needs = dict[str, str](), []
        rename_files(dict(self.spec["case"]), lambda name: files.setdefault(name, name))
        if files:
            identity = digest(["files", sorted(files), sorted(self.audit.digests.items())])
            paths = {name: str(self.planner.root / name) for name in files}
            needs.append(self.planner.task("files", identity, "files", {"paths": paths}, here=True))
        identity = digest(["data", RESULTS_VERSION, self.fingerprint, self.audit.digests["data"]])
        spec = {**self.spec, "root": str(self.planner.root)}
        needs.append(self.planner.task("data", identity, self.audit.data.name, spec, here=True))
        return needs

    def _weights(self, needs: Sequence[str]) -> list[str]:
        keys = self.shop.start_keys
        if not keys:
            return []
        label = f"{self.audit.data.name}: starting weights"
        return [self.planner.task("weights", digest(keys), label, self.spec, needs=tuple(needs), **self.compute)]

    def _start(self, data: Sequence[str]) -> list[str]:
        """What every model of the run begins with."""
        start = [*data, *self._weights(data)]
        if self.audit.recipe.shared_stages:
            label = f"{self.audit.data.name}: what frozen stages see"
            key = self.shop.trunk_key
            start.append(self.planner.task("features", key, label, self.spec, needs=tuple(start), **self.compute))
        return start

    def _path(self, needs: Sequence[str]) -> str:
        label = f"{self.audit.data.name}: code path"
        identity = self.shop.path_key
        return self.planner.task("path", identity, label, self.spec, needs=tuple(needs), **self.compute)

    def _model(self, needs: Sequence[str], role: str, seed: int) -> str:
        spec = {**self.spec, "role": role, "seed": seed}
        label = f"{self.audit.data.name}: {'clean victim' if role == 'victim' else 'attacker’s model'} {seed + 1}"
        key = self.shop.model_key(role, seed)
        return self.planner.task("model", key, label, spec, needs=tuple(needs), **self.compute)

    def _targets(self, needs: Sequence[str]) -> str:
        identity = digest(["targets", list(needs), self.audit.seed])
        label = f"{self.audit.data.name}: targets"
        return self.planner.task("targets", identity, label, self.spec, needs=tuple(needs), **self.compute)

    def _places(self) -> Iterator[dict[str, int]]:
        wanted = self.audit.targets
        if isinstance(wanted, int):
            yield from ({"place": index} for index in range(wanted))
        else:
            yield from ({"row": row} for row in sorted(set(wanted)))

    @property
    def _trained(self) -> list[Any]:
        """What victims and the attacker's models of this run depend on."""
        audit = self.audit
        counts = [audit.victims, audit.references]
        own = [*model_identity(audit), self.fingerprint, repr(audit.recipe), audit.seed, *counts]
        return own if audit.attacker is None else [*own, *self.attackers._trained]

    @property
    def _explained(self) -> list[Any]:
        """What explanations and desired maps of this run depend on."""
        audit = self.audit
        return [*self._trained, settings_of(audit.explainer), settings_of(audit.goal), sorted(audit.digests.items())]

    def _clean(self, target: dict[str, int], needs: Sequence[str]) -> str:
        identity = digest(["clean", self._explained, target])
        label = f"{self.audit.title}: {_in_words(target)}"
        spec = {**self.spec, "target": target}
        return self.planner.task("clean", identity, label, spec, needs=tuple(needs), **self.compute)

    def _arm(self, target: dict[str, int], arm: Attack, needs: Sequence[str]) -> str:
        audit, own = self.audit, list(needs)
        how = [settings_of(audit.budget), settings_of(arm), target, self.shop.path_key]
        spec = {**self.spec, "target": target, "arm": arm.kind}
        label = f"{audit.title}: {_in_words(target)}, {arm.title}"
        if not arm.uses_explainer:
            identity = digest(["unexplained", self._trained, how])
            own.append(self.planner.task("unexplained", identity, label, spec, needs=tuple(needs), **self.compute))
        if arm.ensemble is not None:
            own.append(self.attackers._ensemble(*arm.ensemble))
        kind = "attack" if arm.needs_gradient else "control"
        identity = digest(["arm", self._explained, how])
        return self.planner.task(kind, identity, label, spec, needs=tuple(own), **self.compute)

    def _ceiling(self, target: dict[str, int], needs: Sequence[str]) -> str:
        audit = self.audit
        identity = digest(["ceiling", self._explained, settings_of(audit.ceiling), target])
        label = f"{audit.title}: {_in_words(target)}, ceiling"
        spec = {**self.spec, "target": target}
        return self.planner.task("ceiling", identity, label, spec, needs=tuple(needs), **self.compute)

    def _ensemble(self, members: int, staggered: bool) -> str:
        data = self._data()
        spec = {**self.spec, "members": members, "staggered": staggered}
        label = f"{self.audit.data.name}: ensemble of {members}"
        key = self.shop.ensemble_key(members, staggered)
        needs = tuple(self._start(data))
        return self.planner.task("ensemble", key, label, spec, needs=needs, **self.compute)


def _in_words(target: dict[str, int]) -> str:
    return f"target row {target['row']}" if "row" in target else f"target {target['place'] + 1}"
