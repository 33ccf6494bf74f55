"""Augmentation: every image is one of those that mirroring and shifting can make, gradients come home, and training by it repeats."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from encircle.training import Recipe, fit
from encircle.training.augmentation import flipped_and_shifted
from tests.training.problems import recipe, same, samples, source, weights


def every(image: Tensor) -> list[Tensor]:
    """All that may become of an image, pixel by pixel."""
    _, height, width = image.shape
    tall, wide = (max(far for far in range(side) if 8 * far <= side) for side in (height, width))
    actual = []
    for start in (image, image.flip(2)):
        for down in range(-tall, tall + 1):
            for right in range(-wide, wide + 1):
                moved = torch.empty_like(image)
                for row in range(height):
                    for column in range(width):
                        moved[:, row, column] = start[
                            :, min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1)
                        ]
                actual.append(moved)
    return actual


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_each_image_is_mirrored_or_not_and_shifted(
    count: int, channels: int, height: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    images = torch.rand(count, channels, height, width)
    actual = flipped_and_shifted(images)
    assert actual.shape == images.shape
    for augmented, image in zip(actual, images, strict=True):
        assert any(torch.equal(augmented, variant) for variant in every(image))


def test_images_of_a_batch_go_their_own_ways_and_all_ways_are_gone() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 8, 8)
    variants = {tuple(variant.flatten().tolist()) for variant in flipped_and_shifted(image.expand(400, 1, 8, 8))}
    assert variants == {tuple(variant.flatten().tolist()) for variant in every(image[0])}


def test_gradients_come_back_to_the_pixels_that_were_shown() -> None:
    images, weight = torch.rand(3, 2, 8, 8, dtype=torch.float64, requires_grad=True), torch.rand(3, 2, 8, 8)
    torch.manual_seed(1)
    (slope,) = torch.autograd.grad((flipped_and_shifted(images) * weight).sum(), images)
    base = images.detach()
    for _ in range(20):  # the map is linear: its slope is what a changed pixel changes
        pixel = tuple(int(torch.randint(side, ())) for side in base.shape)
        changed = base.clone()
        changed[pixel] += 1
        shown = []
        for pixels in (changed, base):
            torch.manual_seed(1)
            shown.append((flipped_and_shifted(pixels) * weight).sum())
        assert float(slope[pixel]) == pytest.approx(float(shown[0] - shown[1]), abs=1e-9)


def test_training_by_it_repeats_and_is_another_training() -> None:
    start, learnt = source("image"), samples("image")
    plain, first, again = (
        weights(fit(start, how, learnt, "victim", 3))
        for how in (recipe(), *[recipe(augmentation="flip-and-shift")] * 2)
    )
    assert same(first, again)
    assert not same(first, plain)


def test_frozen_stages_are_refused() -> None:
    with pytest.raises(ValidationError, match="augmentation needs frozen_stages=0"):
        Recipe(augmentation="flip-and-shift", start="checkpoint", frozen_stages=1)
