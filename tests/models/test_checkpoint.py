"""Weights learnt elsewhere: what fits is taken, what is surplus is named; batch statistics measured anew change no output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encircle.core import InputError
from encircle.data import stanford_dogs
from encircle.models import ResNet13, SmallResNet, TwoLayerNet, fitting, recalibrate
from encircle.training import read_weights


def eighteen() -> dict[str, torch.Tensor]:
    """A whole ResNet-18 by the names and shapes that torchvision publishes: the trunk, a fourth stage and a head of 1,000 classes."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **normalisation("bn1", 64)}
    seen = 64
    for stage, width in ((1, 64), (2, 128), (3, 256), (4, 512)):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, seen, 3, 3), **normalisation(f"{name}.bn1", width)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), **normalisation(f"{name}.bn2", width)}
            if seen != width:
                shapes |= {
                    f"{name}.downsample.0.weight": (width, seen, 1, 1),
                    **normalisation(f"{name}.downsample.1", width),
                }
            seen = width
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
    seen: list[torch.Tensor] = []
    handle = layers[-1].register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    with torch.no_grad():
        model(inputs)
    handle.remove()
    torch.testing.assert_close(layers[-1].running_mean, seen[0].mean(dim=(0, 2, 3)))
    torch.testing.assert_close(layers[-1].running_var, seen[0].var(dim=(0, 2, 3), unbiased=False))


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
