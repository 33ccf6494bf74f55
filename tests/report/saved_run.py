"""Synthetic run folders, true to docs/run-folder.md, written without running an audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import yaml
from safetensors.numpy import save_file

HOSTILE = "<script>alert(1)</script>"
ARMS = {
    "clean": "Clean",
    "base": "Unperturbed bases",
    "noise": "Random noise",
    "watermark": "Watermark (WM)",
    "watermark-projected": "Watermark within the budget",
    "imf": "Influence (IMF)",
}
SHIFT = {"clean": 0.0, "base": -0.01, "noise": 0.02, "watermark": 0.05, "watermark-projected": 0.03, "imf": 0.34}


def write_run(
    folder: Path,
    *,
    kind: Literal["image", "table"] = "image",
    explainer: Literal["GRAD", "CAM"] = "CAM",
    verdict: str = "FAIL",
    demonstration: bool = False,
    targets: int = 2,
    victims: int = 3,
    undefined: bool = False,
    resolvable: bool = True,
    hostile: bool = False,
    size: int = 24,
    grid: int = 8,
    channels: int = 1,
    units: int = 48,
    title: str | None = None,
) -> Path:
    """A run whose attack works: scores, maps, poison and history that fit together roughly."""
    rng = np.random.default_rng(len(kind) * 100 + len(explainer) * 10 + targets)
    name = HOSTILE if hostile else ("digits" if kind == "image" else "breast-cancer")
    rows = [int(row) for row in rng.choice(300, size=targets, replace=False)]
    classes = [f"class {k}{HOSTILE if hostile else ''}" for k in range(3)]
    features = [f"{'worst ' if k % 2 else 'mean '}measure number {k}{HOSTILE if hostile else ''}" for k in range(30)]
    scores = _scores(rng, rows, victims, undefined)

    folder.mkdir(parents=True)
    scores.write_parquet(folder / "scores.parquet")
    _poisons(rows).write_parquet(folder / "poisons.parquet")
    _history(rng, rows).write_parquet(folder / "history.parquet")
    if kind == "image":
        maps = _image_maps(rng, rows, victims, size=size, grid=grid, channels=channels, full=explainer == "GRAD")
    else:
        maps = _table_maps(rng, rows, victims, units=None if explainer == "GRAD" else units)
    save_file(maps, folder / "maps.safetensors")
    case = {
        "data": {"name": name, "seed": 7},
        "explainer": explainer.lower(),
        "goal": {"rule": "region", "where": f"mid-left{HOSTILE if hostile else ''}"},
        "budget": {"fraction": 0.1, "epsilon": 0.1},
        "victims": victims,
    }
    (folder / "case.yaml").write_text(yaml.safe_dump(case), encoding="utf-8")
    environment = {
        "versions": {"encircle": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "python": "3.11.2",
        "platform": "Linux-6.1-x86_64",
        "threads": 2,
        "device": "cpu",
        "commit": None,
        "results_version": 1,
        "run_id": "4f3a9c0d12ab",
        "seconds": {"prepare": 1.2, "craft": 184.0, "victims": 640.5, "explain": 12.0},
        "data": {
            "name": name,
            "kind": kind,
            "space": "grid" if kind == "image" else "columns" if explainer == "GRAD" else "units",
            "fingerprint": "sha256:9b2f0c4a7d3e5b6f8a1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6",
            "train": 1200,
            "validation": 100,
            "test": 300,
            "pretrain": 0,
            "classes": classes,
            "features": features if kind == "table" else [],
            "shape": [channels, size, size] if kind == "image" else [30],
        },
        "targets": [{"row": row, "label": k % 3, "class_name": classes[k % 3]} for k, row in enumerate(rows)],
        "title": f"{name}, {explainer}" if title is None else title,
    }
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    judged = {
        "verdict": verdict,
        "sentence": "The explanation can be bent: the attack moved it +0.34 (Jaccard) towards the attacker's map, "
        f"and 95% of the victims kept the prediction.{HOSTILE if hostile else ''}",
        "advice": [
            f"Freeze the layers below the explained one, or train from scratch.{HOSTILE if hostile else ''}",
            "Compare the explanations of two models trained on different halves of the data before you rely on either.",
        ],
        "demonstration": demonstration,
        "attack": "imf",
        "threshold": 0.1,
        "targets": targets,
        "victims": victims,
        "label_kept": 0.95,
        "smallest_detectable_shift": None if demonstration else 0.06,
        "case": {
            "data": name,
            "model": "resnet13",
            "explainer": explainer,
            "goal": f"mid-left{HOSTILE if hostile else ''}",
            "budget": "10 % of the training data, every value within 0.1",
            "start": "pre-trained, early stages frozen",
        },
        "arms": [_arm(arm, demonstration, undefined) for arm in ARMS],
        "accuracy_resolvable": resolvable,
        "held_out": 300,
    }
    (folder / "verdict.json").write_text(json.dumps(judged), encoding="utf-8")
    return folder


def _arm(arm: str, demonstration: bool, undefined: bool) -> dict[str, Any]:
    def estimate(mean: float | None, width: float) -> dict[str, float | None]:
        if mean is None or demonstration:
            return {"mean": mean, "low": None, "high": None}
        return {"mean": mean, "low": mean - width, "high": mean + width}

    shift = SHIFT[arm]
    lost = undefined and arm == "noise"
    return {
        "arm": arm,
        "title": ARMS[arm],
        "jaccard": estimate(None if lost else 0.12 + shift, 0.05),
        "l1": estimate(0.44 - shift / 4, 0.03),
        "jaccard_change": estimate(float("nan") if lost else shift, 0.04),
        "l1_change": estimate(-shift / 4, 0.02),
        "label_kept": estimate(0.95, 0.04),
        "accuracy": estimate(0.964, 0.01),
        "accuracy_change": estimate(-0.004 if shift else 0.0, 0.006),
        "drift": estimate(0.1 * shift, 0.01),
    }


def _scores(rng: np.random.Generator, rows: list[int], victims: int, undefined: bool) -> pl.DataFrame:
    table = []
    for row in rows:
        for arm, shift in SHIFT.items():
            for seed in range(victims * (2 if arm == "clean" else 1)):
                wobble = float(rng.normal(0, 0.02))
                gone = float("nan") if undefined and seed == 0 else None
                kept = not (arm == "imf" and seed == victims - 1)
                table.append(
                    {
                        "target": row,
                        "arm": arm,
                        "seed": seed,
                        "victim_class": 0 if kept else 1,
                        "jaccard": 0.12 + shift + wobble if gone is None else gone,
                        "jaccard_soft": 0.2 + shift + wobble,
                        "l1": 0.44 - shift / 4 + wobble if gone is None else gone,
                        "cosine": 0.3 + shift,
                        "spearman": 0.2 + shift,
                        "ssim": 0.1 + shift,
                        "topk": 0.2 + shift,
                        "pointing": float(shift > 0.1),
                        "mass_goal": 0.25 + shift,
                        "mass_box": None,
                        "label_kept": None if undefined and seed == 0 else kept,
                        "probability": 0.9,
                        "accuracy": 0.964,
                        "drift": 0.1 * abs(shift),
                    }
                )
    return pl.DataFrame(
        table, schema_overrides={"mass_box": pl.Float64, "label_kept": pl.Boolean}, infer_schema_length=None
    )


def _poisons(rows: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "target": row,
                "arm": arm,
                "count": 120,
                "share_of_set": 0.1,
                "share_of_class": 0.31,
                "linf": 0.0 if arm == "base" else 0.8 if arm == "watermark" else 0.098,
                "l2": 0.0 if arm == "base" else 1.7,
                "psnr": None if arm == "base" else 23.4,
                "bounded": arm != "watermark",
            }
            for row in rows
            for arm in ARMS
            if arm != "clean"
        ]
    )


def _history(rng: np.random.Generator, rows: list[int], iterations: int = 200, members: int = 3) -> pl.DataFrame:
    table = []
    for row in rows:
        for iteration in range(iterations):
            for member in range(members):
                upper = 0.2 + 0.9 * np.exp(-iteration / 40) + float(rng.normal(0, 0.03)) + 0.05 * member
                table.append(
                    {
                        "target": row,
                        "iteration": iteration,
                        "epoch": iteration / 8,
                        "member": member,
                        "upper": upper,
                        "distance": upper - 0.05,
                        "label": 0.05,
                        "lower": 0.1 + 1.8 * np.exp(-iteration / 25) + float(rng.normal(0, 0.05)),
                    }
                )
    return pl.DataFrame(table)


def _smooth(rng: np.random.Generator, grid: int) -> np.ndarray:
    y, x = np.mgrid[0:grid, 0:grid] / grid
    cy, cx = rng.uniform(0.5, 0.8, size=2)
    return np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.05) + rng.normal(0, 0.05, (grid, grid))


def _digit(rng: np.random.Generator, channels: int, size: int) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] / size
    ring = np.exp(-((np.hypot(y - 0.5, x - 0.5) - 0.3) ** 2) / 0.004)
    tint = rng.uniform(0.6, 1.0, size=(channels, 1, 1))
    return np.clip(ring[None] * tint + 0.05 * rng.random((channels, size, size)), 0, 1)


def _image_maps(
    rng: np.random.Generator, rows: list[int], victims: int, *, size: int, grid: int, channels: int, full: bool
) -> dict[str, np.ndarray]:
    maps = {}
    for row in rows:
        goal = np.zeros((grid, grid))
        goal[grid // 4 : grid - grid // 4, : grid // 2] = 1
        maps[f"{row}/goal"], maps[f"{row}/mask"] = goal, np.ones((grid, grid))
        maps[f"{row}/input"] = _digit(rng, channels, size)
        for arm, shift in SHIFT.items():
            for seed in range(victims * (2 if arm == "clean" else 1)):
                maps[f"{row}/{arm}/{seed}"] = (1 - 2 * shift) * _smooth(rng, grid) + 2.5 * shift * goal
                if full:
                    maps[f"{row}/{arm}/{seed}/full"] = 1e-6 * rng.random((size, size))
            if arm != "clean":
                base = _digit(rng, channels, size)
                maps[f"{row}/{arm}/base"] = base
                maps[f"{row}/{arm}/poison"] = np.clip(base + 0.098 * np.sign(rng.normal(size=base.shape)), 0, 1)
    return {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in maps.items()}


def _table_maps(rng: np.random.Generator, rows: list[int], victims: int, *, units: int | None) -> dict[str, np.ndarray]:
    maps = {}
    count = units or 30
    for row in rows:
        goal = rng.random(count) ** 4
        maps[f"{row}/goal"], maps[f"{row}/mask"] = goal, np.ones(count)
        maps[f"{row}/input"] = rng.random(30)
        clean = rng.random(count) ** 3
        for arm, shift in SHIFT.items():
            for seed in range(victims * (2 if arm == "clean" else 1)):
                maps[f"{row}/{arm}/{seed}"] = clean + 0.05 * rng.random(count) + 3 * shift * goal
            if arm != "clean":
                base = rng.random(30)
                step = np.where(rng.random(30) < 0.7, 0.098 * np.sign(rng.normal(size=30)), 0)
                maps[f"{row}/{arm}/base"], maps[f"{row}/{arm}/poison"] = base, np.clip(base + step, 0, 1)
    return {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in maps.items()}
