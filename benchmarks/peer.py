"""Seconds a visit of a poison sample: ART's GradientMatchingAttack over our cosine form.

Network, poison count and number of visits are the same. Runs in an environment of its own (`make bench-peer`), in which encircle and
adversarial-robustness-toolbox are installed beside each other, so that both are timed in one process and in turn. The time of a few epochs is taken
from that of many: setting up is not compared. Both visit every poison sample once an epoch, in batches of the same size, and move it by the sign of the
gradient of the cosine between the batch's gradient and the attack's.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import in_turn, ratios, save, say, summary
from benchmarks.networks import CLASSES, SIZES, Size, build, samples_of
from encircle.threat import Budget, Legal
from encircle.training.derivatives import mixed_product

REPEATS = 5
FEW, MANY = 2, 8


def matching(model: nn.Module, leaf: Tensor, labels: Tensor, wanted: list[Tensor]) -> Tensor:
    """∇_X cos(∇_θ L(X), g), which needs no gradient of a parameter's gradient in the parameters.

    Args:
        model: in eval mode.
        leaf: X.
        labels: of X.
        wanted: g, an entry for each parameter.
    """
    learnt = list(model.parameters())
    slopes = torch.autograd.grad(F.cross_entropy(model(leaf), labels), learnt, create_graph=True)
    inner = sum((slope * part).sum() for slope, part in zip(slopes, wanted, strict=True))
    norms = [sum((part**2).sum() for part in vector) ** 0.5 for vector in (slopes, wanted)]  # type: ignore[operator]
    return torch.autograd.grad(inner / (norms[0] * norms[1]), leaf)[0]


def product(model: nn.Module, leaf: Tensor, labels: Tensor, wanted: list[Tensor]) -> Tensor:
    """∇_X ⟨∇_θ L(X), g⟩, IMF's default form, forward over reverse.

    Args:
        model: as for `matching`.
        leaf: likewise.
        labels: likewise.
        wanted: likewise.
    """
    return mixed_product(model, leaf, labels, wanted, 0, "forward")


def ours(model: nn.Module, form: Any, base: Tensor, labels: Tensor, trigger: Tensor, epochs: int) -> Tensor:
    """Poison after some epochs of one of our forms.

    Args:
        model: in eval mode.
        form: `matching` or `product`.
        base: the bases.
        labels: of the bases, all of one class.
        trigger: the target.
        epochs: how many.
    """
    label, budget = labels[:1], Budget(count=1, epsilon=0.1)
    wanted = list(torch.autograd.grad(F.cross_entropy(model(trigger), label), list(model.parameters())))
    poison = base.clone()
    for _ in range(epochs):
        delta = form(model, poison.requires_grad_(), labels, wanted)
        poison = budget.project(poison.detach() + 0.01 * delta.sign(), base, Legal())
    return poison


def art(model: nn.Module, size: Size, base: Tensor, labels: Tensor, trigger: Tensor, epochs: int) -> Any:
    """Poison after some epochs of ART's attack.

    Args:
        model: in eval mode.
        size: of the network and its data.
        base: as for `ours`.
        labels: likewise.
        trigger: likewise.
        epochs: likewise.
    """
    attacks, classification = import_module("art.attacks.poisoning"), import_module("art.estimators.classification")
    classifier = classification.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), size.shape, CLASSES, torch.optim.SGD(model.parameters(), 0.01), clip_values=(0, 1)
    )
    attack = attacks.GradientMatchingAttack(
        classifier, percent_poison=1.0, epsilon=0.1, max_trials=1, max_epochs=epochs, batch_size=len(base), verbose=0
    )
    return attack.poison(trigger.numpy(), labels[:1].numpy(), base.numpy(), labels.numpy())


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=["small-32", "resnet13-64"])
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in wanted.networks:
        size = SIZES[name]
        torch.manual_seed(0)
        model = build(size).eval()
        base = samples_of(size, size.poisons).inputs
        labels, trigger = torch.zeros(len(base), dtype=torch.int64), samples_of(size, size.poisons + 1).inputs[-1:]
        fast = copy.deepcopy(model).to(memory_format=torch.channels_last)  # as the library's models are
        works = [
            partial(ours, fast, form, base, labels, trigger, e) for form in (matching, product) for e in (FEW, MANY)
        ]
        works += [partial(art, model, size, base, labels, trigger, e) for e in (FEW, MANY)]
        spent = np.array(in_turn(works, REPEATS))
        visits = (MANY - FEW) * len(base)
        cosine, inner, other = ((spent[2 * n + 1] - spent[2 * n]) / visits for n in range(3))
        rows.append(
            {
                "network": name,
                "title": size.title,
                "poisons": len(base),
                "theirs over our cosine form": ratios(list(other), list(cosine)),
                "theirs over our inner product": ratios(list(other), list(inner)),
                "milliseconds a visit, cosine": summary(list(1000 * cosine)),
                "milliseconds a visit, inner product": summary(list(1000 * inner)),
                "milliseconds a visit, theirs": summary(list(1000 * other)),
                "peer": f"adversarial-robustness-toolbox {metadata.version('adversarial-robustness-toolbox')}",
            }
        )
        say(f"{size.title}: {rows[-1]}")
    save("peer", "make bench-peer", rows)


if __name__ == "__main__":
    main()
