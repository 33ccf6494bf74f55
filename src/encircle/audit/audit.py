"""What an audit is: everything that decides its scores, given in Python or read from a case file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..attacks import Attack, BaseSamples, Ceiling, Influence, NoPoison, ProjectedWatermark, RandomNoise, Watermark
from ..core import InputError, digest, unknown_name
from ..data import DataSet, DatasetSamples
from ..data.poison import RESERVED
from ..explain import Explainer
from ..goals import Goal
from ..models import fitting, split
from ..threat import Budget, Column, Legal
from ..training import CodePath, Recipe, read_weights
from .case import Case, Judging
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
        self.build = build
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
        self.targets = targets if isinstance(targets, int) else tuple(int(row) for row in targets)
        self.victims = victims
        self.references = references
        self.seed = seed
        self.threads = threads
        self.code_path = code_path
        self.judging = judging or Judging()
        self.title = title
        self.device = _device(device)
        self._described = described
        self._check_settings()

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
            lambda: case.model.build(data),
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
        classes: Sequence[str],
        features: Sequence[str] = (),
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
            classes: class names.
            features: column names of a table.
            columns: how its integer, categorical and immutable columns may change, by name; others are continuous.
            name: of the data.
            settings: as for `Audit`.

        Raises:
            InputError: settings that do not fit together.
        """
        held = DatasetSamples(test)
        if len(held) < 2:
            raise InputError(
                f"{len(held)} test samples are too few to draw a target and read accuracy; give at least 2."
            )
        samples = DatasetSamples(train)
        shape = samples.batch(torch.tensor([0])).shape[1:]
        table = len(shape) == 1
        names = list(features) or [f"feature {column}" for column in range(shape[0])]
        data = DataSet(
            name=name,
            kind="table" if table else "image",
            train=samples,
            validation=held.subset(torch.arange(0)),
            test=held,
            pretrain=None,
            classes=classes,
            features=names if table else (),
            columns=columns or {},
        )
        return cls(build, data, **settings)

    def _check_settings(self) -> None:
        """Refuse at once what would otherwise fail, or mean nothing, after hours of training."""
        counts = {"victims": self.victims, "references": self.references, "threads": self.threads}
        counts["targets"] = self.targets if isinstance(self.targets, int) else len(self.targets)
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"{name} must be at least 1, not {count}.")
        starts = (self.pretraining is not None) + (self.checkpoint is not None)
        if starts != (self.recipe.start == "checkpoint"):
            raise InputError(
                "a recipe with start='checkpoint' needs either pretraining or a checkpoint, and one with start='scratch' neither."
            )
        if self.recipe.starts > 1 and self.pretraining is None:
            raise InputError("several starts are learnt by a pretraining recipe; give one, or set starts to 1.")
        if self.recipe.starts > 1 and self.code_path is not None and self.code_path.members != "loop":
            raise InputError(
                "models of several starts share no frozen stages, so they cannot be computed at once; set code_path.members: loop or leave it out."
            )
        weights = self.recipe.class_weights
        if isinstance(weights, tuple) and len(weights) != len(self.data.classes):
            raise InputError(f"{len(weights)} class weights for {len(self.data.classes)} classes; give one a class.")
        if self.pretraining is not None and self.data.pretrain is None:
            raise InputError(
                f"{self.data.name} has no pre-training part; set its pretrain share above 0, or give a checkpoint."
            )
        self._check_data()
        self._check_augmentation()
        self._check_network()
        self._check_attacker()

    def _check_data(self) -> None:
        shape = self.data.shape
        if len(shape) not in {1, 3}:
            raise InputError(
                f"inputs of shape {shape} are neither images (c, h, w) nor rows of a table (columns,); reshape them."
            )
        if self.data.kind == "image" and shape[0] not in {1, 3}:
            raise InputError(f"images of {shape[0]} channels cannot be exported as PNG; use 1 or 3 channels.")
        if len(self.data.classes) < 2:
            raise InputError("with one class there is nothing to classify; name at least two.")
        if self.data.kind == "table" and len(self.data.features) != shape[0]:
            raise InputError(f"{len(self.data.features)} feature names for {shape[0]} columns; name each column once.")
        for name, times in Counter(self.data.features if self.data.kind == "table" else ()).items():
            if name in RESERVED or times > 1:
                raise InputError(
                    f"the column {name!r} cannot be exported beside {' and '.join(map(repr, RESERVED))}, or is there twice; give each column a name of its own."
                )
        for name in self.data.columns:
            if name not in self.data.features:
                raise unknown_name("column", name, self.data.features)
        radius = self.budget.entry_radius(torch.zeros(1, *shape))
        if self.legal.levels and self.budget.size(len(self.data.train)) and radius < 1 / self.legal.levels:
            raise InputError(
                f"an {self.budget.norm} epsilon of {self.budget.epsilon} moves every pixel by {radius:.2g}, less than one level "
                f"of an 8-bit file ({1 / self.legal.levels:.2g}), so nothing would be left of the poison; raise epsilon."
            )

    def _check_augmentation(self) -> None:
        augmented = {
            "recipe.augmentation": self.recipe.augmentation is not None,
            "pretraining.augmentation": self.pretraining is not None and self.pretraining.augmentation is not None,
            "attack.augmented": getattr(self.attack, "augmented", False),
        }
        for key, asked in augmented.items():
            if asked and self.data.kind != "image":
                raise InputError(f"rows of a table cannot be mirrored or shifted; leave {key} out.")
        if augmented["recipe.augmentation"] and self.code_path is not None and self.code_path.members != "loop":
            raise InputError(
                "augmentation draws for each model by itself, so models cannot be computed at once; set code_path.members: loop or leave it out."
            )

    def _check_network(self) -> None:
        apart = self.recipe.start == "scratch" or self.recipe.starts > 1
        if apart and self.explainer.needs_shared_start(self.data.shape):
            raise InputError(
                "CAM over hidden units compares units between networks, and units of separately initialised networks do not "
                "correspond; use a recipe with start: checkpoint and starts: 1, or the explainer grad."
            )
        network = self.fresh()
        self.explainer.check(network)
        split(network, self.recipe.frozen_stages)
        probe = self.data.train.batch(torch.arange(min(2, len(self.data.train))))
        try:
            with torch.no_grad():
                logits = network(probe)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"the network cannot classify {tuple(probe.shape)} float32 inputs ({reason}); make it fit the data."
            ) from None
        if not isinstance(logits, Tensor) or logits.shape != (len(probe), len(self.data.classes)):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"the network gives {found} for {len(probe)} inputs and {len(self.data.classes)} classes; it must give logits (n, classes)."
            )

    def _check_attacker(self) -> None:
        if self.attacker is None:
            return
        if self.attacker.data is not self.data:
            raise InputError(
                "the attacker's audit has other data; give it the very same data set, which the attacker knows."
            )
        mine, theirs = self.fresh(), self.attacker.fresh()
        if self.explainer.needs_shared_start(self.data.shape) and str(mine) != str(theirs):
            raise InputError(
                "CAM over hidden units compares units between networks, and an attacker of another network has other units; use the explainer grad."
            )
        probe, label = self.data.train.batch(torch.tensor([0])), torch.tensor([0])
        shapes = [tuple(self.explainer.attribute(network, probe, label).shape[1:]) for network in (mine, theirs)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"the attacker's network gives maps of {shapes[1]} and the victims' of {shapes[0]}, so that no desired map fits both; choose a network "
                "of the same grid."
            )

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
        inputs = self.data.train.batch(torch.arange(min(2, len(self.data.train)))).clone().requires_grad_()
        logits = network(inputs)
        (slopes,) = torch.autograd.grad(logits.square().sum(), inputs, allow_unused=True)
        told = [logits, inputs.new_zeros(1) if slopes is None else slopes.norm()]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            told.append(network.train()(inputs))
        rounded = [f"{value:.3g}" for values in told for value in values.flatten().tolist()]
        return digest([str(network), weights, rounded])

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
    def legal(self) -> Legal:
        """Legal values of a sample: whole 8-bit steps for images, whatever the columns of a table allow."""
        if self.data.kind == "image":
            return Legal(levels=255)
        return Legal(
            columns={list(self.data.features).index(name): column for name, column in self.data.columns.items()}
        )

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


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)  # which only machines that train need to have
    except RuntimeError:
        raise InputError(f"there is no device {name!r}; choose cpu, cuda or the like.") from None
