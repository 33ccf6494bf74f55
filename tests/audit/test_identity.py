"""What tells settings and weights of the user's own apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from encircle.audit.identity import digest_of_weights, settings_of
from encircle.core import InputError


class Mine:
    def __init__(self, value: object) -> None:
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def _large(at: int) -> torch.Tensor:
    values = torch.zeros(40, 40)
    values[20, at] = 1e-5  # in the middle of what a text of it leaves out, and below its decimals
    return values


def _network(at: int) -> nn.Module:
    network = nn.Linear(4, 2)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    with torch.no_grad():
        network.weight[0, at] = 1e-5
    return network


PAIRS = {
    "number": (1, 50),
    "path": (Path("a"), Path("b")),
    "tensor": (_large(20), _large(21)),
    "array": (_large(20).numpy(), _large(21).numpy()),
    "dtype": (np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.int32)),
    "tensor in a list": ([1, _large(20)], [1, _large(21)]),
    "tensor in a dict": ({"map": (_large(20),)}, {"map": (_large(21),)}),
    "set": ({1, 2}, {1, 3}),
    "network": (_network(0), _network(1)),
}


@pytest.mark.parametrize("kind", [Mine, Slotted])
@pytest.mark.parametrize("name", PAIRS)
def test_settings_that_differ_are_told_apart(kind: type[Mine] | type[Slotted], name: str) -> None:
    one, other = (settings_of(kind(value)) for value in PAIRS[name])
    assert one != other
    assert one == settings_of(kind(PAIRS[name][0]))


def test_what_is_inherited_in_slots_is_told_too() -> None:
    class Further(Slotted):
        pass

    assert settings_of(Further(1)) != settings_of(Further(2))


def test_what_has_only_an_address_is_refused() -> None:
    with pytest.raises(InputError, match=r"Mine\.value has no text of its own"):
        settings_of(Mine([object()]))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_weights_of_every_kind_have_a_digest(kind: torch.dtype) -> None:
    values = torch.tensor([0, 1]).to(kind)
    assert digest_of_weights({"a": values}) != digest_of_weights({"a": values.flip(0)})
    assert len(digest_of_weights({"a": values[0]})) == 64
