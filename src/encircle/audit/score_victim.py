"""Scores of a victim: its explanation against the desired map, its accuracy, its collateral drift."""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from ..defences import Defence
from ..goals import cells
from ..scoring import cosine, score
from ..seeds import generator
from ..training import correct
from .audit import Audit
from .draw_targets import Target
from .models import ModelStore
from .step_results import Arrays

DRIFT_SAMPLES = 32
"""Number of other test samples for collateral drift."""


@final
class VictimScorer:
    """Scores the victims of one defence, against clean victims under the same defence.

    Args:
        audit: its settings.
        models: the clean victims under the defence.
        defence: the defence for explanations.
    """

    def __init__(self, audit: Audit, models: ModelStore, defence: Defence) -> None:
        self._audit = audit
        self._models = models.under(defence)
        self._explainer = defence.explainer(audit.settings.explainer)
        self._clean_maps: dict[int, list[np.ndarray[Any, Any]]] = {}
        self._clean_right: dict[int, list[Tensor]] = {}

    def __call__(self, target: Target, arm: str, seed: int, model: nn.Module) -> tuple[Arrays, dict[str, Any]]:
        """The maps and the row of the scores' table of one victim.

        Args:
            target: the explained sample.
            arm: the key of the victim's arm.
            seed: the victim's number.
            model: the victim.
        """
        explanation = self._explainer.explain(model, target.input, target.chosen)
        scored, picture = as_array(explanation.maps[0]), as_array(explanation.pictures[0])
        probabilities = explanation.logits.softmax(dim=1)[0]
        row = {
            "target": target.row,
            "arm": arm,
            "seed": seed,
            "victim_class": int(probabilities.argmax()),
            **score(scored, target.desired.values.numpy(), target.mask, self._box(target.row, scored.shape)),
            "label_kept": bool(probabilities.argmax() == target.label),
            "probability": float(probabilities[target.label]),
            "accuracy": self.accuracy(target, seed, model),
            "drift": self._drift(target, seed, model),
        }
        maps: Arrays = {f"{target.row}/{arm}/{seed}": scored}
        if picture.shape != scored.shape and seed == 0:
            maps[f"{target.row}/{arm}/{seed}/full"] = picture
        return maps, row

    def accuracy(self, target: Target, seed: int, model: nn.Module) -> float:
        """A victim's accuracy on all held-out rows but the target.

        Args:
            target: left out.
            seed: the victim's number.
            model: the victim.
        """
        if model is self._models.clean_model("victim", seed):  # the same for every target
            if seed not in self._clean_right:
                self._clean_right[seed] = self._right(model)
            right = self._clean_right[seed]
        else:
            right = self._right(model)
        total = sum(int(part.sum()) for part in right) - int(right[-1][target.row])
        return total / (sum(len(part) for part in right) - 1)

    def _right(self, model: nn.Module) -> list[Tensor]:
        frozen = self._models.recipe.shared_stages
        return [correct(model, part, frozen) for part in self._models.views.held_out()]

    def _box(self, row: int, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        box = self._audit.data.boxes.get(row)
        return None if box is None or len(shape) != 2 else cells(box, (shape[0], shape[1])).numpy() > 0

    def _drift(self, target: Target, seed: int, model: nn.Module) -> float:
        """Collateral drift: mean over other test samples of one minus the cosine to the clean victim's map."""
        is_clean = model is self._models.clean_model("victim", seed)
        maps = self._clean_watched(seed) if is_clean else self._watched_maps(model)
        pairs = zip(self._watched, maps, self._clean_watched(seed % self._audit.settings.victims), strict=True)
        distances = np.array([1 - cosine(bent, clean) for row, bent, clean in pairs if row != target.row])
        return float(np.nanmean(distances)) if np.isfinite(distances).any() else float("nan")

    def _clean_watched(self, seed: int) -> list[np.ndarray[Any, Any]]:
        if seed not in self._clean_maps:
            self._clean_maps[seed] = self._watched_maps(self._models.clean_model("victim", seed))
        return self._clean_maps[seed]

    @cached_property
    def _watched(self) -> list[int]:
        order = torch.randperm(len(self._audit.data.test), generator=generator("watched", self._audit.settings.seed))
        return sorted(int(row) for row in order[:DRIFT_SAMPLES])

    def _watched_maps(self, model: nn.Module) -> list[np.ndarray[Any, Any]]:
        rows, test, device = torch.tensor(self._watched), self._audit.data.test, self._audit.device
        maps = self._explainer.attribute(model, test.batch(rows).to(device), test.labels[rows].to(device))
        return [as_array(values) for values in maps]


def as_array(values: Tensor) -> np.ndarray[Any, Any]:
    """A tensor as float32 in NumPy."""
    return values.detach().cpu().numpy().astype(np.float32)
