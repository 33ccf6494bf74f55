"""Weights learnt elsewhere: what fits is taken, what is surplus is named; batch statistics measured anew change no output."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encircle.core import InputError
from encircle.data import stanford_dogs
from encircle.models import ResNet13, SmallResNet, TwoLayerNet, fitting, recalibrate
from encircle.models.checkpoint import check_finite, named_tensors
from encircle.training import read_weights


def eighteen() -> dict[str, torch.Tensor]:
    """A whole ResNet-18 by the names and shapes that torchvision publishes: the trunk, a fourth stage and a head of 1,000 classes."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **normalisation("bn1", 64)}
    width_before = 64
    for stage, width in ((1, 64), (2, 128), (3, 256), (4, 512)):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, width_before, 3, 3), **normalisation(f"{name}.bn1", width)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), **normalisation(f"{name}.bn2", width)}
            if width_before != width:
                shapes |= {
                    f"{name}.downsample.0.weight": (width, width_before, 1, 1),
                    **normalisation(f"{name}.downsample.1", width),
                }
            width_before = width
    shapes |= {"fc.weight": (1000, 512), "fc.bias": (1000,)}
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=random) if shape else torch.tensor(0, dtype=torch.int64)
        for name, shape in shapes.items()
    }


def normalisation(name: str, width: int) -> dict[str, tuple[int, ...]]:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{vector}": (width,) for vector in vectors} | {f"{name}.num_batches_tracked": ()}


def test_a_whole_resnet18_fits_and_its_last_stage_is_reported() -> None:
    weights = eighteen()
    taken, surplus = fitting(weights, ResNet13(7))
    assert {name.split(".")[0] for name in surplus} == {"layer4", "fc"}
    assert set(taken) | set(surplus) == set(weights)
    model = ResNet13(7)
    model.load_state_dict(taken, strict=False)
    torch.testing.assert_close(model.layer3[1].conv2.weight, weights["layer3.1.conv2.weight"])


def test_one_checkpoint_starts_networks_with_one_and_with_two_last_blocks() -> None:
    weights = {name: value for name, value in ResNet13(3).state_dict().items() if not name.startswith("head.")}
    taken, surplus = fitting(weights, ResNet13(3, last_blocks=1))
    assert {name[:8] for name in surplus} == {"layer3.1"}
    assert "layer3.0.conv2.weight" in taken


def test_weights_of_ones_own_are_taken_whole() -> None:
    model = SmallResNet(3)
    taken, surplus = fitting(model.state_dict(), SmallResNet(3))
    assert (set(taken), surplus) == (set(model.state_dict()), [])


@pytest.mark.parametrize("lost", ["layer2.0.conv1.weight", "bn1.running_var"])
def test_a_missing_weight_is_named(lost: str) -> None:
    weights = eighteen()
    del weights[lost]
    with pytest.raises(InputError, match=f"lacks {lost}"):
        fitting(weights, ResNet13(7))


def test_a_weight_of_another_shape_is_named() -> None:
    with pytest.raises(InputError, match=r"its head\.weight is \(3, 256\) and must be \(4, 256\)"):
        fitting(ResNet13(3).state_dict(), ResNet13(4))
    with pytest.raises(InputError, match=r"conv1\.weight is \(64, 3, 7, 7\) and must be \(64, 1, 7, 7\)"):
        fitting(eighteen(), ResNet13(4, channels=1))


def test_networks_without_a_cam_head_need_every_weight() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"lacks 0\.bias"):
        fitting({"0.weight": torch.zeros(2, 2)}, model)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def equal(first: Mapping[str, Any], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], value) for name, value in second.items())


class TestForms:
    @given(st.lists(st.sampled_from(["module.", "model.", "_orig_mod.", "net."]), max_size=3))
    def test_prefixes_that_all_names_share_are_taken_off(self, prefixes: list[str]) -> None:
        weights = small().state_dict()
        taken, surplus = fitting({"".join(prefixes) + name: value for name, value in weights.items()}, small())
        assert equal(taken, weights)
        assert surplus == []

    def test_surplus_names_lose_the_prefix_too(self) -> None:
        weights = {f"module.{name}": value for name, value in small().state_dict().items()}
        assert fitting(weights | {"module.fc.bias": torch.zeros(1)}, small())[1] == ["fc.bias"]

    def test_a_prefix_is_kept_where_it_is_the_networks_own(self) -> None:
        class Wrapper(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = small()

        weights = Wrapper().state_dict()
        assert equal(fitting(weights, Wrapper())[0], weights)
        assert equal(fitting({f"module.{name}": value for name, value in weights.items()}, Wrapper())[0], weights)

    def test_a_prefix_that_not_all_names_share_is_kept(self) -> None:
        weights = {f"module.{name}": value for name, value in small().state_dict().items()}
        with pytest.raises(InputError, match=r"lacks 0\.weight"):
            fitting(weights | {"scale": torch.ones(1)}, small())

    def test_errors_name_weights_without_the_prefix(self) -> None:
        weights = {f"module.{name}": value for name, value in small().state_dict().items()}
        del weights["module.1.running_var"]
        with pytest.raises(InputError, match=r"lacks 1\.running_var"):
            fitting(weights, small())

    def test_no_weights_at_all_lack_the_first(self) -> None:
        with pytest.raises(InputError, match=r"lacks 0\.weight"):
            fitting({}, small())

    def test_a_trunk_may_have_a_prefix(self) -> None:
        taken, surplus = fitting({f"module.{name}": value for name, value in eighteen().items()}, ResNet13(7))
        assert {name.split(".")[0] for name in surplus} == {"layer4", "fc"}
        assert "conv1.weight" in taken

    @pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "anything"])
    def test_the_only_state_dictionary_in_a_training_checkpoint_is_taken(self, key: str) -> None:
        model = small()
        optimiser = torch.optim.Adam(model.parameters())
        model(torch.rand(4, 2)).sum().backward()
        optimiser.step()
        content = {
            "epoch": 3,
            "arch": "resnet",
            "best": None,
            "loss": torch.tensor(0.5),
            "scores": {"accuracy": torch.tensor(0.9), "loss": torch.tensor(0.5)},
            "history": [0.5, 0.4],
            "optimizer": optimiser.state_dict(),
            "scaler": {"scale": 65536.0},
            key: model.state_dict(),
        }
        assert equal(fitting(content, small())[0], model.state_dict())

    def test_several_state_dictionaries_are_refused(self) -> None:
        content = {"model": small().state_dict(), "epoch": 1, "ema": small().state_dict()}
        with pytest.raises(InputError, match="hold several state dictionaries, 'model' and 'ema'; give the one"):
            fitting(content, small())

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ({"epoch": 3}, "the weights hold more than tensors by name; save model.state_dict()"),
            ({"a": {}}, "hold more than tensors"),
            ({"w": torch.ones(1), "epoch": 3}, "hold more than tensors"),
            ({"w": torch.ones(1), "model": {"a": torch.ones(1)}}, "hold more than tensors"),
            ({0: torch.ones(1)}, "hold more than tensors"),
            ([torch.ones(1)], "hold more than tensors"),
            (torch.ones(1), "hold more than tensors"),
            (nn.Linear(1, 1), "the weights are a network; give its state_dict()"),
            ({"a": np.array(["x"])}, "a of the weights is of the type <U1, not numbers"),
            ({"a": np.array([None])}, "a of the weights is of the type object, not numbers"),
            ({"a": torch.eye(2).to_sparse()}, "a of the weights is stored sparsely, quantised or without values"),
            ({"a": torch.ones(1, device="meta")}, "a of the weights is stored sparsely, quantised or without values"),
        ],
    )
    def test_anything_else_is_refused_in_a_sentence(self, content: Any, sentence: str) -> None:
        with pytest.raises(InputError) as caught:
            named_tensors(content, "the weights")
        assert sentence in str(caught.value)

    @pytest.mark.parametrize("order", ["=", ">", "<"])
    def test_arrays_become_tensors(self, order: str) -> None:
        weights = small().state_dict()
        arrays = {
            name: value.numpy().astype(value.numpy().dtype.newbyteorder(order)) for name, value in weights.items()
        }
        for array in arrays.values():
            array.flags.writeable = False
        arrays["1.num_batches_tracked"] = np.int64(7)
        taken, _ = fitting(arrays, small())
        assert equal(taken, weights | {"1.num_batches_tracked": torch.tensor(7)})
        assert equal(fitting({"model": arrays, "epoch": 1}, small())[0], taken)

    def test_gradients_are_left_behind(self) -> None:
        taken, _ = fitting(dict(small().named_parameters()) | dict(small().named_buffers()), small())
        assert not any(value.requires_grad for value in taken.values())


class TestNumbers:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("name", ["0.weight", "1.running_mean"])
    def test_what_is_not_finite_is_named(self, value: float, name: str) -> None:
        weights = small().state_dict()
        weights[name].view(-1)[1] = value
        with pytest.raises(InputError, match=f"NaN or infinity in {name}"):
            fitting(weights, small())
        with pytest.raises(InputError, match=f"the file's weights hold NaN or infinity in {name}"):
            check_finite(weights, "the file's weights")

    def test_what_is_not_taken_may_be_anything(self) -> None:
        weights = small().state_dict() | {"mask": torch.full((3,), -math.inf)}
        assert fitting(weights, small())[1] == ["mask"]

    def test_what_is_infinite_as_float32_is_named(self) -> None:
        weights = small().state_dict() | {"0.bias": torch.full((3,), 1e300, dtype=torch.float64)}
        with pytest.raises(InputError, match=r"NaN or infinity in 0\.bias"):
            fitting(weights, small())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_floats_of_any_width_are_converted_as_they_are_loaded(self, dtype: torch.dtype) -> None:
        weights = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in small().state_dict().items()
        }
        model = small()
        model.load_state_dict(fitting(weights, model)[0])
        assert model[0].weight.dtype == torch.float32  # type: ignore[index]
        torch.testing.assert_close(model[0].weight, weights["0.weight"].float())  # type: ignore[index]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("0.weight", torch.ones(3, 2, dtype=torch.int8)),
            ("0.weight", torch.ones(3, 2, dtype=torch.complex64)),
            ("1.num_batches_tracked", torch.tensor(1.5)),
            ("1.num_batches_tracked", torch.tensor(math.nan)),
        ],
    )
    def test_other_kinds_of_numbers_are_refused(self, name: str, value: torch.Tensor) -> None:
        with pytest.raises(InputError, match=rf"its {name} is {value.dtype} and must be torch\.\w+; save it"):
            fitting(small().state_dict() | {name: value}, small())

    def test_whole_numbers_may_be_floats(self) -> None:
        weights = small().state_dict() | {"1.num_batches_tracked": torch.tensor(7.0)}
        assert int(fitting(weights, small())[0]["1.num_batches_tracked"]) == 7

    def test_a_lazy_network_is_refused(self) -> None:
        lazy = nn.Sequential(nn.LazyLinear(3))
        with pytest.raises(InputError, match=r"0\.weight of the network has no shape yet"):
            fitting({"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(3)}, lazy)


@given(st.integers(0, 5), st.booleans())
def test_recalibrating_does_not_change_the_function(seed: int, folded: bool) -> None:
    torch.manual_seed(seed)
    model = SmallResNet(3, channels=1, widths=(4, 6, 8)).double().eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.bias.data.normal_()
            if not folded:
                layer.weight.data.uniform_(-1.5, 1.5)
                layer.running_mean.normal_()  # type: ignore[union-attr]
                layer.running_var.uniform_(0.2, 3)  # type: ignore[union-attr]
    inputs = torch.rand(12, 1, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        before = model(inputs)
        recalibrate(model, inputs.split(5))
        assert (model(inputs) - before).norm() / before.norm() < 1e-10
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    width_before: list[torch.Tensor] = []
    handle = layers[-1].register_forward_pre_hook(lambda layer, arguments: width_before.append(arguments[0]))
    with torch.no_grad():
        model(inputs)
    handle.remove()
    torch.testing.assert_close(layers[-1].running_mean, width_before[0].mean(dim=(0, 2, 3)))
    torch.testing.assert_close(layers[-1].running_var, width_before[0].var(dim=(0, 2, 3), unbiased=False))


def test_after_recalibrating_training_mode_is_nearly_the_same_function() -> None:
    torch.manual_seed(0)
    model = SmallResNet(3, channels=1).eval()
    inputs = torch.rand(64, 1, 16, 16)
    with torch.no_grad():
        before = model(inputs)
        spoilt = model.train()(inputs)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
        recalibrate(model, [inputs])
        mended = model.train()(inputs)
    assert (mended - before).norm() / before.norm() < 1e-3 < (spoilt - before).norm() / before.norm()


def test_recalibrating_needs_inputs() -> None:
    with pytest.raises(InputError, match="there is no input"):
        recalibrate(SmallResNet(3), [])
    recalibrate(TwoLayerNet(2, 2), [])  # no batch normalisation, nothing to do


def test_genuine_imagenet_weights_by_name() -> None:
    root = Path(os.environ.get("ENCIRCLE_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
    path = root.parent / "weights" / "resnet18-imagenet-trunk.safetensors"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    model = ResNet13(10).eval()
    taken, surplus = fitting(read_weights(path), model)
    assert not surplus
    model.load_state_dict(taken, strict=False)
    if (root / "stanford-dogs-10").is_dir():
        inputs = stanford_dogs(root / "stanford-dogs-10", side=64).train.batch(torch.arange(0, 1000, 50))
    else:
        inputs = torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        before = model.features(inputs)
        recalibrate(model, [inputs])
        assert (model.features(inputs) - before).norm() / before.norm() < 1e-5
