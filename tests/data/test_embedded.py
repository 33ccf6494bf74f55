"""The embedded sets: real, split as the paper splits, and what their docstrings say."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits

from encircle.core import InputError
from encircle.data import DataSet, TensorSamples, breast_cancer, digits


@pytest.fixture(scope="module")
def both() -> dict[str, DataSet]:
    return {"digits": digits(), "breast-cancer": breast_cancer()}


def inputs_of(part: object) -> torch.Tensor:
    assert isinstance(part, TensorSamples)
    return part.inputs


@pytest.mark.parametrize(("name", "count"), [("digits", 1797), ("breast-cancer", 569)])
def test_parts_are_disjoint_90_5_5_and_checked(both: dict[str, DataSet], name: str, count: int) -> None:
    data = both[name]
    assert data.name == name
    data.check()
    assert data.pretrain is not None
    parts = [data.train, data.pretrain, data.validation, data.test]
    assert sum(map(len, parts)) == count
    assert abs(len(data.train) + len(data.pretrain) - 0.9 * count) < 1
    assert abs(len(data.validation) - 0.05 * count) < 1
    assert abs(len(data.test) - 0.05 * count) <= 2


def test_digits_hold_every_original_once() -> None:
    data = digits(side=16, pretrain=0.25)
    raw = load_digits()
    assert data.pretrain is not None
    parts = [data.train, data.pretrain, data.validation, data.test]
    inputs = torch.cat([inputs_of(part).flatten(1) for part in parts]).double()
    labels = torch.cat([part.labels for part in parts])
    small = torch.nn.functional.avg_pool2d(inputs.reshape(-1, 1, 16, 16), 2).flatten(1)
    assert sorted(labels.tolist()) == sorted(raw.target.tolist())
    # The mean ink survives enlarging, up to its border handling and 8-bit rounding; compare its sorted list.
    expected = torch.tensor(raw.data / 16).double().mean(dim=1).sort().values
    torch.testing.assert_close(small.mean(dim=1).sort().values, expected, atol=5e-3, rtol=0)


def test_digits_are_on_the_8_bit_grid(both: dict[str, DataSet]) -> None:
    images = inputs_of(both["digits"].train)
    assert images.shape[1:] == (1, 32, 32)
    assert torch.equal(images, (images * 255).round().to(torch.uint8) / 255)


def test_boxes_hold_the_dark_ink_and_no_more(both: dict[str, DataSet]) -> None:
    data = both["digits"]
    assert set(data.boxes) == set(range(len(data.test)))
    for row, (top, left, bottom, right) in data.boxes.items():
        ink = inputs_of(data.test)[row, 0] >= 0.5
        inside = torch.zeros_like(ink)
        inside[round(top * 32) : round(bottom * 32), round(left * 32) : round(right * 32)] = True
        assert not bool((ink & ~inside).any())
        for edge in (
            ink[round(top * 32)],
            ink[round(bottom * 32) - 1],
            ink[:, round(left * 32)],
            ink[:, round(right * 32) - 1],
        ):
            assert bool(edge.any())


@pytest.mark.parametrize("side", [12, 18, 0])
def test_a_side_without_a_cam_grid_is_refused(side: int) -> None:
    with pytest.raises(InputError, match=f"side={side}"):
        digits(side=side)


def test_breast_cancer_is_scaled_without_looking_at_held_out_rows(both: dict[str, DataSet]) -> None:
    data = both["breast-cancer"]
    assert data.pretrain is not None
    known = torch.cat([inputs_of(data.train), inputs_of(data.pretrain)])
    torch.testing.assert_close(known.amin(dim=0), torch.zeros(30))
    torch.testing.assert_close(known.amax(dim=0), torch.ones(30))
    assert list(data.features) == [str(name) for name in load_breast_cancer().feature_names]
    assert list(data.classes) == ["malignant", "benign"]


@pytest.mark.parametrize("make", [digits, breast_cancer])
def test_without_pretraining_the_training_part_is_whole(make: object) -> None:
    data = make(pretrain=0.0)  # type: ignore[operator]
    assert data.pretrain is None
    assert abs(len(data.train) - 0.9 * (1797 if data.kind == "image" else 569)) < 1


def test_another_seed_is_another_split_and_fingerprint() -> None:
    assert breast_cancer(seed=1).check() != breast_cancer().check() == breast_cancer().check()
