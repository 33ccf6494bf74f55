"""What the preset `paper` would take; writes results/kdd21/paper.json: `python tools/paper_cost.py [--teraflops 20]`.

Operations are counted by torch on a training pass at the full size (120 breeds, 224 px, everything fine-tuned) and multiplied by how often the preset
does each. Pictures are random: operations do not depend on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from encircle.attacks import IMF
from encircle.models import ResNet13
from encircle.reproduce.kdd21 import CELLS, PRESETS
from encircle.storage import write_json
from encircle.training.batches import steps_per_epoch
from encircle.training.frozen import trainable

HERE = Path(__file__).resolve().parent.parent
OUT = HERE / "results" / "kdd21" / "paper.json"
PICTURES, TRAINING_SHARE, BREEDS, FEW = 20_580, 0.9, 120, 4

SECOND = 2
"""Supposed, not counted: passes of training that a second derivative of a sample is worth, in δ of the poison and in L_adv of the target."""


def operations(work: Callable[[], object]) -> float:
    """Floating-point operations."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def main() -> None:
    """Count, multiply, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--teraflops", type=float, default=20.0, help="what the machine sustains")
    speed = parser.parse_args().teraflops * 1e12
    size, recipe = PRESETS["paper"], CELLS["dogs-cam"]["recipe"]
    settings = {
        key.partition(".")[2]: value for key, value in size.settings["dogs"].items() if key.startswith("attack")
    }
    attack = IMF(**{**{key: value for key, value in CELLS["dogs-cam"]["attack"].items() if key != "kind"}, **settings})
    side, batch = size.settings["dogs"]["data.side"], 64
    model = ResNet13(BREEDS).eval()
    rows, labels = torch.rand(FEW, 3, side, side), torch.arange(FEW)

    def train() -> object:
        return torch.autograd.grad(F.cross_entropy(model(rows), labels), trainable(model))

    step = operations(train) / FEW
    clean = int(PICTURES * TRAINING_SHARE)
    poison = int(0.1 * clean)
    iterations = attack.epochs * steps_per_epoch(clean + poison, batch)
    share = poison / (clean + poison) * batch if attack.poison_batch == "batch" else poison
    work = []
    for title in ("GRAD", "CAM"):
        crafting = attack.models * iterations * step * (batch + SECOND * (share + 1))
        work.append((f"crafting, {title}", size.targets, crafting / speed))
    victim = step * (clean + poison) * recipe["epochs"]
    shared, own = 2, 3  # arms that know no explainer; WM twice and IMF
    work.append(("victims", size.targets * size.victims * (shared + 2 * own), victim / speed))
    work.append(("clean victims and the attacker's models", 2 * size.victims + 2 + attack.models // 2, victim / speed))
    write_json(OUT, {"teraflops": speed / 1e12, "work": work})


if __name__ == "__main__":
    main()
