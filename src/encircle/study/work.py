"""What a worker does for each kind of task; all it knows is the task's spec and the products it is given."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

from ..attacks import Attack
from ..audit import Audit, Case
from ..audit.case_file import rename_files
from ..audit.pieces import Pieces
from ..audit.run import claim, computing, finish_run
from ..audit.users_code import users_errors
from ..audit.workshop import CODE_PATH, Workshop
from ..core import InputError
from ..data import DataSet
from ..jobs.task import Tell
from ..report import render
from ..storage import read_json, write_json
from ..training import save_tensors, save_weights
from .plan import located
from .saved_data import load_data, save_data


def perform(kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, tell: Tell) -> None:
    """Do a task; see `jobs.task.Work`.

    Raises:
        EncircleError: what an audit raises.
    """
    job = _Job(spec, inputs, out, tell)
    if kind == "files":
        job.files()
        return
    with users_errors(), computing(job.case.threads):
        _WORK[kind](job)


@final
class _Job:
    """One task at work in its folder."""

    def __init__(self, spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, tell: Tell) -> None:
        self.spec, self.inputs, self.out, self.tell = spec, inputs, out, tell

    # -- what it is given ----------------------------------------------------------------------------------------------

    @cached_property
    def case(self) -> Case:
        return Case.model_validate(self.spec["case"])

    def _among(self, name: str) -> Path:
        """The product that holds a file."""
        return next(folder for folder in self.inputs.values() if (folder / name).exists())

    @cached_property
    def data(self) -> DataSet:
        return load_data(self._among("data.json"))

    @cached_property
    def audit(self) -> Audit:
        content = self.case.model_dump(mode="json")
        names: list[str] = []
        rename_files(content, lambda name: names.append(name) or name)  # type: ignore[func-returns-value]
        if names:
            moved = read_json(self._among("files.json") / "files.json")
            rename_files(content, lambda name: str(self._among("files.json") / moved[name]))
        case = Case.model_validate(content)
        return Audit.from_case(case, self.spec["device"], data=self.data, described=dict(self.spec["case"]))

    @cached_property
    def shop(self) -> Workshop:
        """Finds the models it is given; trains none that is there."""
        products = list(self.inputs.values())
        return Workshop(self.audit, self.spec["fingerprint"], _Telling(self.tell), found=products)

    @cached_property
    def pieces(self) -> Pieces:
        drawn = read_json(self._among("targets.json") / "targets.json")["drawn"]
        return Pieces(self.audit, self.out, self.shop, self.shop.reporter, drawn)

    @cached_property
    def row(self) -> int:
        target = self.spec["target"]
        return self.pieces.drawn_row(target["place"]) if "place" in target else self.pieces.given_row(target["row"])

    # -- what it makes -------------------------------------------------------------------------------------------------

    def files(self) -> None:
        """Copies of the files that a case names, and under which names they are here."""
        names = {}
        for number, (name, path) in enumerate(sorted(self.spec["paths"].items())):
            names[name] = f"{number}{Path(path).suffix}"
            shutil.copyfile(path, self.out / names[name])
        write_json(self.out / "files.json", names)

    def decode(self) -> None:
        """The data set, decoded and checked."""
        data = located(self.case, Path(self.spec["root"])).data.load(self.case.seed)
        if data.check() != self.spec["fingerprint"]:
            raise InputError(f"{data.name} has changed since the study was planned; start the study anew.")
        save_data(data, self.out)

    def weights(self) -> None:
        """Starting weights."""
        source = self.shop.source
        for key, weights in zip(self.shop.start_keys, (source.checkpoint or {}, *source.others), strict=True):
            save_tensors(self.out / f"{key}.safetensors", weights)

    def features(self) -> None:
        """The training set as the frozen stages see it."""
        self.shop.save_frozen_features(self.out / f"{self.shop.trunk_key}.safetensors")

    def path(self) -> None:
        """The code path of the runs of this network."""
        products = list(self.inputs.values())
        _ = Workshop(self.audit, self.spec["fingerprint"], self.shop.reporter, found=products, home=self.out).path

    def model(self) -> None:
        """A clean victim, or one of the attacker's models."""
        role, seed = self.spec["role"], self.spec["seed"]
        save_weights(self.out / f"{self.shop.model_key(role, seed)}.safetensors", self.shop.clean_model(role, seed))

    def ensemble(self) -> None:
        """The attacker's K models in training."""
        wanted = self.spec["members"], self.spec["staggered"]
        self.shop.pretrained(*wanted).save(self.out / f"{self.shop.ensemble_key(*wanted)}.safetensors")

    def targets(self) -> None:
        """The order in which targets are drawn."""
        pieces = Pieces(self.audit, self.out, self.shop, self.shop.reporter)
        write_json(self.out / "targets.json", {"drawn": list(pieces.drawn)})

    def clean(self) -> None:
        """A target, its desired map and its clean scores."""
        self.pieces.clean(self.row)
        self._note_seconds()

    def unexplained(self) -> None:
        """Poison and victims of an arm that knows no explainer."""
        shop = Workshop(
            self.audit, self.spec["fingerprint"], self.shop.reporter, cache=self.out, found=list(self.inputs.values())
        )
        drawn = self.pieces.drawn
        Pieces(self.audit, self.out, shop, shop.reporter, drawn).unexplained(self.row, self._arm)
        shutil.rmtree(self.out / "parts", ignore_errors=True)  # those are of one explainer's run

    def arm(self) -> None:
        """Poison of an arm, its victims and their scores."""
        made = Path("poison") / str(self.row) / self._arm.kind
        for folder in self.inputs.values():
            if (folder / made).is_dir():
                link_tree(folder / made, self.out / made)
        self.pieces.arm(self.row, self._arm)
        self._note_seconds()

    def ceiling(self) -> None:
        """Scores of models that are bent directly."""
        self.pieces.ceiling(self.row)
        self._note_seconds()

    @property
    def _arm(self) -> Attack:
        return next(arm for arm in self.audit.arms if arm.kind == self.spec["arm"])

    def _note_seconds(self) -> None:
        write_json(self.out / "seconds.json", self.shop.seconds)

    def run(self) -> None:
        """The run folder: put together from its pieces, judged, and drawn."""
        claim(self.audit, self.out, self.spec["fingerprint"])
        shutil.copyfile(self._among(CODE_PATH) / CODE_PATH, self.out / CODE_PATH)
        seconds: dict[str, float] = {}
        for folder in self.inputs.values():
            for name in ("parts", "poison"):
                if (folder / name).is_dir() and (folder / "seconds.json").is_file():
                    link_tree(folder / name, self.out / name)
            if (folder / "seconds.json").is_file():
                for kind, spent in read_json(folder / "seconds.json").items():
                    seconds[kind] = seconds.get(kind, 0.0) + spent
        rows = self.pieces.rows
        finish_run(self.audit, self.out, rows, fingerprint=self.spec["fingerprint"], seconds=seconds)
        render([self.out], self.out / "report.html")


_WORK: dict[str, Callable[[_Job], None]] = {
    "data": _Job.decode,
    "weights": _Job.weights,
    "features": _Job.features,
    "path": _Job.path,
    "model": _Job.model,
    "ensemble": _Job.ensemble,
    "targets": _Job.targets,
    "clean": _Job.clean,
    "unexplained": _Job.unexplained,
    "control": _Job.arm,
    "attack": _Job.arm,
    "ceiling": _Job.ceiling,
    "run": _Job.run,
}


@final
class _Telling:
    """A reporter that tells how far a task is: crafting, then victims, in about the shares that they take."""

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
    """Copy a folder into another by links to the same files, where the file system has them: what is finished never changes."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = destination / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)
