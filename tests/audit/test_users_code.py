"""What a user's own code raises is told as theirs, with module or function, file and line; what ours raises is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from encircle.attacks import Watermark
from encircle.audit import Audit, run_audit
from encircle.audit.users_code import users_errors
from encircle.core import InputError, StorageError
from encircle.data import TensorSamples
from encircle.explain import Grad
from encircle.goals import DesiredMap, Goal, GoalContext, Region
from encircle.threat import Budget
from encircle.training import Recipe, Source, fit

from ..any_networks import Own, conv

LABELS = torch.arange(24) % 2
IMAGES = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Tires(nn.Module):
    """Fails after some passes."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.passes, self.taken = passes, 0

    def forward(self, x: Tensor) -> Tensor:
        self.taken += 1
        if self.taken > self.passes:
            helper({})
        return x


def helper(weights: dict[str, int]) -> int:
    return weights["gamma"]


def test_a_network_that_fails_on_the_way_is_named_by_its_module() -> None:
    def build() -> nn.Module:
        return nn.Sequential(conv(), nn.Sequential(Tires(2)), nn.Flatten(), nn.Linear(8 * 49, 2))

    samples = TensorSamples(IMAGES, LABELS)
    with pytest.raises(InputError) as caught, users_errors():
        fit(Source(build), Recipe(epochs=9), samples, "victim", 0)
    words = str(caught.value)
    assert words.startswith("your own code fails in its module '1.0' (Tires) (test_users_code.py:")
    assert words.endswith("KeyError: 'gamma'; mend it there.")
    assert isinstance(caught.value.__cause__, KeyError)


class Unready(Goal):
    kind = "unready"

    def _desired(self, context: GoalContext) -> DesiredMap:
        return list(context.features)[5]  # type: ignore[return-value]


def test_a_goal_of_the_users_own(tmp_path: Path) -> None:
    data = TensorDataset(IMAGES, LABELS)
    settings: dict[str, Any] = {"recipe": Recipe(epochs=1), "explainer": Grad(grid=(4, 4)), "budget": Budget(count=2)}
    audit = Audit.of(Own, data, data, classes=["a", "b"], goal=Unready(), attack=Watermark(), **settings)
    with pytest.raises(
        InputError, match=r"your own code fails in Unready._desired \(test_users_code.py:\d+\): IndexError"
    ):
        run_audit(audit, tmp_path)


class Fades(Dataset[tuple[Tensor, int]]):
    """Cannot be read any more after a while."""

    def __init__(self, reads: int) -> None:
        self.reads = reads

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        self.reads -= 1
        if self.reads < 0:
            raise ConnectionResetError("the volume is gone")
        return IMAGES[row], int(LABELS[row])


def test_a_data_set_that_fails_on_the_way_is_named_by_its_row(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"recipe": Recipe(epochs=50), "explainer": Grad(grid=(4, 4)), "budget": Budget(count=2)}
    audit = Audit.of(Own, Fades(400), TensorDataset(IMAGES, LABELS), classes=["a", "b"], goal=Region(), **settings)
    with pytest.raises(InputError, match=r"item \d+ of your data set cannot be read \(.*the volume is gone"):
        run_audit(audit, tmp_path)


def test_what_is_ours_passes_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), users_errors():
        1 / 0  # noqa: B018 - of no network, data set or plug-in
    with pytest.raises(StorageError, match="the disk"), users_errors():
        raise StorageError("the disk.")
    with pytest.raises(KeyboardInterrupt), users_errors():
        raise KeyboardInterrupt
    with pytest.raises(MemoryError), users_errors():
        Own().register_forward_hook(_out_of_memory)  # of whatever: it is no fault of a network
        raise MemoryError


def _out_of_memory(*_: object) -> None:
    raise MemoryError
