"""Batches cover every row, and are read ahead in their order."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import TensorDataset

from encircle.core import InputError
from encircle.data import DatasetSamples, Samples
from encircle.training import fit
from encircle.training.batches import batches, read_ahead, steps_per_epoch
from tests.training.problems import recipe, same, samples, source, weights


class TestBatches:
    @given(count=st.integers(1, 40), size=st.integers(2, 12), seed=st.integers(0, 99))
    def test_cover_every_row_once_and_are_never_a_single_row(self, count: int, size: int, seed: int) -> None:
        actual = list(batches(count, size, torch.Generator().manual_seed(seed)))
        assert sorted(torch.cat(actual).tolist()) == list(range(count))
        assert len(actual) == steps_per_epoch(count, size)
        assert all(len(rows) >= 2 for rows in actual) or count == 1
        assert all(len(rows) == size for rows in actual[:-1])
        assert len(actual[-1]) <= size + 1

    def test_every_epoch_has_its_own_order(self) -> None:
        shuffle = torch.Generator().manual_seed(0)
        first, second = (torch.cat(list(batches(30, 7, shuffle))) for _ in range(2))
        assert not torch.equal(first, second)

    def test_a_set_of_one_is_not_learnt_from(self) -> None:
        model = fit(source("image"), recipe(), samples("image", 1), "victim", 0)
        assert same(weights(model), weights(source("image").model(recipe(), "victim", 0)))


class TestReadingAhead:
    class Slow(Samples):
        """Samples that note when each batch is read."""

        waits = True

        def __init__(self, events: list[str]) -> None:
            self.inputs, self.labels, self.events = torch.arange(12.0)[:, None], torch.zeros(12).long(), events

        def batch(self, rows: Tensor) -> Tensor:
            self.events.append(f"read {int(rows[0])}")
            if int(rows[0]) == 8:
                raise InputError("row 8 cannot be read")
            return self.inputs[rows]

    def test_gives_the_same_batches_in_the_same_order(self) -> None:
        rows = list(torch.randperm(8).split(3))
        actual = list(read_ahead(self.Slow([]), rows))
        assert torch.equal(torch.cat(actual)[:, 0], torch.cat(rows).float())

    def test_reads_the_next_while_one_is_used_and_no_further(self) -> None:
        events: list[str] = []
        coming = read_ahead(self.Slow(events), list(torch.arange(8).split(2)))
        next(coming)
        deadline = time.monotonic() + 10
        while len(events) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert events == ["read 0", "read 2"]

    def test_an_error_comes_when_its_batch_would_have(self) -> None:
        coming = read_ahead(self.Slow([]), list(torch.arange(12).split(4)))
        assert len(next(coming)) == len(next(coming)) == 4
        with pytest.raises(InputError, match="row 8"):
            next(coming)

    def test_a_data_set_of_files_trains_to_the_same_weights(self) -> None:
        data = samples("table", dtype=torch.float32)
        read = DatasetSamples(TensorDataset(data.inputs, data.labels))
        assert read.waits
        assert read.subset(torch.arange(5)).waits
        assert not data.waits
        start, how = source("table", dtype=torch.float32), recipe()
        assert same(weights(fit(start, how, read, "victim", 0)), weights(fit(start, how, data, "victim", 0)))
