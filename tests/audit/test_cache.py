"""The model cache: what it serves is what would have been trained, and it survives others working in its folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from encircle.audit import cache as module
from encircle.audit.cache import Cache, clear
from encircle.storage import replacing
from encircle.training import fit
from encircle.training.fit import fit_on_features
from tests.training.problems import recipe, same, samples, source, weights

DAY = 24 * 60 * 60


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were really trained."""
    seeds: list[int] = []

    def counted(*arguments: Any) -> Any:
        seeds.extend(arguments[-2])
        return fit_on_features(*arguments)

    monkeypatch.setattr(module, "fit_on_features", counted)
    return seeds


def ask(cache: Cache, seed: int = 0) -> dict[str, Any]:
    return weights(fitted(cache, [seed])[0])


def fitted(cache: Cache, seeds: list[int], *, kind: Any = "table", way: Any = "loop") -> list[Any]:
    return cache.fit(source(kind), recipe(epochs=1), lambda: samples(kind), "victim", seeds, "", way)


def file_of(folder: Path, age: float = 0) -> Path:
    """The newest file, made this much older."""
    path = max(folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime)
    aged(path, age)
    return path


def aged(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_what_it_serves_equals_what_was_trained_bit_for_bit(tmp_path: Path, trained: list[int]) -> None:
    cache = Cache(tmp_path, "a")
    first, again = ask(cache), ask(cache)
    assert trained == [0]
    assert same(first, again)
    assert same(first, weights(fit(source("table"), recipe(epochs=1), samples("table"), "victim", 0)))


def test_a_served_model_is_in_eval_mode(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "a")
    for _ in range(2):
        assert not fitted(cache, [0], kind="image")[0].training


def test_another_identity_or_seed_is_another_model(tmp_path: Path, trained: list[int]) -> None:
    ask(Cache(tmp_path, "a"))
    ask(Cache(tmp_path, "a"), seed=1)
    ask(Cache(tmp_path, "b"))
    assert trained == [0, 1, 0]


@pytest.mark.parametrize("damage", [b"", b"hello", None])
def test_a_damaged_file_is_trained_anew(tmp_path: Path, trained: list[int], damage: bytes | None) -> None:
    cache = Cache(tmp_path, "a")
    first = ask(cache)
    path = file_of(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7] if damage is None else damage)
    assert same(first, ask(cache))
    assert trained == [0, 0]
    assert path.read_bytes() == whole


def test_the_least_recently_used_is_trimmed_at_the_limit(tmp_path: Path, trained: list[int]) -> None:
    ask(Cache(tmp_path, "a"), seed=0)
    oldest = file_of(tmp_path, age=300)
    room_for_two = Cache(tmp_path, "a", limit=2 * oldest.stat().st_size + 100)
    ask(room_for_two, seed=1)
    unused = file_of(tmp_path, age=200)
    ask(room_for_two, seed=0)  # used again: now the younger one is the least recently used
    ask(room_for_two, seed=2)
    assert oldest.exists()
    assert not unused.exists()
    assert len(list(tmp_path.iterdir())) == 2
    assert trained == [0, 1, 2]


def test_what_is_not_the_cache_s_neither_counts_nor_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x" * 10_000)
    (tmp_path / "folder").mkdir()
    cache = Cache(tmp_path, "a", limit=100)
    cache.write("0" * 64, lambda path: path.write_bytes(b"y" * 50), suffix=".json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0" * 64 + ".json", "folder", "notes.txt"]


def test_what_others_are_writing_neither_counts_nor_is_deleted(tmp_path: Path) -> None:
    ask(Cache(tmp_path, "a"))
    kept = file_of(tmp_path, age=100)
    with replacing(tmp_path / "other.safetensors") as partial:
        partial.write_bytes(bytes(10 * kept.stat().st_size))
        aged(partial, 200)
        ask(Cache(tmp_path, "a", limit=3 * kept.stat().st_size), seed=1)
        assert partial.exists()
        assert kept.exists()


def test_what_a_killed_process_left_is_swept_after_a_day(tmp_path: Path) -> None:
    for name, age in ((".partial-1-a.safetensors", DAY + 60), (".partial-2-b.safetensors", DAY - 60)):
        (tmp_path / name).write_bytes(b"half")
        aged(tmp_path / name, age)
    ask(Cache(tmp_path, "a"))
    assert [path.name for path in tmp_path.glob(".*")] == [".partial-2-b.safetensors"]


def test_files_that_vanish_meanwhile_are_no_error(
    tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path, "a")
    first = ask(cache)
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")  # listed, but cannot be looked at
    ask(cache, seed=1)

    def trimmed_by_another(path: Path) -> dict[str, Any]:
        content = read(path)
        path.unlink()
        return content

    read = module.read_weights
    monkeypatch.setattr(module, "read_weights", trimmed_by_another)
    assert same(first, ask(cache))
    assert trained == [0, 1]


def test_several_are_served_in_the_order_asked_for_and_only_what_is_missing_is_trained(
    tmp_path: Path, trained: list[int]
) -> None:
    cache = Cache(tmp_path, "a")
    second = ask(cache, seed=1)
    found = [weights(model) for model in fitted(cache, [0, 1, 2])]
    assert trained == [1, 0, 2]
    assert same(found[1], second)
    assert all(same(ask(cache, seed), found[seed]) for seed in range(3))


def test_models_trained_at_once_are_trained_at_once_again_when_one_is_missing(
    tmp_path: Path, trained: list[int]
) -> None:
    cache = Cache(tmp_path, "a")
    first = [weights(model) for model in fitted(cache, [0, 1, 2], way="vectorised")]
    file_of(tmp_path).unlink()
    again = [weights(model) for model in fitted(cache, [0, 1, 2], way="vectorised")]
    assert trained == [0, 1, 2, 0, 1, 2]
    assert all(same(one, other) for one, other in zip(first, again, strict=True))


def test_clearing_deletes_what_a_cache_keeps_and_nothing_else(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "a")
    fitted(cache, [0, 1])
    cache.write("f" * 64, lambda path: path.write_text("{}") and None, suffix=".json")
    for name in ("notes.txt", "my-model.safetensors", f"{'a' * 63}.json"):
        (tmp_path / name).write_text("mine")
    count, freed = clear(tmp_path)
    assert count == 3
    assert freed > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["notes.txt", "my-model.safetensors", f"{'a' * 63}.json"]
    )
    assert clear(tmp_path) == clear(tmp_path / "nowhere") == (0, 0)
