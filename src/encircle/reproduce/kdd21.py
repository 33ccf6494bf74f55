"""The experiments of Zhang, Gao & Su (KDD 2021, §5) as studies: which audits, of which size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import nn

from ..audit import embedded_cases
from ..audit.case_file import read_yaml
from ..core import InputError
from ..models import ResNet13
from ..models.resnet import BasicBlock
from ..seeds import derive_seed
from ..study.study_file import StudyFile
from ..training import save_tensors
from .generated import write_dogs, write_records

PresetName = Literal["smoke", "quick", "standard", "paper"]
Part = Literal["table1", "table2", "figure4", "figure5", "full", "limits", "readings", "choices"]

WEIGHTS_REMEDY = (
    "give ImageNet weights of ResNet-18 in torchvision's names, as a state dict (.pt) or .safetensors, with --weights: torchvision publishes "
    "them as ResNet18_Weights.IMAGENET1K_V1"
)

SEED = 1
"""Of everything that is reported; settings were chosen on the split, targets and seeds of `CHOICE_SEED`."""

CHOICE_SEED = 3

TEN = (
    "Shih-Tzu",
    "Rhodesian ridgeback",
    "beagle",
    "English foxhound",
    "Border terrier",
    "Australian terrier",
    "golden retriever",
    "Old English sheepdog",
    "Samoyed",
    "dingo",
)
"""Breeds (those of Imagewoof), in the order of their synsets."""

_DOGS: dict[str, Any] = {
    "data": {"kind": "stanford-dogs", "folder": "stanford-dogs-10", "breeds": list(TEN), "side": 64},
    "model": {"kind": "resnet13"},
    "recipe": {
        "start": "checkpoint",
        "frozen_stages": 3,
        "batch_norm": "frozen",
        "epochs": 10,
        "lr": 0.001,
        "optimiser": "adam",
        "schedule": "cosine",
    },
    "goal": {"kind": "drawn-region"},
    "attack": {"kind": "imf", "models": 3, "epochs": 5, "distance": "mixed", "target_share": 0.5},
    "budget": {"fraction": 0.1, "epsilon": 0.1},
    "seed": SEED,
}

EVERYTHING = {"frozen_stages": 0, "lr": 0.0001, "weight_decay": 0.01}
"""Of the dogs' recipe, where the early stages are fine-tuned too: the rate for the later ones alone would spoil them."""

_TRAINING = {
    "epochs": 20,
    "lr": 0.003,
    "weight_decay": 0.005,
    "optimiser": "adam",
    "schedule": "cosine",
    "class_weights": [0.575, 3.85],
}
"""Of the table's network. One record in eight is a fracture: without weights of N / (2 N_c) on its loss the network would answer "none" throughout.

Ten times the usual weight decay: it classifies better, and networks of different seeds agree better on what matters."""

_FRACTURES: dict[str, Any] = {
    "data": {
        "kind": "table",
        "path": "nhanes-osteoporosis-women.csv",
        "label": "fracture",
        "classes": ["no fracture", "fracture"],
        "dropped": ["respondent_id", "cycle", "osteoporosis"],
        "categorical": ["race_ethnicity"],
        "missing": "median",
        "held_out": 0.2,
        "pretrain": 0.3,
        "source": "make it of the public files of NHANES (wwwn.cdc.gov/nchs/nhanes) as docs/data.md says, and put it there",
    },
    "model": {"kind": "two-layer", "hidden": 32},
    "attack": {"kind": "imf", "models": 6, "epochs": 20, "momentum": 0.9, "distance": "mixed"},
    "budget": {"fraction": 0.1, "epsilon": 0.1},
    "seed": SEED,
}

CELLS: dict[str, dict[str, Any]] = {
    "dogs-grad": {**_DOGS, "explainer": {"kind": "grad"}},
    "dogs-cam": {**_DOGS, "explainer": {"kind": "cam"}},
    "fractures-grad": {
        **_FRACTURES,
        "recipe": _TRAINING,
        "explainer": {"kind": "grad"},
        "goal": {"kind": "features", "count": 3},
    },
    "fractures-cam": {
        **_FRACTURES,
        "recipe": {"start": "checkpoint", **_TRAINING},
        "pretraining": _TRAINING,
        "explainer": {"kind": "cam"},
        "goal": {"kind": "units", "count": 4},
    },
}
"""The cells of the paper's tables, at the size of the preset `standard`."""

_CONVERGENCE = {"kind": "imf", "models": 1, "epochs": 30, "staggered": False, "restart": False, "decay": False}
"""One model, pre-trained to the end as Algorithm 1 says, crafted with for longer than the paper shows."""

_STEADY = {"lr": 0.0003, "schedule": "constant"}
"""How that model learns: a schedule that ends with the recipe would leave nothing of the lower level to be seen."""


@final
@dataclass(frozen=True)
class Preset:
    """A size of the experiments.

    Attributes:
        summary: for people.
        settings: keys of the cases of each data set that differ from `CELLS`.
        targets: a cell.
        victims: an arm.
    """

    summary: str
    settings: dict[str, dict[str, Any]]
    targets: int
    victims: int


PRESETS: dict[PresetName, Preset] = {
    "smoke": Preset(
        "made-up data, under a minute: only whether everything works",
        {
            "dogs": {
                "data.folder": "dogs",
                "data.breeds": None,
                "data.side": 32,
                "recipe.epochs": 1,
                "recipe.batch_size": 12,
                "attack.models": 1,
                "attack.epochs": 1,
            },
            "fractures": {
                "data.path": "records.csv",
                "goal.count": 2,
                "recipe.epochs": 4,
                "attack.models": 2,
                "attack.epochs": 1,
            },
        },
        2,
        1,
    ),
    "quick": Preset(
        "real data, within an hour on two cores",
        {"dogs": {"data.breeds": list(TEN[:5]), "attack.models": 1, "attack.epochs": 5}, "fractures": {}},
        5,
        1,
    ),
    "standard": Preset(
        "ten breeds at 64 px, early stages frozen; the committed results", {"dogs": {}, "fractures": {}}, 10, 3
    ),
    "paper": Preset(
        "120 breeds at 224 px, everything fine-tuned; for a machine with an accelerator",
        {
            "dogs": {
                "data.folder": "stanford-dogs",
                "data.breeds": None,
                "data.side": 224,
                "data.split": "random",
                **{f"recipe.{key}": value for key, value in EVERYTHING.items()},
                "attack.poison_batch": "batch",
                "attack.epochs": 20,
            },
            "fractures": {},
        },
        10,
        5,
    ),
}

PARTS: dict[Part, str] = {
    "table1": "Table 1: Stanford Dogs",
    "table2": "Table 2: fractures",
    "figure4": "Figure 4: one dog's maps (from Table 1's runs)",
    "figure5": "Figure 5: convergence",
    "full": "the check with full fine-tuning",
    "limits": "what holds the cells back",
    "readings": "what the readings change",
    "choices": "what the settings for the table were chosen by",
}


def studies(preset: PresetName, parts: Sequence[Part], weights: Path | None) -> dict[str, StudyFile]:
    """The studies that give these parts, by name.

    Args:
        preset: their size.
        parts: what is wanted; none is everything that belongs to the preset.
        weights: ImageNet weights, for what needs the dogs.

    Raises:
        InputError: weights are needed and not given, or there is no such file.
    """
    wanted = set(parts or (PARTS if preset == "standard" else ("table1", "table2", "figure4", "figure5")))
    wanted_studies: dict[str, StudyFile] = {}
    if wanted & {"table1", "figure4"}:
        wanted_studies["table1"] = _table(
            "Stanford Dogs", [f"dogs-{explainer}" for explainer in ("grad", "cam")], preset, weights
        )
    if "table2" in wanted:
        wanted_studies["table2"] = _table("Fractures", ["fractures-grad", "fractures-cam"], preset, None)
    if "figure5" in wanted:
        case = case_of("dogs-cam", preset, weights)
        case["attack"] = {**_CONVERGENCE, "epochs": {"smoke": 2, "quick": 15}.get(preset, _CONVERGENCE["epochs"])}
        case |= {"recipe": {**case["recipe"], **_STEADY}, "data": _fewer_breeds(case["data"], preset)}
        wanted_studies["figure5"] = StudyFile(title="Convergence", case={**case, "targets": 1, "victims": 1})
    if "full" in wanted:
        wanted_studies["full"] = _full(preset, weights)
    if "limits" in wanted:
        wanted_studies["limits"] = _limits(preset, weights)
    if "readings" in wanted:
        wanted_studies["readings"] = _readings(preset)
    if "choices" in wanted:
        wanted_studies["choices"] = _choices(preset)
    return wanted_studies


def _table(title: str, cells: Sequence[str], preset: PresetName, weights: Path | None) -> StudyFile:
    grid: dict[str, Any] = {"case": {cell: case_of(cell, preset, weights) for cell in cells}}
    return StudyFile(title=title, case=grid["case"][cells[0]], grid=grid)


def _full(preset: PresetName, weights: Path | None) -> StudyFile:
    """Everything fine-tuned, on a few targets of half the breeds: a victim takes several times as long."""
    cells = {cell: case_of(cell, preset, weights) for cell in ("dogs-cam", "dogs-grad")}
    for case in cells.values():
        case["recipe"] = {**case["recipe"], **EVERYTHING}
        case["attack"] = {**case["attack"], "models": 1, "epochs": 4}
        case["data"] = _fewer_breeds(case["data"], preset)
        case |= {"targets": 3, "victims": 1, "references": 1}
    return StudyFile(title="Full fine-tuning", case=cells["dogs-cam"], grid={"case": cells})


def _fewer_breeds(data: dict[str, Any], preset: PresetName) -> dict[str, Any]:
    """Five breeds, where more would show nothing else and take twice as long."""
    return {**data, "breeds": 3 if preset == "smoke" else list(TEN[:5])}


def case_of(cell: str, preset: PresetName, weights: Path | None) -> dict[str, Any]:
    """A cell's case at the size of a preset.

    Args:
        cell: one of `CELLS`.
        preset: the size.
        weights: ImageNet weights, which the dogs' network starts from.

    Raises:
        InputError: weights are needed and not given, or there is no such file.
    """
    case, size = copy.deepcopy(CELLS[cell]), PRESETS[preset]
    data = cell.partition("-")[0]
    for key, value in size.settings[data].items():
        first, _, rest = key.partition(".")
        case[first][rest] = value
        if first == "recipe" and "pretraining" in case:
            case["pretraining"][rest] = value
    if data == "dogs":
        if weights is None:
            raise InputError(f"the dogs' network starts from ImageNet weights; {WEIGHTS_REMEDY}.")
        if not weights.is_file():
            raise InputError(f"the weights {weights} do not exist; {WEIGHTS_REMEDY}.")
        case["checkpoint"] = str(weights)
    return {**case, "targets": size.targets, "victims": size.victims}


CEILING = "ceiling"

FINER, SHARED = "112 px", "victims from shared weights"

LIMITS: dict[str, dict[str, Any]] = {
    CEILING: {"budget": {"count": 0, "epsilon": 0.1}, "ceiling": {"weights": [1.0, 3.0]}},
    "as in the table": {"targets": 6, "victims": 2},
    "ε = 0.2": {"budget.epsilon": 0.2, "targets": 6, "victims": 2},
    "20 % poison": {"budget.fraction": 0.2, "targets": 6, "victims": 2},
    FINER: {"data.side": 112, "targets": 6, "victims": 1},
    SHARED: {"recipe.start": "checkpoint", "pretraining": _TRAINING, "targets": 6, "victims": 2},
}
"""What is changed, one at a time, to see what holds a cell back, on targets and victims of their own; the ceiling has no poison, and bends clean victims."""

SMALLER = ", five breeds"
"""Added to the name of a dogs' cell that is small enough for one run more for each limit."""


def _limits(preset: PresetName, weights: Path | None) -> StudyFile:
    """The ceilings of all cells, and how they depend on ε, the number of samples and the resolution."""
    tables, dogs = ([cell for cell in CELLS if cell.startswith(data)] for data in ("fractures", "dogs"))
    cases = {cell: case_of(cell, preset, weights) for cell in (*tables, *dogs)}  # minutes before an hour
    for cell in dogs:
        case = cases[cell + SMALLER] = copy.deepcopy(cases[cell])
        case["data"] = _fewer_breeds(case["data"], preset)
        case["attack"]["models"] = 2
    smaller = [cell + SMALLER for cell in dogs]
    return StudyFile(
        title="Limits",
        case=cases[tables[0]],
        grid={"case": cases, "limit": LIMITS},
        exclude=[
            {"case": dogs, "limit": [name for name in LIMITS if name != CEILING]},
            {"case": smaller, "limit": [CEILING]},
            {"case": tables, "limit": [FINER]},
            {"case": [cell for cell in cases if cell != "fractures-grad"], "limit": [SHARED]},  # the others' do anyway
        ],
    )


SCRATCH = "victims from scratch"

READINGS: dict[str, dict[str, Any]] = {
    "as we read it": {},
    "step: raw, γ = 1": {"attack.step": "raw", "attack.gamma": 1.0},
    "step: normalised": {"attack.step": "normalised"},
    "distance: none (paper)": {"attack.distance": "none"},
    "distance: max": {"attack.distance": "max"},
    "distance: minmax": {"attack.distance": "minmax"},
    "distance: mixed": {"attack.distance": "mixed"},
    "label term: plain, λ2 = 1": {"attack.hinge": None, "attack.label_weight": 1.0},
    "label term: none": {"attack.label_weight": 0.0},
    "finite difference": {"attack.form": "finite-difference"},
    "lower level: plain SGD, α": {"attack.lower": "plain"},
    "no staggering": {"attack.staggered": False, "attack.restart": False},
    "no T among the bases": {"attack.target_share": 0.0},
    "only T as base": {"attack.target_share": 1.0},
    SCRATCH: {
        "recipe.start": "scratch",
        "recipe.frozen_stages": 0,
        "recipe.epochs": 25,
        "recipe.lr": 0.05,
        "pretraining": None,
    },
    "WM, weight 0.3": {"attack": {"kind": "watermark", "weight": 0.3}},
    "WM, weight 0.5": {"attack": {"kind": "watermark", "weight": 0.5}},
    "WM, weight 0.7": {"attack": {"kind": "watermark", "weight": 0.7}},
}
"""Every reading that the paper leaves open, with the settings of a case that take another."""


def _readings(preset: PresetName) -> StudyFile:
    """One reading changed at a time, where runs are cheap."""
    cases = {name: read_yaml(embedded_cases()[name], name) for name in ("digits-cam", "breast-cancer-grad")}
    for case in cases.values():
        case["attack"] |= {"kind": "imf"}
    cases["digits-cam"]["attack"] |= {"models": 2, "epochs": 6}  # a third of the embedded case's crafting
    few = preset == "smoke"
    return StudyFile(
        title="Readings",
        case=cases["digits-cam"],
        set={"targets": 2 if few else 6, "victims": 1 if few else 2, "seed": SEED + 10},
        grid={"case": cases, "reading": dict(list(READINGS.items())[: 2 if few else None])},
        exclude=[]
        if few
        else [{"case": "breast-cancer-grad", "reading": SCRATCH}],  # its victims start from scratch anyway
    )


CHOICES: dict[str, dict[str, Any]] = {
    "as chosen": {},
    "no momentum": {"attack.momentum": 0.0},
    "no T among the bases": {"attack.target_share": 0.0},
    "half of the bases T": {"attack.target_share": 0.5},
    "distance: cosine": {"attack.distance": "cosine"},
    "weight decay of 0.0005": {"recipe.weight_decay": 0.0005},
    "class weights of the poisoned set": {"recipe.class_weights": "balanced"},
}
"""Settings of the table, one changed at a time."""


def _choices(preset: PresetName) -> StudyFile:
    """Settings of the attack on the table, on another split, other targets and other seeds than those that are reported."""
    cases = {cell: case_of(cell, preset, None) for cell in ("fractures-grad", "fractures-cam")}
    return StudyFile(
        title="Choices",
        case=cases["fractures-grad"],
        set={"targets": 6, "victims": 2, "seed": CHOICE_SEED},
        grid={"case": cases, "crafting": CHOICES},
    )


def make_smoke_data(folder: Path) -> Path:
    """Made-up data sets and weights for the preset `smoke`, in a data folder; returns the weights.

    The weights are a whole ResNet-18's, as published ones are: a fourth stage and a head that the network has no place for.
    """
    weights = folder / "resnet18.safetensors"
    if not weights.is_file():
        write_dogs(folder / "dogs", train=14, test=8)
        write_records(folder / "records.csv", rows=400)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("smoke", "weights"))
            last = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
            trunk = ResNet13(3).state_dict()
        placed = {name: value for name, value in trunk.items() if name.split(".")[0] not in {"head", "standardise"}}
        save_tensors(weights, placed | {f"layer4.{name}": value for name, value in last.state_dict().items()})
    return weights
