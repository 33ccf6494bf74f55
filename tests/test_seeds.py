"""Random streams are named: the same name gives the same stream, another name an unrelated one."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from encircle.seeds import derive_seed, generator

PATHS = st.lists(st.text(max_size=6) | st.integers(-5, 5), min_size=1, max_size=4)


@given(PATHS, PATHS)
def test_seeds_differ_exactly_when_their_paths_do(first: list[str | int], second: list[str | int]) -> None:
    assert 0 <= derive_seed(*first) < 2**63
    assert (derive_seed(*first) == derive_seed(*second)) == (first == second)


def test_a_path_is_not_its_concatenation() -> None:
    paths = [("victim", 12), ("victim", 1, 2), ("victim1", 2), ("victim", "12")]
    assert len({derive_seed(*path) for path in paths}) == 4


def test_a_seed_is_the_one_that_earlier_results_were_made_with() -> None:
    assert derive_seed("victim", "start", 0) == 6048660630921091132


@given(PATHS)
def test_a_generator_repeats_its_stream(path: list[str | int]) -> None:
    assert torch.equal(torch.rand(3, generator=generator(*path)), torch.rand(3, generator=generator(*path)))


def test_a_generator_leaves_the_global_stream_alone() -> None:
    state = torch.get_rng_state()
    torch.rand(3, generator=generator("x"))
    assert torch.equal(torch.get_rng_state(), state)
