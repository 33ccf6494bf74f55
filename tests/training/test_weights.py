"""Files of weights: every form a state dictionary is saved in, what is not finite, and nothing that runs."""

from __future__ import annotations

import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from encircle.core import InputError
from encircle.training import read_weights, save_tensors, save_weights
from tests.networks import tiny
from tests.training.problems import same, weights


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_the_state_dictionary_in_a_training_checkpoint_is_read(tmp_path: Path, key: str, suffix: str) -> None:
    network = model()
    optimiser = torch.optim.SGD(network.parameters(), momentum=0.9)
    network(torch.rand(4, 2)).sum().backward()
    optimiser.step()
    content = {key: network.state_dict(), "epoch": 3, "optimizer": optimiser.state_dict(), "loss": torch.tensor(1.0)}
    torch.save(content, tmp_path / f"w{suffix}")
    assert same(read_weights(tmp_path / f"w{suffix}"), weights(network))


def test_several_state_dictionaries_are_refused(tmp_path: Path) -> None:
    torch.save({"model": model().state_dict(), "ema": model().state_dict()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"w\.pt hold several state dictionaries, 'model' and 'ema'; give the one"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_named(tmp_path: Path, name: str, value: float) -> None:
    state = model().state_dict()
    state["1.running_mean"][2] = value
    torch.save(state, tmp_path / name) if name.endswith("pt") else save_tensors(tmp_path / name, state)
    with pytest.raises(InputError, match=rf"the weights .*{name} hold NaN or infinity in 1\.running_mean"):
        read_weights(tmp_path / name)


def test_numbers_keep_their_types(tmp_path: Path) -> None:
    state = {
        "int": torch.tensor([1, 2]),
        "bool": torch.tensor(True),
        "half": torch.ones(2, dtype=torch.float16),
        "double": torch.ones(2, dtype=torch.float64),
    }
    torch.save(state, tmp_path / "w.pt")
    save_tensors(tmp_path / "w.safetensors", state)
    for name in ("w.pt", "w.safetensors"):
        read = read_weights(tmp_path / name)
        assert {key: value.dtype for key, value in read.items()} == {key: value.dtype for key, value in state.items()}


def test_no_tensors_at_all_come_back_as_none(tmp_path: Path) -> None:
    save_tensors(tmp_path / "w.safetensors", {})
    assert read_weights(tmp_path / "w.safetensors") == {}


@pytest.mark.parametrize("key", ["state_dict", "note"])
def test_a_checkpoint_that_would_run_code_is_refused_and_not_run(tmp_path: Path, key: str) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": model().state_dict(), "epoch": 3, key: Hostile()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="hold more than tensors"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_arrays_in_a_torch_file_are_refused(tmp_path: Path) -> None:
    torch.save({name: value.numpy() for name, value in model().state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="hold more than tensors"):  # they are pickled as a call of a function
        read_weights(tmp_path / "w.pt")


def test_lack_of_memory_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    save_weights(tmp_path / "w.safetensors", model())
    torch.save(model().state_dict(), tmp_path / "w.pt")
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(MemoryError):
        read_weights(tmp_path / "w.pt")


class TestWeights:
    def test_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        model = tiny("image", dtype=torch.float32)
        save_weights(tmp_path / "w.safetensors", model)
        torch.save(model.state_dict(), tmp_path / "w.pt")
        for name in ("w.safetensors", "w.pt"):
            assert same(read_weights(tmp_path / name), weights(model))

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
    def test_a_file_that_would_run_code_is_refused_and_not_run(self, tmp_path: Path, suffix: str) -> None:
        class Hostile:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "ran"),)

        path = tmp_path / f"w{suffix}"
        torch.save({"weight": torch.ones(1), "more": Hostile()}, path)
        with pytest.raises(InputError, match=r"w\.\w+ (hold more than tensors|cannot be read)"):
            read_weights(path)
        path.write_bytes(pickle.dumps(Hostile()))
        with pytest.raises(InputError, match=r"w\.\w+ (hold more than tensors|cannot be read)"):
            read_weights(path)
        assert not (tmp_path / "ran").exists()
        pickle.loads(pickle.dumps(Hostile()))
        assert (tmp_path / "ran").exists()  # it would have

    @pytest.mark.parametrize("content", [[torch.ones(1)], {"epoch": 3, "w": torch.ones(1)}, torch.ones(1), {"a": {}}])
    def test_more_or_less_than_tensors_by_name_is_refused(self, tmp_path: Path, content: Any) -> None:
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(InputError, match="hold more than tensors"):
            read_weights(tmp_path / "w.pt")

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
    def test_a_damaged_file_is_an_input_error(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        model = tiny("table")
        if name.endswith("pt"):
            torch.save(model.state_dict(), path)
        else:
            save_weights(path, model)
        file_bytes = path.read_bytes()
        for length in (0, 1, 7, 8, 20, len(file_bytes) // 2, len(file_bytes) - 1):
            path.write_bytes(file_bytes[:length])
            with pytest.raises(InputError, match=f"the weights .*{name}"):
                read_weights(path)
        path.write_bytes(b"not weights at all")
        with pytest.raises(InputError, match=f"the weights .*{name}"):
            read_weights(path)

    def test_a_missing_file_is_an_input_error(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.pt", tmp_path):
            with pytest.raises(InputError, match="do not exist"):
                read_weights(path)
