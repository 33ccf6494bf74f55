"""How well the recipes of the reproduction classify; writes results/kdd21/recipe.json.

    ENCIRCLE_DATA=... python tools/recipes.py --weights WEIGHTS [--side 64] [--seeds 3]

On ten breeds beside a linear probe on the same frozen trunk; on fractures with and without weights of the classes.

Rates and lengths of training are tried on a fifth of the training part (`--try`); what is written is read on the whole test split.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from encircle.data import Samples, StanfordDogs, TableFile
from encircle.models import ResNet13, TwoLayerNet, fitting
from encircle.reproduce.kdd21 import CELLS, CHOICE_SEED, EVERYTHING
from encircle.seeds import generator
from encircle.storage import read_json, write_json
from encircle.training import Recipe, Source, correct, read_weights
from encircle.training.fit import fit_on_features
from encircle.training.frozen import frozen_samples

HERE = Path(__file__).resolve().parent.parent
OUT = HERE / "results" / "kdd21" / "recipe.json"

ADAM = Recipe(start="checkpoint", batch_norm="frozen", epochs=10, optimiser="adam", schedule="cosine")
RECIPES = {
    "conv1 to layer2 frozen": replace(ADAM, frozen_stages=3, lr=0.001),
    "everything fine-tuned": replace(ADAM, **EVERYTHING),
}


@torch.no_grad()
def pooled_features(model: ResNet13, samples: Samples) -> np.ndarray:
    """What the head sees of each sample."""
    return torch.cat([model.features(chunk).mean(dim=(2, 3)) for chunk in samples.chunks()]).numpy()


def probe(weights: dict[str, torch.Tensor], train: Samples, test: Samples, strength: float) -> float:
    """Accuracy of a logistic regression on the frozen trunk's pooled features."""
    model = ResNet13(10).eval()
    model.load_state_dict(fitting(weights, model)[0], strict=False)
    regression = LogisticRegression(C=strength, max_iter=5000)
    regression.fit(pooled_features(model, train), train.labels.numpy())
    return float(regression.score(pooled_features(model, test), test.labels.numpy()))


def fine_tuned(
    weights: dict[str, torch.Tensor], recipe: Recipe, classes: int, train: Samples, test: Samples, seeds: int
) -> tuple[list[float], float]:
    """Accuracies of victims of several seeds, and seconds of training a victim once what its frozen stages see is known."""
    source, accuracies = Source(lambda: ResNet13(classes), weights), []
    trunk = source.model(recipe, "victim", 0)
    train_features, test_features = (frozen_samples(trunk, part, recipe.frozen_stages) for part in (train, test))
    started = time.perf_counter()
    models = fit_on_features(source, recipe, train_features, "victim", range(seeds))
    seconds = (time.perf_counter() - started) / seeds
    accuracies = [float(correct(model, test_features, recipe.frozen_stages).float().mean()) for model in models]
    return accuracies, seconds


def fractures(seeds: int) -> dict[str, dict[str, object]]:
    """Accuracy, balanced accuracy and area under the curve on the test part, with and without weights of the classes."""
    case = CELLS["fractures-grad"]
    data = TableFile(**{key: value for key, value in case["data"].items() if key != "kind"}).load(CHOICE_SEED)
    weighted = Recipe(**case["recipe"])
    inputs, labels = data.test.batch(torch.arange(len(data.test))), data.test.labels.numpy()
    measured: dict[str, dict[str, object]] = {}
    for name, recipe in (("classes weighed", weighted), ("unweighed", replace(weighted, class_weights=None))):
        source = Source(lambda: TwoLayerNet(len(data.features), len(data.classes)))
        scores: dict[str, list[float]] = {"accuracy": [], "balanced accuracy": [], "area under the curve": []}
        for model in fit_on_features(source, recipe, data.train, "victim", range(seeds)):
            with torch.no_grad():
                positive = model(inputs).softmax(dim=1)[:, 1].numpy()
            scores["accuracy"].append(float(((positive > 0.5) == labels).mean()))
            scores["balanced accuracy"].append(float(balanced_accuracy_score(labels, positive > 0.5)))
            scores["area under the curve"].append(float(roc_auc_score(labels, positive)))
        measured[name] = dict(scores)
    return measured


def main() -> None:
    """Try recipes, or write how good the chosen ones are."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--try", dest="trying", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights = read_weights(arguments.weights)
    data = StanfordDogs(folder="stanford-dogs-10", side=arguments.side).load(0)
    train, test = data.train, data.test
    if arguments.trying:
        order = torch.randperm(len(train), generator=generator("recipe", 0))
        train, test = train.subset(order[200:]), train.subset(order[:200])
        for strength in (0.1, 1.0, 10.0):
            print(f"probe, C = {strength}: {probe(weights, train, test, strength):.3f}", flush=True)  # noqa: T201
        for frozen in (3, 0):
            for optimiser, rates in (("sgd", (0.003, 0.01, 0.03)), ("adam", (0.00003, 0.0001, 0.0003, 0.001))):
                for epochs in (6, 10):
                    for rate in rates:
                        recipe = Recipe(
                            start="checkpoint",
                            frozen_stages=frozen,
                            batch_norm="frozen",
                            epochs=epochs,
                            lr=rate,
                            schedule="cosine",
                            optimiser=optimiser,
                        )
                        scores, seconds = fine_tuned(weights, recipe, len(data.classes), train, test, 1)
                        print(recipe, f"{scores[0]:.3f}, {seconds:.1f} s", flush=True)  # noqa: T201
        return
    measured = {"linear probe on the frozen trunk": {"accuracy": [probe(weights, train, test, 1.0)]}}
    for name, recipe in RECIPES.items():
        scores, seconds = fine_tuned(weights, recipe, len(data.classes), train, test, arguments.seeds)
        measured[name] = {"accuracy": scores, "seconds a victim": round(seconds, 1)}
        print(name, measured[name], flush=True)  # noqa: T201
    known = read_json(OUT) if OUT.is_file() else {}
    known |= {f"dogs, {arguments.side} px": measured, "fractures": fractures(arguments.seeds)}
    write_json(OUT, known)


if __name__ == "__main__":
    main()
