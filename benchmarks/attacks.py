"""What each attack's crafting costs beside IMF's: the same surrogates, poison and iterations, from repeats in turn."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import in_turn, ratios, save, say
from benchmarks.networks import SIZES, path_of, problem_of
from encircle.attacks import IMF, FeatureEncirclement, GradientMatching, Influence, Unrolled, Watch
from encircle.threat import Budget

REPEATS = 3
MODELS = 4
NETWORKS = ("table", "small-32", "small-32-frozen", "resnet13-64-frozen")
ATTACKS = (IMF, Influence, GradientMatching, Unrolled, FeatureEncirclement)


def costs(name: str, explainer: str) -> dict[str, Any]:
    """Times of IMF's crafting, for each attack."""
    size = SIZES[name]
    problem = problem_of(size, explainer, path=path_of(size, MODELS), clean=4 * size.batch)
    budget = Budget(count=size.poisons - 1)

    def crafting(attack: Any) -> Callable[[], Any]:
        return lambda: attack(problem, budget, torch.Generator().manual_seed(0), Watch())

    settings = {"models": MODELS, "epochs": 1, "restart": False, "staggered": False, "target_share": 0.0}
    spent = in_turn([crafting(kind(**settings, other_share=0.25)) for kind in ATTACKS], REPEATS)
    over_imf = {kind.title: ratios(own, spent[0]) for kind, own in zip(ATTACKS[1:], spent[1:], strict=True)}
    say(f"{size.title}, {explainer}: {over_imf}")
    return {"network": name, "title": size.title, "explainer": explainer, "K": MODELS, "over IMF": over_imf}


def main() -> None:
    """Measure, print and save."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    save("attacks", "make bench", [costs(name, explainer) for name in NETWORKS for explainer in ("CAM", "GRAD")])


if __name__ == "__main__":
    main()
