"""Whether decoding holds up training: `ENCIRCLE_DATA=... python tools/dogs_decoding.py`; prints milliseconds a picture.

Decoding is timed with nothing kept, a training step of resnet13 on the same pictures beside it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from encircle.data import PictureFiles, StanfordDogs
from encircle.models import ResNet13
from encircle.training import Learner, Recipe

BATCH = 64


def milliseconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """Median time a picture."""
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        spent.append(1000 * (time.perf_counter() - started) / BATCH)
    return statistics.median(spent)


def at(side: int) -> tuple[float, float]:
    """Milliseconds of decoding a picture and of learning from it."""
    data = StanfordDogs(folder="stanford-dogs-10", side=side).load(0)
    if not isinstance(data.train, PictureFiles):
        sys.exit("the dogs are not read from files")
    rows = torch.arange(0, len(data.train), len(data.train) // BATCH)[:BATCH]
    fresh = PictureFiles(data.train.paths, data.train.labels, side, kept=0)
    learner = Learner(ResNet13(len(data.classes)).to(memory_format=torch.channels_last), Recipe(), 100)
    inputs, labels = fresh.batch(rows), data.train.labels[rows]
    return milliseconds(lambda: fresh.batch(rows)), milliseconds(lambda: learner.step(inputs, labels))


def main() -> None:
    """Decode and train at three sizes."""
    for side in (64, 112, 224):
        read, learnt = at(side)
        sys.stdout.write(f"{side} px: decoding {read:.1f} ms a picture, a training step {learnt:.1f} ms a picture\n")


if __name__ == "__main__":
    main()
