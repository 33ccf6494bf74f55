"""An audit: everything that decides its scores, given in Python or read from a case file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..attacks import Ceiling
from ..core import InputError
from ..data import DataSet, DatasetSamples
from ..data.class_names import check_class_order, class_names, column_names
from ..models import Adapter, fitting
from ..threat import Column, Legal
from ..training import read_weights
from ..training.self_test import ROWS
from .arm import Arm, arms_of
from .case import Case
from .case_file import own_settings
from .checks import check_settings
from .identity import digests_of, own_description
from .settings import AuditSettings


@final
class Audit:
    """One audit of a model you own or may study.

    Args:
        build: makes your network with fresh weights; it gives logits `(n, classes)` for inputs in [0, 1].
        data: the data set, split into its parts; or use `Audit.of` with your own `Dataset`s.
        settings: everything else that decides the scores.
        attacker: the audit that the attacker supposes, with another network or recipe, for the attacker's own models. None: the attacker knows both.
        checkpoint: weights every model starts from, for a recipe that says so: a file, or tensors by name. Those of a trunk alone will do for a
            CAM classifier, whose head is then drawn by each model's seed; those that the network has no place for are left out (`surplus`).
        device: where models are trained.
        described: the description for the run's `case.yaml`; made from `data`, the network and the settings otherwise.

    Raises:
        InputError: settings that do not fit together.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        data: DataSet,
        settings: AuditSettings,
        *,
        attacker: Audit | None = None,
        checkpoint: Path | str | dict[str, Tensor] | None = None,
        device: str = "cpu",
        described: dict[str, Any] | None = None,
    ) -> None:
        if not len(data.train) or not len(data.test):
            raise InputError(
                f"{data.name} has no {'test' if len(data.train) else 'training'} samples; give at least one."
            )
        self.build = Adapter(build, data.train.batch(torch.arange(min(ROWS, len(data.train)))))
        self.data = data
        self.settings = settings
        self.attacker = attacker
        weights = read_weights(Path(checkpoint)) if isinstance(checkpoint, Path | str) else checkpoint
        self.checkpoint: dict[str, Tensor] | None = None
        self.surplus: list[str] = []
        if weights is not None:
            self.checkpoint, self.surplus = fitting(weights, self.fresh())
        self.device = _device(device)
        self._described = described
        check_settings(self)

    @classmethod
    def from_case(
        cls, case: Case, device: str = "cpu", *, data: DataSet | None = None, described: dict[str, Any] | None = None
    ) -> Audit:
        """The audit that a case file describes.

        Args:
            case: the settings.
            device: where models are trained.
            data: its data set, if already loaded.
            described: the content of the run's `case.yaml`, if the case's files were moved.

        Raises:
            InputError: settings that do not fit together, or not with the data. The message says so if they are the attacker's.
        """
        data = data or case.data.load(case.seed)
        described = described or case.model_dump(mode="json")
        attacker = None
        if case.supposed is not None:
            otherwise = case.supposed.model_dump(mode="json")
            supposed = described | {name: otherwise[name] for name in ("model", "recipe", "attacker")}
            supposed |= {name: None for name in ("checkpoint", "pretraining") if otherwise[name] is None}
            try:
                attacker = cls.from_case(case.supposed, device, data=data, described=supposed)
            except InputError as error:
                raise InputError(f"as the attacker supposes: {error}") from None
        return cls(
            lambda: case.model.build(data.shape, len(data.classes)),
            data,
            case,
            attacker=attacker,
            checkpoint=case.checkpoint,
            device=device,
            described=described,
        )

    @classmethod
    def of(
        cls,
        build: Callable[[], nn.Module],
        train: Dataset[Any],
        test: Dataset[Any],
        *,
        classes: Iterable[object],
        features: Iterable[object] = (),
        columns: Mapping[str, Column] | None = None,
        name: str = "my data",
        attacker: Audit | None = None,
        checkpoint: Path | str | dict[str, Tensor] | None = None,
        device: str = "cpu",
        **settings: Any,
    ) -> Audit:
        """An audit of your own network on your own `Dataset`s of `(input in [0, 1], label)`.

        Images are `(c, h, w)`, rows of a table `(columns,)`. Accuracy is
        read on all of `test` but the target.

        Args:
            build: makes your network with fresh weights.
            train: the samples that victims learn from.
            test: held-out samples, at least 2; targets are rows of it.
            classes: class names in the order of the label numbers, or a mapping such as `class_to_idx`; numbers become their texts.
            features: column names of a table.
            columns: rules of change for integer, categorical and immutable columns, by name; other columns are continuous.
            name: of the data.
            attacker: as for `Audit`.
            checkpoint: as for `Audit`.
            device: as for `Audit`.
            settings: by name, as in `AuditSettings`.

        Raises:
            InputError: settings that do not fit together.
        """
        samples, test_samples = DatasetSamples(train), DatasetSamples(test)
        if len(test_samples) < 2:
            raise InputError(
                f"{len(test_samples)} test samples are too few to draw a target and read accuracy; give at least 2."
            )
        names_of_classes = class_names(classes)
        for dataset in (samples, test_samples):
            check_class_order(names_of_classes, dataset.classes)
        shape = samples.batch(torch.tensor([0])).shape[1:]
        table = len(shape) == 1
        names = list(column_names(features)) or [f"feature {column}" for column in range(shape[0] if table else 0)]
        data = DataSet(
            name=name,
            kind="table" if table else "image",
            train=samples,
            validation=test_samples.subset(torch.arange(0)),
            test=test_samples,
            pretrain=None,
            classes=names_of_classes,
            features=names if table else (),
            columns=columns or {},
        )
        return cls(build, data, own_settings(settings), attacker=attacker, checkpoint=checkpoint, device=device)

    def fresh(self) -> nn.Module:
        """The network with weights of seed 0, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().eval()

    def describe(self) -> dict[str, Any]:
        """Everything that decides the scores: the content of `case.yaml`, and the source of the run's id."""
        return own_description(self) if self._described is None else self._described

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of starting weights, goal files, an own network and the data: the settings only name them."""
        return digests_of(self, own_network=self._described is None)

    @cached_property
    def arms(self) -> list[Arm]:
        """The arms: no poison, the controls, the audited attack, and the defended ones."""
        return arms_of(self.settings.attack, self.settings.defence)

    @property
    def audited(self) -> Arm:
        """The arm that the verdict is about."""
        return self.arms[-1]

    @property
    def scored(self) -> list[Arm | Ceiling]:
        """The arms in the order of tables, then the ceiling. The ceiling is no arm but is scored like one."""
        return [*self.arms, *([] if self.settings.ceiling is None else [self.settings.ceiling])]

    @property
    def legal(self) -> Legal:
        """Legal values of a sample: 8-bit steps for images, the columns' rules for tables."""
        if self.data.kind == "image":
            return Legal(levels=255)
        return Legal(
            columns={list(self.data.features).index(name): column for name, column in self.data.columns.items()}
        )

    def poison_in_words(self) -> str:
        """Number of poison samples per target, and its share of the training set."""
        count, clean = self.settings.budget.size(len(self.data.train)), len(self.data.train)
        return f"{count} poison samples a target, {count / clean:.1%} of the {clean} training samples"

    def plan(self) -> dict[str, int]:
        """Number of steps of each kind of work, for a dry run and for progress."""
        settings, targets = self.settings, self.settings.target_count
        poisons = [arm for arm in self.arms if not arm.is_clean]
        crafted = len([arm for arm in poisons if not arm.is_defended])
        clean = 2 * settings.victims * (1 + (settings.defence.recipe(settings.recipe) != settings.recipe))
        starts = [
            audit.settings.recipe.starts
            for audit in (self, self.attacker)
            if audit is not None and audit.settings.pretraining is not None
        ]
        return {
            "model": clean + settings.references + sum(starts),
            "craft": targets,
            "control": targets * (crafted - 1),
            "victim": targets * len(poisons) * settings.victims,
            **({} if settings.ceiling is None else {"ceiling": targets * settings.victims}),
        }


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)  # which only machines that train need to have
    except RuntimeError:
        raise InputError(f"there is no device {name!r}; choose cpu, cuda or the like.") from None
