"""Samples read in batches equal the obvious concatenation; checks name the part and the row."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encircle.core import InputError
from encircle.data import DataSet, DatasetSamples, Samples, TensorSamples, split_rows


class Own(Dataset[Any]):
    """Somebody's data set: items are made when asked for, labels are Python or numpy integers."""

    def __init__(self, count: int, *, targets: bool) -> None:
        self.count, self.read = count, 0
        if targets:
            self.targets = [self.label(row) for row in range(count)]

    def label(self, row: int) -> np.int64:
        return np.int64(row % 3)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        self.read += 1
        return np.full((2, 2), row / 100, dtype=np.float32), self.label(row)


def samples(count: int, *, seed: int = 0, classes: int = 3) -> TensorSamples:
    random = torch.Generator().manual_seed(seed)
    return TensorSamples(torch.rand(count, 2, 2, generator=random), torch.randint(classes, (count,), generator=random))


@st.composite
def poisonings(draw: st.DrawFn) -> tuple[TensorSamples, TensorSamples, Tensor]:
    """A clean set, poison, and where each poison sample goes: some overwrite distinct rows, the others are added."""
    clean = samples(draw(st.integers(1, 9)), seed=draw(st.integers(0, 99)))
    poison = samples(draw(st.integers(0, 7)), seed=draw(st.integers(100, 199)))
    rows = draw(st.permutations(range(len(clean))))
    where = [rows.pop() if rows and draw(st.booleans()) else -1 for _ in range(len(poison))]
    return clean, poison, torch.tensor(where, dtype=torch.int64)


def concatenated(clean: TensorSamples, poison: TensorSamples, where: Tensor) -> list[tuple[Tensor, int, int]]:
    """What `with_poison` should hold, as a plain list of (input, label, which poison)."""
    rows = [(clean.inputs[row], int(clean.labels[row]), -1) for row in range(len(clean))]
    for number, place in enumerate(where.tolist()):
        if place >= 0:
            rows[place] = (poison.inputs[number], int(poison.labels[number]), number)
    for number, place in enumerate(where.tolist()):
        if place < 0:
            rows.append((poison.inputs[number], int(poison.labels[number]), number))
    return rows


class TestWithPoison:
    @given(drawn=poisonings(), seed=st.integers(0, 99))
    def test_equals_the_obvious_concatenation(
        self, drawn: tuple[TensorSamples, TensorSamples, Tensor], seed: int
    ) -> None:
        clean, poison, where = drawn
        mixed = clean.with_poison(poison.inputs, poison.labels, where)
        expected = concatenated(clean, poison, where)
        assert len(mixed) == len(expected)
        assert mixed.labels.tolist() == [label for _, label, _ in expected]
        assert mixed.source.tolist() == [number for _, _, number in expected]
        for row, (value, label, _) in enumerate(expected):
            assert torch.equal(mixed[row][0], value)
            assert mixed[row][1] == label
        order = torch.randperm(len(mixed), generator=torch.Generator().manual_seed(seed))
        for rows in order.split(3):
            assert torch.equal(mixed.batch(rows), torch.stack([expected[int(row)][0] for row in rows]))

    @given(poisonings())
    def test_leaves_the_clean_set_as_it_was(self, drawn: tuple[TensorSamples, TensorSamples, Tensor]) -> None:
        clean, poison, where = drawn
        inputs, labels = clean.inputs.clone(), clean.labels.clone()
        clean.with_poison(poison.inputs, poison.labels, where).batch(torch.tensor([0]))
        assert torch.equal(clean.inputs, inputs)
        assert torch.equal(clean.labels, labels)

    def test_follows_poison_that_changes(self) -> None:
        clean, inputs = samples(3), torch.zeros(1, 2, 2)
        mixed = clean.with_poison(inputs, torch.tensor([0]), torch.tensor([-1]))
        inputs.fill_(1.0)
        assert float(mixed[3][0].min()) == 1.0

    def test_is_an_ordinary_dataset(self) -> None:
        mixed = samples(5).with_poison(torch.ones(2, 2, 2), torch.tensor([1, 2]), torch.tensor([0, -1]))
        inputs, labels = next(iter(DataLoader(mixed, batch_size=6)))
        assert torch.equal(inputs, mixed.batch(torch.arange(6)))
        assert torch.equal(labels, mixed.labels)


class TestSamples:
    def test_a_subset_is_its_rows(self) -> None:
        whole = samples(9)
        rows = torch.tensor([7, 2, 2])
        part = whole.subset(rows)
        assert torch.equal(part.labels, whole.labels[rows])
        assert torch.equal(part.batch(torch.tensor([2, 0])), whole.inputs[[2, 7]])

    def test_ends_like_a_sequence(self) -> None:
        part = samples(3)
        assert len(list(part)) == 3
        for row in (3, -1):
            with pytest.raises(IndexError):
                part[row]

    @given(st.integers(1, 20), st.integers(1, 25))
    def test_chunks_are_all_inputs_in_order(self, count: int, size: int) -> None:
        whole = samples(count)
        chunks = list(whole.chunks(size))
        assert all(len(chunk) <= size for chunk in chunks)
        assert torch.equal(torch.cat(chunks), whole.inputs)

    def test_one_label_an_input(self) -> None:
        with pytest.raises(InputError, match="3 inputs but 2 labels"):
            TensorSamples(torch.rand(3, 2), torch.tensor([0, 1]))


class TestDatasetSamples:
    @pytest.mark.parametrize("targets", [True, False])
    def test_reads_somebody_s_dataset(self, targets: bool) -> None:
        own = Own(7, targets=targets)
        found = DatasetSamples(own)
        assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert found.labels.dtype == torch.int64
        assert own.read == 7  # labels are read once, or a few of them compared
        batch = found.batch(torch.tensor([5, 0]))
        assert batch.shape == (2, 2, 2)
        assert batch[:, 0, 0].tolist() == pytest.approx([0.05, 0.0])
        assert own.read == 9  # and inputs when needed

    def test_of_many_stated_labels_a_few_are_compared(self) -> None:
        own = Own(1000, targets=True)
        assert DatasetSamples(own).labels.tolist() == [row % 3 for row in range(1000)]
        assert own.read <= 20

    def test_items_win_over_stated_labels_that_they_disagree_with(self) -> None:
        own = Own(50, targets=True)
        own.targets = [2 - label for label in own.targets]  # as a target_transform leaves them
        assert DatasetSamples(own).labels.tolist() == [row % 3 for row in range(50)]

    def test_takes_poison_like_any_other(self) -> None:
        mixed = DatasetSamples(Own(4, targets=True)).with_poison(
            torch.ones(2, 2, 2), torch.tensor([2, 2]), torch.tensor([1, -1])
        )
        assert mixed.batch(torch.arange(5))[:, 0, 0].tolist() == pytest.approx([0.0, 1.0, 0.02, 0.03, 1.0])


def data_set(**changes: Samples | None) -> DataSet:
    parts: dict[str, Any] = {
        part: samples(count, seed=count)
        for part, count in (("train", 300), ("validation", 5), ("test", 6), ("pretrain", 7))
    }
    return DataSet(name="mine", kind="image", classes=["a", "b", "c"], **{**parts, **changes})


def spoilt(count: int, row: int, value: float) -> TensorSamples:
    part = samples(count)
    part.inputs[row, 1, 0] = value
    return part


class TestCheck:
    @pytest.mark.parametrize("part", ["train", "validation", "test", "pretrain"])
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (torch.nan, "holds NaN or infinity"),
            (torch.inf, "holds NaN or infinity"),
            (1.01, r"leaves \[0, 1\]"),
            (-0.01, r"leaves \[0, 1\]"),
        ],
    )
    def test_names_the_part_and_row_of_a_bad_value(self, part: str, value: float, message: str) -> None:
        with pytest.raises(InputError, match=rf"mine \({part}\), row 278 {message}"):  # beyond the first chunk
            data_set(**{part: spoilt(300, 278, value)}).check()

    @pytest.mark.parametrize(("label", "part"), [(3, "train"), (-1, "test")])
    def test_names_the_part_and_row_of_a_bad_label(self, label: int, part: str) -> None:
        bad = samples(6)
        bad.labels[4] = label
        with pytest.raises(InputError, match=rf"mine \({part}\), row 4: label {label} is not in 0..2"):
            data_set(**{part: bad}).check()

    @pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
    def test_names_the_part_that_no_float32_model_could_read(self, dtype: torch.dtype) -> None:
        class Wide(Samples):
            labels = torch.zeros(3, dtype=torch.int64)

            def batch(self, rows: Tensor) -> Tensor:
                return torch.zeros(len(rows), 2, 2, dtype=dtype)

        with pytest.raises(InputError, match=rf"mine \(train\) holds {dtype} inputs; give float32"):
            data_set(train=Wide()).check()

    def test_names_an_empty_part(self) -> None:
        with pytest.raises(InputError, match=r"mine \(test\) is empty"):
            data_set(test=samples(0)).check()
        data_set(validation=samples(0)).check()  # test samples but the target are held out, too

    def test_names_a_part_of_another_shape(self) -> None:
        other = TensorSamples(torch.rand(3, 9), torch.zeros(3, dtype=torch.int64))
        with pytest.raises(InputError, match=r"mine \(test\) holds inputs of \(9,\)"):
            data_set(test=other).check()

    def test_random_augmentation_is_noticed(self) -> None:
        class Restless(Samples):
            labels = torch.zeros(3, dtype=torch.int64)

            def batch(self, rows: torch.Tensor) -> torch.Tensor:
                return torch.rand(len(rows), *data_set().shape)

        with pytest.raises(InputError, match="reads differently each time"):
            data_set(train=Restless()).check()

    @pytest.mark.parametrize("seed", range(10))
    def test_pictures_mirrored_by_chance_are_noticed(self, seed: int) -> None:
        class Mirrored(Samples):
            labels = torch.zeros(40, dtype=torch.int64)
            chance = torch.Generator().manual_seed(seed)

            def batch(self, rows: torch.Tensor) -> torch.Tensor:
                still = (
                    torch.linspace(0, 1, math.prod(data_set().shape))
                    .reshape(data_set().shape)
                    .repeat(len(rows), 1, 1, 1)
                )
                turned = torch.rand(len(rows), generator=self.chance) < 0.5
                return torch.where(turned[:, None, None, None], still.flip(-1), still)

        with pytest.raises(InputError, match="reads differently each time"):
            data_set(train=Mirrored()).check()

    def test_there_need_not_be_a_pretraining_part(self) -> None:
        assert data_set(pretrain=None).check() != data_set().check()

    def test_the_fingerprint_is_stable(self) -> None:
        assert data_set().check() == data_set().check()
        assert len(data_set().check()) == 64

    @given(st.sampled_from(["train", "validation", "test", "pretrain"]), st.data())
    def test_the_fingerprint_changes_with_one_value_or_label(self, part: str, data: st.DataObject) -> None:
        before = data_set()
        other = {name: getattr(before, name) for name in ("train", "validation", "test", "pretrain")}[part]
        changed = TensorSamples(other.inputs.clone(), other.labels.clone())
        row = data.draw(st.integers(0, len(changed) - 1))
        if data.draw(st.booleans()):
            changed.inputs[row, 0, 1] = torch.nextafter(changed.inputs[row, 0, 1], torch.tensor(0.5))
        else:
            changed.labels[row] = (changed.labels[row] + 1) % 3
        assert dataclasses.replace(before, **{part: changed}).check() != before.check()

    def test_the_fingerprint_depends_on_the_part_a_sample_is_in(self) -> None:
        one = data_set()
        swapped = dataclasses.replace(one, validation=one.test, test=one.validation)
        assert swapped.check() != one.check()

    def test_the_shape_is_that_of_one_input(self) -> None:
        assert data_set().shape == (2, 2)


class TestSplitRows:
    @given(count=st.integers(20, 2000), seed=st.integers(0, 50), pretrain=st.floats(0, 1))
    def test_is_a_disjoint_90_5_5_split(self, count: int, seed: int, pretrain: float) -> None:
        train, validation, test, apart = split_rows(count, seed, pretrain)
        assert sorted(torch.cat([train, validation, test, apart]).tolist()) == list(range(count))
        assert abs(len(train) + len(apart) - 0.9 * count) < 1
        assert abs(len(validation) - 0.05 * count) < 1
        assert abs(len(test) - 0.05 * count) <= 2
        assert abs(len(apart) - pretrain * 0.9 * count) < 2

    def test_held_out_parts_do_not_depend_on_the_pretraining_share(self) -> None:
        for pretrain in (0.1, 0.5):
            for part in (1, 2):
                assert torch.equal(split_rows(200, 3, pretrain)[part], split_rows(200, 3, 0.0)[part])

    def test_another_seed_is_another_split(self) -> None:
        assert torch.equal(split_rows(100, 1, 0.0)[2], split_rows(100, 1, 0.0)[2])
        assert not torch.equal(split_rows(100, 1, 0.0)[2], split_rows(100, 2, 0.0)[2])
