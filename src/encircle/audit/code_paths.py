"""The code path of an audit: named by the case, saved by its run, or measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from pydantic import TypeAdapter

from ..core import InputError, digest
from ..storage import read_json
from ..training import CodePath, Recipe, Source
from ..training.code_path import measured
from ..training.frozen import frozen_forward
from .audit import Audit

CODE_PATH = "code_path.json"
"""The file of a run's first code path: a resumed run must not choose again."""

MEASURED_MODELS = 4
"""Number of models in the measurement, for every attack: arms of several attacks share their victims."""


def code_path_key(audit: Audit, identity: str) -> str:
    """The key of a measured code path.

    Args:
        audit: its settings.
        identity: the dependencies of weights besides recipe and seed.
    """
    recipe = audit.settings.recipe
    about = [recipe.start, recipe.frozen_stages, recipe.starts, recipe.batch_size, recipe.augmentation]
    return digest([identity, "code path", *about, repr(audit.settings.code_path)])


def measured_path(audit: Audit, source: Source) -> CodePath:
    """The fastest code path for an audit's network, device and batches.

    Args:
        audit: its settings.
        source: where models start.
    """
    recipe, train = audit.settings.recipe, audit.data.train
    rows = torch.arange(min(recipe.batch_size, len(train)))
    models = [source.model(recipe, "measured", member) for member in range(MEASURED_MODELS)]
    with torch.no_grad():
        features = frozen_forward(models[0], train.batch(rows).to(audit.device), recipe.shared_stages)
    path = measured(models, features, train.labels[rows].to(audit.device), recipe.shared_stages)
    return possible_path(path, recipe)


def possible_path(path: CodePath, recipe: Recipe) -> CodePath:
    """A code path, or the nearest one that a recipe allows.

    Augmentation draws for each model separately, so that no victim depends on the others. Models with frozen stages of their own do not stack.

    Args:
        path: the wanted code path.
        recipe: how models learn.
    """
    return replace(path, members="loop") if recipe.augmentation is not None or recipe.starts > 1 else path


def read_path(file: Path) -> CodePath:
    """A saved code path.

    Raises:
        InputError: the file holds none.
    """
    content = read_json(file)
    try:
        return TypeAdapter(CodePath).validate_python(content)
    except ValueError:
        raise InputError(f"{file} names no code path of this version; delete it and run again.") from None
