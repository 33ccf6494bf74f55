"""What an audit is: everything that decides its scores, given in Python or read from a case file."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..attacks import Attack, BaseSamples, Ceiling, Influence, NoPoison, ProjectedWatermark, RandomNoise, Watermark
from ..core import InputError, digest
from ..data import DataSet, DatasetSamples
from ..data.class_names import check_class_order, class_names, column_names
from ..explain import Explainer
from ..goals import Goal
from ..models import Adapter, fitting, module_errors
from ..threat import Budget, Column, Legal
from ..training import CodePath, Recipe, read_weights
from ..training.self_test import ROWS
from .case import Case, Judging
from .checks import check_settings
from .identity import digest_of_file, digest_of_weights, settings_of

BASES = ("target_share", "other_share", "bases", "dirty_label", "repeats")
"""Settings of an attack that say what its poison is made from: the controls take the same."""


@final
class Audit:
    """One audit of a model you own or may study.

    Args:
        build: makes your network with fresh weights; it gives logits `(n, classes)` for inputs in [0, 1].
        data: the data set in its parts; or use `Audit.of` with your own `Dataset`s.
        recipe: how victims learn.
        explainer: what explanations come from.
        goal: the attacker's desired map.
        budget: how much poison, how far from its bases.
        attack: what is audited; the controls always run beside it.
        attacker: the audit as the attacker supposes it to be, with another network or recipe: the attacker's own models are of that one. None knows both.
        ceiling: estimates how far the explanation could be bent at all; None does not.
        checkpoint: weights every model starts from, for a recipe that says so: a file, or tensors by name. Those of a trunk alone will do for a
            CAM classifier, whose head is then drawn by each model's seed; those that the network has no place for are left out (`surplus`).
        pretraining: or how such weights are learnt on `data.pretrain`.
        targets: how many targets are drawn from the test set, or which of its rows.
        victims: victims per target and arm.
        references: the attacker's own clean models.
        seed: of everything.
        threads: CPU threads.
        code_path: how models are computed; None measures once which way is fastest, and keeps to it.
        judging: what a verdict needs.
        title: what it is called in reports.
        device: where models are trained.
        described: how the run's `case.yaml` describes data and model; made from `data` and the network otherwise.

    Raises:
        InputError: settings that do not fit together.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        data: DataSet,
        *,
        recipe: Recipe,
        explainer: Explainer,
        goal: Goal,
        budget: Budget,
        attack: Attack | None = None,
        attacker: Audit | None = None,
        ceiling: Ceiling | None = None,
        checkpoint: Path | str | dict[str, Tensor] | None = None,
        pretraining: Recipe | None = None,
        targets: int | Sequence[int] = 10,
        victims: int = 3,
        references: int = 2,
        seed: int = 0,
        threads: int = 1,
        code_path: CodePath | None = None,
        judging: Judging | None = None,
        title: str = "Audit",
        device: str = "cpu",
        described: dict[str, Any] | None = None,
    ) -> None:
        if not len(data.train) or not len(data.test):
            raise InputError(
                f"{data.name} has no {'test' if len(data.train) else 'training'} samples; give at least one."
            )
        self.build = Adapter(build, data.train.batch(torch.arange(min(ROWS, len(data.train)))))
        self.data = data
        self.recipe = recipe
        self.explainer = explainer
        self.goal = goal
        self.budget = budget
        self.attack = attack if attack is not None else Influence()
        self.attacker = attacker
        self.ceiling = ceiling
        weights = read_weights(Path(checkpoint)) if isinstance(checkpoint, Path | str) else checkpoint
        self.checkpoint: dict[str, Tensor] | None = None
        self.surplus: list[str] = []
        if weights is not None:
            self.checkpoint, self.surplus = fitting(weights, self.fresh())
        self.pretraining = pretraining
        self.targets = _targets(targets)
        self.victims = _whole("victims", victims)
        self.references = _whole("references", references)
        self.seed = _whole("seed", seed)
        self.threads = _whole("threads", threads)
        self.code_path = code_path
        self.judging = judging or Judging()
        if not isinstance(title, str):
            raise InputError(f"the title {title!r} is no text; give one in quotes.")
        self.title = title
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
            data: its data set, where that is loaded already.
            described: what the run's `case.yaml` holds, where the files that the case names were moved.
        """
        data = data or case.data.load(case.seed)
        described = described or case.model_dump(mode="json")
        attacker, supposed = None, case.supposed()
        if supposed is not None:
            otherwise = supposed.model_dump(mode="json")
            theirs = described | {name: otherwise[name] for name in ("model", "recipe", "attacker")}
            theirs |= {name: None for name in ("checkpoint", "pretraining") if otherwise[name] is None}
            try:
                attacker = cls.from_case(supposed, device, data=data, described=theirs)
            except InputError as error:
                raise InputError(f"as the attacker supposes: {error}") from None
        return cls(
            lambda: case.model.build(data.shape, len(data.classes)),
            data,
            recipe=case.recipe,
            explainer=case.explainer,
            goal=case.goal,
            budget=case.budget,
            attack=case.attack,
            attacker=attacker,
            ceiling=case.ceiling,
            checkpoint=case.checkpoint,
            pretraining=case.pretraining,
            targets=case.targets,
            victims=case.victims,
            references=case.references,
            seed=case.seed,
            threads=case.threads,
            code_path=case.code_path,
            judging=case.judging,
            title=case.title,
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
        **settings: Any,
    ) -> Audit:
        """An audit of your own network on your own `Dataset`s of `(input in [0, 1], label)`.

        Images are `(c, h, w)`, rows of a table `(columns,)`. Accuracy is
        read on all of `test` but the target.

        Args:
            build: makes your network with fresh weights.
            train: what victims learn from.
            test: held-out samples, at least 2; targets are rows of it.
            classes: class names in the order of the label numbers, or a mapping such as `class_to_idx`; numbers become their texts.
            features: column names of a table.
            columns: how its integer, categorical and immutable columns may change, by name; others are continuous.
            name: of the data.
            settings: as for `Audit`.

        Raises:
            InputError: settings that do not fit together.
        """
        samples, held = DatasetSamples(train), DatasetSamples(test)
        if len(held) < 2:
            raise InputError(
                f"{len(held)} test samples are too few to draw a target and read accuracy; give at least 2."
            )
        names_of_classes = class_names(classes)
        for dataset in (samples, held):
            check_class_order(names_of_classes, dataset.classes)
        shape = samples.batch(torch.tensor([0])).shape[1:]
        table = len(shape) == 1
        names = list(column_names(features)) or [f"feature {column}" for column in range(shape[0] if table else 0)]
        data = DataSet(
            name=name,
            kind="table" if table else "image",
            train=samples,
            validation=held.subset(torch.arange(0)),
            test=held,
            pretrain=None,
            classes=names_of_classes,
            features=names if table else (),
            columns=columns or {},
        )
        return cls(build, data, **settings)

    def fresh(self) -> nn.Module:
        """The network with weights of seed 0, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().eval()

    def describe(self) -> dict[str, Any]:
        """Everything that decides the scores, as `case.yaml` holds it and the run's id is made from."""
        if self._described is not None:
            return self._described
        pieces = {
            "recipe": self.recipe,
            "explainer": self.explainer,
            "goal": self.goal,
            "attack": self.attack,
            "budget": self.budget,
            "judging": self.judging,
        }
        return {
            "title": self.title,
            "data": {"kind": self.data.name},
            "model": {"kind": type(self.fresh()).__name__},
            **{name: settings_of(piece) for name, piece in pieces.items()},
            "attacker": None if self.attacker is None else self.attacker.describe(),
            "ceiling": None if self.ceiling is None else settings_of(self.ceiling),
            "pretraining": None if self.pretraining is None else settings_of(self.pretraining),
            "targets": self.targets if isinstance(self.targets, int) else list(self.targets),
            "victims": self.victims,
            "references": self.references,
            "seed": self.seed,
            "threads": self.threads,
            "code_path": None if self.code_path is None else settings_of(self.code_path),
        }

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of what the settings name but do not hold: starting weights, files of the goal, an own network.

        A network of the user's own is known by its text, its weights of seed 0, and what it makes of two samples when it is used and when it learns, and how
        that depends on them: two networks that differ only in the code of `forward` are different models.
        """
        found = {name: digest_of_file(value) for name, value in vars(self.goal).items() if isinstance(value, Path)}
        if self.checkpoint is not None:
            found["checkpoint"] = digest_of_weights(self.checkpoint)
        if self._described is None:
            found["network"] = self._network_digest()
        data = self.data
        about = [list(data.classes), list(data.features), sorted((row, list(box)) for row, box in data.boxes.items())]
        found["data"] = digest([*about, sorted((name, repr(column)) for name, column in data.columns.items())])
        if self.attacker is not None:
            found |= {f"attacker's {name}": value for name, value in self.attacker.digests.items()}
        if self.device.type != "cpu":
            found["device"] = digest(str(self.device))
        return found

    def _network_digest(self) -> str:
        network = self.fresh()
        weights = digest_of_weights(network.state_dict())
        names = {id(value): name for name, value in network.named_parameters()}
        tied = [names[id(value)] for _, value in network.named_parameters(remove_duplicate=False)]
        learns = [name for name, value in network.named_parameters() if value.requires_grad]
        inputs = self.data.train.batch(torch.arange(min(2, len(self.data.train)))).clone().requires_grad_()
        with module_errors(network, "when it is told from others"), torch.random.fork_rng(devices=[]):
            logits = network(inputs)
            (slopes,) = torch.autograd.grad(logits.square().sum(), inputs, allow_unused=True)
            facts = [logits, inputs.new_zeros(1) if slopes is None else slopes.norm()]
            torch.manual_seed(0)
            learnt = network.train()(inputs)
            parameters = [value for value in network.parameters() if value.requires_grad]
            steps = torch.autograd.grad(learnt.square().sum(), parameters, allow_unused=True) if parameters else ()
            facts += [learnt, *(step.norm() for step in steps if step is not None)]
            facts += [value.double().norm() for value in network.buffers()]  # as one pass has left them
        rounded = [f"{value:.3g}" for values in facts for value in values.flatten().tolist()]
        return digest([str(network), weights, tied, learns, rounded])

    @property
    def arms(self) -> list[Attack]:
        """What victims are trained with: no poison, the controls, and the audited attack."""
        like = {name: getattr(self.attack, name) for name in BASES if hasattr(self.attack, name)}
        controls: list[Attack] = [NoPoison(), BaseSamples(**like), RandomNoise(**like)]
        controls += [Watermark(), ProjectedWatermark()]
        return [arm for arm in controls if arm.kind != self.attack.kind] + [self.attack]

    @property
    def titles(self) -> dict[str, str]:
        """The arms' names for people, in the order of tables; last the ceiling, which is no arm but is scored like one."""
        bent = {} if self.ceiling is None else {self.ceiling.kind: self.ceiling.title}
        dirty = " (dirty label)"  # of the attack and of what is made of the same bases
        return {
            arm.kind: f"{arm.title}{dirty if getattr(arm, 'dirty_label', False) else ''}" for arm in self.arms
        } | bent

    @property
    def abouts(self) -> dict[str, str]:
        """What each arm and the ceiling are, for a report's glossary."""
        members: list[Attack | Ceiling] = [*self.arms, *([] if self.ceiling is None else [self.ceiling])]
        return {member.kind: member.about for member in members if member.about}

    @property
    def legal(self) -> Legal:
        """Legal values of a sample: whole 8-bit steps for images, whatever the columns of a table allow."""
        if self.data.kind == "image":
            return Legal(levels=255)
        return Legal(
            columns={list(self.data.features).index(name): column for name, column in self.data.columns.items()}
        )

    def poison_in_words(self) -> str:
        """How many samples are poisoned for each target, and what share of the training set that is."""
        count, clean = self.budget.size(len(self.data.train)), len(self.data.train)
        return f"{count} poison samples a target, {count / clean:.1%} of the {clean} training samples"

    def plan(self) -> dict[str, int]:
        """How many pieces of each kind of work there are, for a dry run and for progress."""
        targets = self.targets if isinstance(self.targets, int) else len(self.targets)
        poisons = len(self.arms) - 1
        return {
            "model": 2 * self.victims
            + self.references
            + sum(one.recipe.starts for one in (self, self.attacker) if one and one.pretraining is not None),
            "craft": targets,
            "control": targets * (poisons - 1),
            "victim": targets * poisons * self.victims,
            **({} if self.ceiling is None else {"ceiling": targets * self.victims}),
        }


def _whole(name: str, value: Any) -> int:
    """A setting that counts something, also as NumPy's or torch's integer."""
    with suppress(TypeError):
        if not isinstance(value, bool):
            return operator.index(value)
    raise InputError(f"{name} must be a whole number, not {value!r}.")


def _targets(value: Any) -> int | tuple[int, ...]:
    """How many targets, or which rows, of any type that holds whole numbers."""
    rows = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(rows, Iterable) and not isinstance(rows, str):
        return tuple(_whole("targets", row) for row in rows)
    return _whole("targets", rows)


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)  # which only machines that train need to have
    except RuntimeError:
        raise InputError(f"there is no device {name!r}; choose cpu, cuda or the like.") from None
