"""The tasks of one run: equal work of two runs has the same id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, final

from ..audit import Audit, Case
from ..audit.arm import Arm
from ..audit.identity import model_identity, run_folder, run_identity, settings_of
from ..audit.models import ModelStore
from ..audit.progress import Silent, WorkLog
from ..core import RESULTS_VERSION, digest

Target = dict[str, int]
"""A target before the draw: its number in the draw, or its row."""


class AddTask(Protocol):
    """Adds a task to a plan, unless it is planned already."""

    def __call__(self, kind: str, identity: str, label: str, spec: dict[str, Any], **more: Any) -> str:
        """The task's id.

        Args:
            kind: of task (`TASK_KINDS`).
            identity: the id of a new task.
            label: for people.
            spec: the worker's input.
            more: further fields of `Task`.
        """


@final
class ModelTasks:
    """The tasks for the models of one store.

    Args:
        add: adds a task.
        case: the case of the models' audit.
        audit: that audit.
        fingerprint: of its data.
        device: where models are trained.
        gpus: share of an accelerator that a task needs.
        path_of: returns the path of a file of the case.
        models: for the names of models; trains none here.
        is_defended: whether the store is that of the defence.
    """

    def __init__(
        self,
        add: AddTask,
        case: Case,
        audit: Audit,
        fingerprint: str,
        *,
        device: str,
        gpus: float,
        path_of: Callable[[str], str],
        models: ModelStore,
        is_defended: bool = False,
    ) -> None:
        self._add, self._case, self._audit, self._path_of = add, case, audit, path_of
        self.models, self.fingerprint = models, fingerprint
        self.spec: dict[str, Any] = {"case": case.model_dump(mode="json"), "device": device, "fingerprint": fingerprint}
        if is_defended:
            self.spec["defended"] = True
        self.compute: dict[str, Any] = {"cpus": audit.settings.threads, "gpus": gpus}

    def add(self, kind: str, identity: str, label: str, needs: Sequence[str], **spec: Any) -> str:
        """Add a computing task; returns its id.

        Args:
            kind: of task.
            identity: its id.
            label: for people.
            needs: ids of the tasks whose products it reads.
            spec: the worker's input besides the case.
        """
        return self._add(kind, identity, label, {**self.spec, **spec}, needs=tuple(needs), **self.compute)

    @property
    def identity(self) -> list[Any]:
        """The needs of victims and of the attacker's models."""
        settings = self._audit.settings
        counts = [settings.victims, settings.references]
        return [*model_identity(self._audit), self.fingerprint, repr(self.models.recipe), settings.seed, *counts]

    def data(self) -> list[str]:
        """The decoded data and the files of the case, read on the driver's machine."""
        needs, names = [], dict.fromkeys(self._case.files)
        if names:
            identity = digest(["files", sorted(names), sorted(self._audit.digests.items())])
            paths = {name: self._path_of(name) for name in names}
            needs.append(self._add("files", identity, "files", {"paths": paths}, here=True))
        identity = digest(["data", RESULTS_VERSION, self.fingerprint, self._audit.digests["data"]])
        spec = {**self.spec, "root": self._path_of("")}
        needs.append(self._add("data", identity, self._audit.data.name, spec, here=True))
        return needs

    def start(self, data: Sequence[str]) -> list[str]:
        """The needs of every model."""
        needs, name = list(data), self._audit.data.name
        if keys := self.models.starts.keys:
            needs.append(self.add("weights", digest(keys), f"{name}: starting weights", data))
        if self.models.recipe.shared_stages:
            needs.append(self.add("features", self.models.views.key, f"{name}: after frozen stages", needs))
        return needs

    def path(self, needs: Sequence[str]) -> str:
        """The code path."""
        return self.add("path", self.models.path_key, f"{self._audit.data.name}: code path", needs)

    def model(self, needs: Sequence[str], role: str, number: int) -> str:
        """A clean model.

        Args:
            needs: ids of the tasks that it needs.
            role: `"victim"` or `"reference"`.
            number: its number.
        """
        title = "clean victim" if role == "victim" else "attacker’s model"
        label = f"{self._audit.data.name}: {title} {number + 1}"
        return self.add("model", self.models.model_key(role, number), label, needs, role=role, seed=number)

    def ensemble(self, members: int, staggered: bool) -> str:
        """The attacker's K models in training."""
        label = f"{self._audit.data.name}: ensemble of {members}"
        key = self.models.ensemble_key(members, staggered)
        return self.add("ensemble", key, label, self.start(self.data()), members=members, staggered=staggered)


@final
class RunTasks:
    """The tasks of one run.

    Args:
        add: adds a task.
        case: the run's case.
        audit: the run's audit.
        fingerprint: of its data.
        device: where models are trained.
        gpus: share of an accelerator that a task needs.
        path_of: where a file of the case lies.
    """

    def __init__(
        self,
        add: AddTask,
        case: Case,
        audit: Audit,
        fingerprint: str,
        *,
        device: str,
        gpus: float,
        path_of: Callable[[str], str],
    ) -> None:
        self._add, self._audit, self._settings, self._fingerprint = add, audit, audit.settings, fingerprint
        models = ModelStore(audit, fingerprint, WorkLog(Silent()))

        def tasks_of(case: Case, audit: Audit, models: ModelStore, *, is_defended: bool = False) -> ModelTasks:
            how: dict[str, Any] = {"device": device, "gpus": gpus, "path_of": path_of}
            return ModelTasks(add, case, audit, fingerprint, **how, models=models, is_defended=is_defended)

        self._victims = self._attackers = self._defended = tasks_of(case, audit, models)
        if case.supposed is not None and audit.attacker is not None:
            store = ModelStore(audit.attacker, fingerprint, WorkLog(Silent()))
            self._attackers = tasks_of(case.supposed, audit.attacker, store)
        if (store := models.under(audit.settings.defence)) is not models:
            self._defended = tasks_of(case, audit, store, is_defended=True)

    def all(self) -> tuple[str, str]:
        """Add all tasks; returns the id of the last one, and the run folder's path in the study's."""
        victims, settings = self._victims, self._settings
        data = victims.data()
        start = victims.start(data)
        path = victims.path(start)
        models = [victims.model(start, "victim", number) for number in range(2 * settings.victims)]
        attackers_start = start if self._attackers is victims else self._attackers.start(data)
        references = [
            *attackers_start,
            *(self._attackers.model(attackers_start, "reference", number) for number in range(settings.references)),
        ]
        targets = self._targets([*start, *models])
        defended = self._defended_models(data)
        steps: list[str] = []
        for target in self._each_target():
            steps.append(self._clean(target, list(dict.fromkeys([*start, *models, *references, targets]))))
            needs = list(dict.fromkeys([*start, path, *models[: settings.victims], *references, targets]))
            by_attack: dict[str, str] = {}
            for arm in self._audit.arms[1:]:
                if arm.is_defended:
                    poison = [by_attack[arm.attack.kind]] if arm.attack.kind in by_attack else []
                    steps.append(
                        self._defended_arm(target, arm, list(dict.fromkeys([*needs, *models, *defended, *poison])))
                    )
                else:
                    by_attack[arm.attack.kind] = self._arm(target, arm, needs)
                    steps.append(by_attack[arm.attack.kind])
            if settings.ceiling is not None:
                steps.append(self._ceiling(target, needs))
        identity = run_identity(self._audit, self._fingerprint)
        folder = run_folder(self._audit, "runs", self._fingerprint).as_posix()
        needs_of_run = (*data, path, targets, *steps)
        how = {"cpus": settings.threads, "here": True, "folder": folder}
        task = self._add("run", identity, settings.title, victims.spec, needs=needs_of_run, **how)
        return task, folder

    def _defended_models(self, data: Sequence[str]) -> list[str]:
        """Clean victims under the defence, if it changes how they learn."""
        if self._defended is self._victims:
            return []
        start = self._defended.start(data)
        return [
            *start,
            *(self._defended.model(start, "victim", number) for number in range(2 * self._settings.victims)),
        ]

    def _each_target(self) -> Iterator[Target]:
        wanted = self._settings.targets
        if isinstance(wanted, int):
            yield from ({"place": index} for index in range(wanted))
        else:
            yield from ({"row": row} for row in sorted(set(wanted)))

    @property
    def _trained(self) -> list[Any]:
        """The needs of this run's victims and attacker's models."""
        own = self._victims.identity
        return own if self._audit.attacker is None else [*own, *self._attackers.identity]

    @property
    def _explained(self) -> list[Any]:
        """The needs of this run's explanations and desired maps."""
        settings = self._settings
        digests = sorted(self._audit.digests.items())
        return [*self._trained, settings_of(settings.explainer), settings_of(settings.goal), digests]

    def _targets(self, needs: Sequence[str]) -> str:
        identity = digest(["targets", list(needs), self._settings.seed])
        return self._victims.add("targets", identity, f"{self._audit.data.name}: targets", needs)

    def _clean(self, target: Target, needs: Sequence[str]) -> str:
        identity = digest(["clean", self._explained, target])
        return self._victims.add("clean", identity, self._label(target), needs, target=target)

    def _arm(self, target: Target, arm: Arm, needs: Sequence[str]) -> str:
        attack, own = arm.attack, list(needs)
        how = [settings_of(self._settings.budget), settings_of(attack), target, self._victims.models.path_key]
        label, spec = f"{self._label(target)}, {attack.title}", {"target": target, "arm": arm.key}
        if not attack.uses_explainer:
            identity = digest(["unexplained", self._trained, how])
            own.append(self._victims.add("unexplained", identity, label, needs, **spec))
        if attack.ensemble is not None:
            own.append(self._attackers.ensemble(*attack.ensemble))
        kind = "attack" if attack.needs_gradient else "control"
        return self._victims.add(kind, digest(["arm", self._explained, how]), label, own, **spec)

    def _defended_arm(self, target: Target, arm: Arm, needs: Sequence[str]) -> str:
        attack, defence = settings_of(arm.attack), settings_of(arm.defence)
        how = [settings_of(self._settings.budget), attack, target, self._victims.models.path_key, defence]
        identity, label = digest(["arm", self._explained, how]), f"{self._label(target)}, {arm.title}"
        return self._victims.add("defended", identity, label, needs, target=target, arm=arm.key)

    def _ceiling(self, target: Target, needs: Sequence[str]) -> str:
        identity = digest(["ceiling", self._explained, settings_of(self._settings.ceiling), target])
        return self._victims.add("ceiling", identity, f"{self._label(target)}, ceiling", needs, target=target)

    def _label(self, target: Target) -> str:
        words = f"target row {target['row']}" if "row" in target else f"target {target['place'] + 1}"
        return f"{self._settings.title}: {words}"
