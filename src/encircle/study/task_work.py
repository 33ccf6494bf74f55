"""The work for each kind of task. A worker knows only the task's spec and its input products."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

from ..audit import Audit, Case
from ..audit.arm import Arm
from ..audit.code_paths import CODE_PATH
from ..audit.draw_targets import TargetDraw
from ..audit.finish import finish_run
from ..audit.models import ModelStore
from ..audit.progress import WorkLog
from ..audit.run import claim
from ..audit.steps import AuditSteps
from ..core import InputError
from ..data import DataSet
from ..jobs.task import Tell
from ..report import render
from ..storage import read_json, write_json
from ..training import save_tensors, save_weights
from .saved_data import load_data, save_data


@final
class TaskWork:
    """One task at work in its folder.

    Args:
        spec: of the task.
        inputs: its input products, by the id of their task.
        out: the folder of its own product.
        tell: receives progress.
    """

    def __init__(self, spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, tell: Tell) -> None:
        self._spec, self._inputs, self._out = spec, inputs, out
        self._log = WorkLog(_TaskReporter(tell))

    # -- inputs ---------------------------------------------------------------------------------------------------------

    @cached_property
    def case(self) -> Case:
        """The case of the task's run."""
        return Case.model_validate(self._spec["case"])

    def _product_with(self, name: str) -> Path:
        """The input product that holds a file."""
        return next(folder for folder in self._inputs.values() if (folder / name).exists())

    @cached_property
    def _data(self) -> DataSet:
        return load_data(self._product_with("data.json"))

    @cached_property
    def _audit(self) -> Audit:
        case = self.case
        if case.files:
            folder = self._product_with("files.json")
            names = read_json(folder / "files.json")
            case = case.with_files(lambda name: folder / names[name])
        return Audit.from_case(case, self._spec["device"], data=self._data, described=dict(self._spec["case"]))

    def _store(self, *, cache: Path | None = None, home: Path | None = None) -> ModelStore:
        fingerprint, products = self._spec["fingerprint"], list(self._inputs.values())
        return ModelStore(self._audit, fingerprint, self._log, cache=cache, products=products, home=home)

    @cached_property
    def _models(self) -> ModelStore:
        """Reads the given models, and trains only missing ones."""
        models = self._store()
        return models.under(self._audit.settings.defence) if self._spec.get("defended") else models

    @cached_property
    def _drawn(self) -> list[int]:
        return list(read_json(self._product_with("targets.json") / "targets.json")["drawn"])

    @cached_property
    def _targets(self) -> TargetDraw:
        return TargetDraw(self._audit, self._models, self._drawn)

    @cached_property
    def _steps(self) -> AuditSteps:
        return AuditSteps(self._audit, self._out, self._models, self._targets)

    @cached_property
    def _row(self) -> int:
        target = self._spec["target"]
        if "place" in target:
            return self._targets.drawn_row(target["place"])
        return self._targets.named_row(target["row"])

    @property
    def _arm(self) -> Arm:
        return next(arm for arm in self._audit.arms if arm.key == self._spec["arm"])

    # -- products -------------------------------------------------------------------------------------------------------

    def files(self) -> None:
        """Copies of the files that a case names, with their new names."""
        names = {}
        for number, (name, path) in enumerate(sorted(self._spec["paths"].items())):
            names[name] = f"{number}{Path(path).suffix}"
            shutil.copyfile(path, self._out / names[name])
        write_json(self._out / "files.json", names)

    def data(self) -> None:
        """The data set, decoded and checked.

        Raises:
            InputError: the data changed since the study was planned.
        """
        root = Path(self._spec["root"])
        case = self.case.with_files(lambda name: root / name)
        data = case.data.load(case.seed)
        if data.check() != self._spec["fingerprint"]:
            raise InputError(f"{data.name} has changed since the study was planned; start the study anew.")
        save_data(data, self._out)

    def weights(self) -> None:
        """Starting weights."""
        source = self._models.source
        for key, weights in zip(self._models.starts.keys, (source.checkpoint or {}, *source.others), strict=True):
            save_tensors(self._out / f"{key}.safetensors", weights)

    def features(self) -> None:
        """The frozen features of the training set."""
        views = self._models.views
        views.save(self._out / f"{views.key}.safetensors")

    def path(self) -> None:
        """The code path of the runs of this network."""
        _ = self._store(home=self._out).path

    def model(self) -> None:
        """A clean victim, or one of the attacker's models."""
        role, number = self._spec["role"], self._spec["seed"]
        model = self._models.clean_model(role, number)
        save_weights(self._out / f"{self._models.model_key(role, number)}.safetensors", model)

    def ensemble(self) -> None:
        """The attacker's K models in training."""
        members, staggered = self._spec["members"], self._spec["staggered"]
        key = self._models.ensemble_key(members, staggered)
        self._models.pretrained(members, staggered).save(self._out / f"{key}.safetensors")

    def targets(self) -> None:
        """The order of the draw of targets."""
        write_json(self._out / "targets.json", {"drawn": list(TargetDraw(self._audit, self._models).drawn)})

    def clean(self) -> None:
        """A target, its desired map and its clean scores."""
        self._steps.clean(self._row)
        self._note_seconds()

    def shared_victims(self) -> None:
        """Poison and victims of an arm that does not depend on the explainer."""
        models = self._store(cache=self._out)
        targets = TargetDraw(self._audit, models, self._drawn)
        AuditSteps(self._audit, self._out, models, targets).shared_victims(self._row, self._arm)
        shutil.rmtree(self._out / "parts", ignore_errors=True)  # the step results belong to one explainer's run

    def arm(self) -> None:
        """Poison of an arm, its victims and their scores."""
        poison = Path("poison") / str(self._row) / self._arm.attack.kind
        for folder in self._inputs.values():
            link_tree(folder / poison, self._out / poison)
            for name in (f"{self._row}-history", f"{self._row}-{self._arm.attack.kind}"):  # they belong to the poison
                _link(folder / "parts" / f"{name}.safetensors", self._out / "parts" / f"{name}.safetensors")
        self._steps.arm(self._row, self._arm)
        self._note_seconds()

    def ceiling(self) -> None:
        """Scores of models that are bent directly."""
        self._steps.ceiling(self._row)
        self._note_seconds()

    def _note_seconds(self) -> None:
        write_json(self._out / "seconds.json", self._log.seconds)

    def run(self) -> None:
        """The run folder: put together from its steps, judged, and drawn."""
        claim(self._audit, self._out, self._spec["fingerprint"])
        shutil.copyfile(self._product_with(CODE_PATH) / CODE_PATH, self._out / CODE_PATH)
        seconds: dict[str, float] = {}
        for folder in self._inputs.values():
            if not (folder / "seconds.json").is_file():
                continue
            for name in ("parts", "poison"):
                link_tree(folder / name, self._out / name)
            for kind, spent in read_json(folder / "seconds.json").items():
                seconds[kind] = seconds.get(kind, 0.0) + spent
        rows = self._targets.rows
        finish_run(self._audit, self._out, rows, fingerprint=self._spec["fingerprint"], seconds=seconds)
        render([self._out], self._out / "report.html")


@final
class _TaskReporter:
    """A reporter of a task's progress: crafting, then victims, in about their shares of the time."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def plan(self, title: str, work: dict[str, int]) -> None:
        """Ignored."""

    def begin(self, kind: str, label: str) -> None:
        """Ignored."""

    def advance(self, done: int, planned: int) -> None:
        """Crafting is most of the work of an attack's arm."""
        self._tell(0.9 * done / planned)

    def finish(self, kind: str, *, reused: bool = False) -> None:
        """Ignored."""


def link_tree(source: Path, destination: Path) -> None:
    """Copy a folder, if present, into another by links to its files, if the file system has links.

    Links are safe because finished files never change.

    Args:
        source: the folder.
        destination: made if missing; files of the same name stay.
    """
    for path in sorted(source.rglob("*")):
        _link(path, destination / path.relative_to(source))


def _link(source: Path, destination: Path) -> None:
    if not source.is_file() or destination.exists():
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, destination)
    except OSError:
        shutil.copyfile(source, destination)
