"""What a crafting iteration costs as things grow: slopes on log axes, from one process with all sizes in turn.

A slope of 0 is no growth, 1 is in proportion. The cost of an iteration must not depend on the size of the clean set.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.measure import in_turn, save, say
from benchmarks.networks import SIZES, Size, path_of, problem_of
from encircle.attacks import IMF, Watch
from encircle.threat import Budget

REPEATS = 3
BASE = replace(SIZES["small-32"], batch=32, poisons=32)


class _Enough(Exception):  # noqa: N818 - not an error
    pass


def iterations(size: Size, members: int, clean: int, count: int) -> Callable[[], None]:
    """Iterations of a crafting that is set up before.

    Args:
        size: of the network and its data.
        members: number of surrogates.
        clean: number of clean samples.
        count: number of iterations.

    Returns:
        A function that runs them.
    """
    problem = problem_of(size, "CAM", clean=clean, path=path_of(size, members))
    imf = IMF(models=members, epochs=1000, restart=False, staggered=False, target_share=0.0)
    # A few are warm-up, and the first of an epoch compares the forms: an epoch is longer than what is measured.
    bases = {"made": problem.ensemble(members, False)}
    object.__setattr__(problem, "ensemble", lambda members, staggered: bases["made"])

    def run() -> None:
        def enough(done: int, planned: int) -> None:
            if done == count:
                raise _Enough

        try:
            imf(problem, Budget(count=size.poisons), torch.Generator().manual_seed(0), Watch(progress=enough))
        except _Enough:
            return

    return run


def slope(values: Sequence[int], make: Callable[[int], tuple[Size, int, int]]) -> dict[str, Any]:
    """Seconds an iteration at each value, and the slope of their logarithms.

    The time of three iterations is taken from that of six: setting up costs the same for both.
    """
    works = [iterations(*make(value), count) for value in values for count in (3, 6)]
    medians = [statistics.median(times) for times in in_turn(works, REPEATS)]
    times = [(six - three) / 3 for three, six in zip(medians[::2], medians[1::2], strict=True)]
    fitted = np.polyfit(np.log(values), np.log(times), 1)[0]
    return {
        "at": list(values),
        "milliseconds an iteration": [round(1000 * time, 2) for time in times],
        "slope": round(float(fitted), 2),
    }


def main() -> None:
    """Measure, print and save."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    kinds: dict[str, tuple[Sequence[int], Callable[[int], tuple[Size, int, int]]]] = {
        "number of poisons": ((16, 32, 64, 128), lambda n: (replace(BASE, poisons=n), 2, 512)),
        "models K": ((1, 2, 4, 8), lambda k: (BASE, k, 512)),
        "models K, two-layer network": ((1, 2, 4, 8), lambda k: (SIZES["table"], k, 512)),
        "pixels": (
            (16 * 16, 32 * 32, 64 * 64),
            lambda n: (replace(BASE, shape=(1, round(n**0.5), round(n**0.5))), 2, 512),
        ),
        "size of the clean set": ((512, 2048, 8192), lambda n: (BASE, 2, n)),
    }
    figures = {}
    for name, (values, make) in kinds.items():
        figures[name] = slope(values, make)
        say(f"{name}: {figures[name]}")
    save("growth", "make bench", figures)


if __name__ == "__main__":
    main()
