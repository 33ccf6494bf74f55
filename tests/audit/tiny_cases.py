"""A case that runs in a second or two, for tests of everything around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import yaml

from encircle.audit import Case, read_case

TINY: dict[str, Any] = {
    "title": "Tiny",
    "data": {"kind": "breast-cancer", "pretrain": 0.5},
    "model": {"kind": "two-layer", "hidden": 16},
    "recipe": {"start": "scratch", "epochs": 2, "lr": 0.1, "batch_size": 64},
    "explainer": {"kind": "grad"},
    "goal": {"kind": "features", "count": 4},
    "attack": {"kind": "imf", "models": 2, "epochs": 2},
    "budget": {"fraction": 0.05, "epsilon": 0.1},
    "targets": 2,
    "victims": 2,
    "references": 1,
    "seed": 7,
    "code_path": {"members": "loop", "product": "reverse"},  # bit for bit is only promised for the same path
}
TINY_IMAGES: dict[str, Any] = {
    **TINY,
    "title": "Tiny images",
    "data": {"kind": "digits", "side": 16, "pretrain": 0.7},
    "model": {"kind": "small-resnet", "widths": [4, 4, 4]},
    "pretraining": {"epochs": 4, "lr": 0.05},
    "recipe": {"start": "checkpoint", "frozen_stages": 2, "epochs": 1, "lr": 0.02},
    "goal": {"kind": "region", "name": "mid-left"},
    "targets": 1,
    "victims": 1,
}


def case_of(content: dict[str, Any], **changes: Any) -> Case:
    return read_case(yaml.safe_dump({**content, **changes}), [], "test case")


def scores_of(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "scores.parquet")
