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
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

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
    for number, row in enumerate(where.tolist()):
        if row >= 0:
            rows[row] = (poison.inputs[number], int(poison.labels[number]), number)
    for number, row in enumerate(where.tolist()):
        if row < 0:
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
        every = samples(9)
        rows = torch.tensor([7, 2, 2])
        part = every.subset(rows)
        assert torch.equal(part.labels, every.labels[rows])
        assert torch.equal(part.batch(torch.tensor([2, 0])), every.inputs[[2, 7]])

    def test_ends_like_a_sequence(self) -> None:
        part = samples(3)
        assert len(list(part)) == 3
        for row in (3, -1):
            with pytest.raises(IndexError):
                part[row]

    @given(st.integers(1, 20), st.integers(1, 25))
    def test_chunks_are_all_inputs_in_order(self, count: int, size: int) -> None:
        every = samples(count)
        chunks = list(every.chunks(size))
        assert all(len(chunk) <= size for chunk in chunks)
        assert torch.equal(torch.cat(chunks), every.inputs)

    def test_one_label_an_input(self) -> None:
        with pytest.raises(InputError, match="3 inputs but 2 labels"):
            TensorSamples(torch.rand(3, 2), torch.tensor([0, 1]))


class TestDatasetSamples:
    @pytest.mark.parametrize("targets", [True, False])
    def test_reads_somebody_s_dataset(self, targets: bool) -> None:
        own = Own(7, targets=targets)
        read = DatasetSamples(own)
        assert read.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert read.labels.dtype == torch.int64
        assert own.read == 7  # labels are read once, or a few of them compared
        batch = read.batch(torch.tensor([5, 0]))
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


class Pairs(Dataset[Any]):
    """Six good items, but for one that is, or raises, what a test wants."""

    def __init__(self, item: Any, row: int = 4) -> None:
        self.item, self.row = item, row

    def __len__(self) -> int:
        return 6

    def __getitem__(self, row: int) -> Any:
        if row != self.row:
            return torch.zeros(2, 2), row % 2
        if isinstance(self.item, BaseException):
            raise self.item
        return self.item


class Peculiar(Exception):
    """As a data set's own code may raise."""


class TestItems:
    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (KeyError(5), "KeyError: 5"),
            (IndexError("list index out of range"), "IndexError: list index out of range"),
            (EOFError(), "EOFError"),
            (StopIteration(), "StopIteration"),
            (Peculiar("first line\nsecond"), "Peculiar: first line"),
            (OSError("cannot identify image file"), "cannot identify image file"),
        ],
    )
    def test_whatever_an_item_raises_names_the_row(self, error: Exception, reason: str) -> None:
        with pytest.raises(InputError) as caught:
            DatasetSamples(Pairs(error))
        assert str(caught.value) == f"item 4 of your data set cannot be read ({reason}); mend or drop it."
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), InputError("the picture a.png is damaged.")])
    def test_what_is_no_fault_of_the_item_passes(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught:
            DatasetSamples(Pairs(error))
        assert caught.value is error

    @pytest.mark.parametrize(
        ("item", "kind"),
        [
            ({"image": 0, "label": 1}, "dict"),
            ((torch.zeros(2, 2), 1, "file.png"), "tuple of 3"),
            ([torch.zeros(2, 2)], "list of 1"),
            (torch.zeros(2, 2), "Tensor"),
            (None, "NoneType"),
        ],
    )
    def test_items_are_pairs(self, item: Any, kind: str) -> None:
        with pytest.raises(
            InputError, match=rf"item 4 of the test set is a {kind}; items must be pairs \(input, label\)"
        ):
            DatasetSamples(Pairs(item), name="the test set")

    def test_an_empty_set_is_refused(self) -> None:
        with pytest.raises(InputError, match="your data set is empty"):
            DatasetSamples([])

    def test_items_must_have_numbers(self) -> None:
        class Stream(IterableDataset[Any]):
            def __iter__(self) -> Any:
                return iter([])

        class Endless(Dataset[Any]):
            def __getitem__(self, row: int) -> Any:
                return torch.zeros(2), 0

        class Unsure(Endless):
            def __len__(self) -> int:
                raise NotImplementedError

        for dataset in (Stream(), Endless(), Unsure()):
            with pytest.raises(InputError, match=r"no (items by number|length).*; give a map-style one"):
                DatasetSamples(dataset)


class TestLabels:
    @pytest.mark.parametrize(
        "label",
        [
            1,
            True,
            1.0,
            np.int32(1),
            np.uint8(1),
            np.float64(1),
            np.bool_(True),
            np.array([1]),
            np.array(1),
            np.array([[1.0]]),
            torch.tensor(1),
            torch.tensor([1]),
            torch.tensor([1.0], dtype=torch.bfloat16),
        ],
    )
    @pytest.mark.parametrize("stated", [True, False])
    def test_numbers_of_every_kind_are_taken(self, label: Any, stated: bool) -> None:
        dataset = Pairs((torch.zeros(2, 2), label), row=5)
        if stated:
            dataset.targets = [0, 1, 0, 1, 0, label]  # type: ignore[attr-defined]
        assert DatasetSamples(dataset).labels.tolist() == [0, 1, 0, 1, 0, 1]

    @pytest.mark.parametrize("kind", [np.array, torch.tensor])
    def test_stated_labels_may_be_a_column(self, kind: Any) -> None:
        own = Own(1000, targets=False)
        own.targets = kind([[row % 3] for row in range(1000)])
        assert DatasetSamples(own).labels.tolist() == [row % 3 for row in range(1000)]
        assert own.read <= 20

    @pytest.mark.parametrize("stated", ["raises", "one-hot", "texts", "too few"])
    def test_stated_labels_that_are_none_do_not_matter(self, stated: str) -> None:
        class Stating(Own):
            @property
            def targets(self) -> Any:
                if stated == "raises":
                    raise KeyError("no annotations")
                return {"one-hot": np.eye(9), "texts": ["a"] * 9, "too few": [0]}[stated]

        assert DatasetSamples(Stating(9, targets=False)).labels.tolist() == [row % 3 for row in range(9)]

    @pytest.mark.parametrize(
        ("label", "what"),
        [
            (math.inf, "inf"),
            (math.nan, "nan"),
            (1.5, "1.5"),
            ("cat", "'cat'"),
            ("1", "'1'"),
            (None, "None"),
            (np.float32("inf"), "inf"),
            (torch.tensor(math.inf), "inf"),
            (torch.tensor([0, 1, 0]), "an array of 3 numbers (of a one-hot vector, give its argmax)"),
            (np.zeros(0), "an array of 0 numbers"),
            ({"boxes": torch.zeros(9, 4)}, "a dict"),
            (np.datetime64(7, "ns"), "np.datetime64('1970"),
            (1j, "a complex"),
            (2**70, "1180591620717411303424"),
        ],
    )
    def test_anything_else_names_the_row(self, label: Any, what: str) -> None:
        with pytest.raises(
            InputError, match=r"^the label of item 4 of your data set is [^\n]+, not a whole number;"
        ) as caught:
            DatasetSamples(Pairs((torch.zeros(2, 2), label)))
        assert what in str(caught.value)


class TestInputs:
    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (
                torch.zeros(2, 2, dtype=torch.uint8),
                "is uint8 and must be float32 in [0, 1]; divide it by 255 as float32",
            ),
            (np.zeros((2, 2), dtype=np.uint8), "is uint8 and must be float32"),
            (np.zeros((2, 2)), "is float64 and must be float32 in [0, 1]; convert it to float32"),
            (np.zeros((2, 2), dtype=">f4"), "is >f4 and must be float32"),
            (torch.zeros(2, 2, dtype=torch.float16), "is float16 and must be float32"),
            (np.array([[None]]), "is object and must be float32"),
            ([[0, 1], [0, 1]], "is int64 and must be float32"),
            (
                Image.new("RGB", (2, 2)),
                "is a picture of Pillow (RGB); convert it to a float32 tensor (c, h, w) in [0, 1]",
            ),
            ("a.png", "is a str, not numbers; convert it"),
            (torch.zeros(3, 3), "is (3, 3), others are (2, 2); crop or resize them alike"),
        ],
    )
    def test_other_types_name_the_row_and_the_remedy(self, content: Any, sentence: str) -> None:
        own = DatasetSamples(Pairs((content, 0)))
        own.batch(torch.arange(4))
        with pytest.raises(InputError) as caught:
            own.batch(torch.arange(6))
        assert str(caught.value).startswith(f"item 4 of your data set {sentence}")

    def test_arrays_of_every_layout_are_taken(self) -> None:
        values = np.arange(4, dtype=np.float32).reshape(2, 2)
        fixed = values.copy()
        fixed.flags.writeable = False
        for content in (
            values,
            values[::-1],
            values.T,
            fixed,
            values.tolist(),
            torch.tensor(values, requires_grad=True),
        ):
            batch = DatasetSamples(Pairs((content, 0))).batch(torch.tensor([4]))
            assert not batch.requires_grad
            expected = content.detach().numpy() if isinstance(content, Tensor) else np.array(content)
            assert batch[0].tolist() == expected.tolist()


class TestOwnClasses:
    def named(self, **attributes: Any) -> Pairs:
        dataset = Pairs((torch.zeros(2, 2), 0))
        for name, value in attributes.items():
            setattr(dataset, name, value)
        return dataset

    @pytest.mark.parametrize(
        ("attributes", "names"),
        [
            ({"classes": ["cat", "dog"]}, ("cat", "dog")),
            ({"class_to_idx": {"dog": 1, "cat": 0}}, ("cat", "dog")),
            ({"classes": 2, "class_to_idx": {"dog": 1, "cat": 0}}, ("cat", "dog")),
            ({"classes": ["cat", "cat"]}, None),
            ({"classes": ["cat", "dog"], "target_transform": abs}, None),
            ({"classes": ["cat", "dog"], "target_transform": None}, ("cat", "dog")),
            ({}, None),
        ],
    )
    def test_are_those_of_torchvision_s_attributes(self, attributes: dict[str, Any], names: Any) -> None:
        dataset = self.named(**attributes)
        assert DatasetSamples(dataset).classes == names
        assert DatasetSamples(Subset(Subset(dataset, [0, 1, 2]), [0, 1])).classes == names


class TestNames:
    def renamed(self, **names: Any) -> DataSet:
        """As if made with these names; the tests' own type checker would refuse them before the data set does."""
        data = data_set()
        for part, value in names.items():
            object.__setattr__(data, part, value)
        data.__post_init__()
        return data

    @pytest.mark.parametrize("names", [range(3), {"0": 0, "2": 2, "1": 1}, np.arange(3), [0.0, 1.0, 2.0]])
    def test_of_a_data_set_become_texts(self, names: Any) -> None:
        data = self.renamed(classes=names, features=names)
        assert data.classes == data.features == ["0", "1", "2"]

    @pytest.mark.parametrize("part", ["classes", "features"])
    def test_in_no_order_are_refused(self, part: str) -> None:
        with pytest.raises(InputError, match="a set, which has no order"):
            self.renamed(**{part: {"a", "b", "c"}})

    def test_alike_are_refused(self) -> None:
        with pytest.raises(InputError, match="the class name 'a' is there twice"):
            dataclasses.replace(data_set(), classes=["a", "b", "a"])

    def test_there_need_not_be_features(self) -> None:
        assert data_set().features == []


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
        original = data_set()
        swapped = dataclasses.replace(original, validation=original.test, test=original.validation)
        assert swapped.check() != original.check()

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
