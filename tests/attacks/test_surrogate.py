"""What attacks share that craft while surrogates learn: copies of the poison that are moved as augmentation moves them."""

from __future__ import annotations

import pytest
import torch

from encircle.attacks import IMF, Problem
from encircle.data.poison import Poison
from encircle.threat import Budget
from tests.attacks.problems import problem
from tests.training.problems import recipe


def crafted(attack: IMF, asked: Problem) -> Poison:
    return attack(asked, Budget(count=5, epsilon=0.3), torch.Generator().manual_seed(0))


class TestAugmentation:
    @pytest.mark.parametrize("frozen", [0, 1])
    def test_copies_that_are_not_moved_give_what_the_poison_itself_gives(
        self, frozen: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = problem("image", "cam", how=recipe(start="checkpoint", frozen_stages=frozen))
        plain = crafted(IMF(models=2, epochs=1), asked)
        moved = crafted(IMF(models=2, epochs=1, augmented=True), asked)
        assert not torch.equal(plain.inputs, moved.inputs)
        monkeypatch.setattr("encircle.attacks.surrogate.flipped_and_shifted", lambda images: images.clone())
        still = crafted(IMF(models=2, epochs=1, augmented=True), asked)
        assert torch.equal(plain.inputs, still.inputs)

    def test_a_recipe_that_augments_is_crafted_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shapes = list[torch.Size]()

        def noted(images: torch.Tensor) -> torch.Tensor:
            shapes.append(images.shape)
            return images

        monkeypatch.setattr("encircle.attacks.surrogate.flipped_and_shifted", noted)
        crafted(
            IMF(models=1, epochs=1),
            problem("image", "cam", how=recipe(start="checkpoint", augmentation="flip-and-shift")),
        )
        assert shapes

    def test_the_same_seed_gives_the_same(self) -> None:
        asked = problem("image", "cam", how=recipe(start="checkpoint", augmentation="flip-and-shift"))
        first, again = (crafted(IMF(models=1, epochs=1, augmented=True), asked) for _ in range(2))
        assert torch.equal(first.inputs, again.inputs)
