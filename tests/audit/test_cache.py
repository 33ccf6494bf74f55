"""The model cache: what it serves is what would have been trained, and it survives others working in its folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from encircle.audit import cache as module
from encircle.audit.cache import ModelCache
from encircle.storage import replacing
from encircle.training import fit
from tests.training.problems import recipe, same, samples, source, weights

DAY = 24 * 60 * 60


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were really trained."""
    seeds: list[int] = []

    def counted(*arguments: Any) -> Any:
        seeds.append(arguments[-1])
        return fit(*arguments)

    monkeypatch.setattr(module, "fit", counted)
    return seeds


def ask(cache: ModelCache, seed: int = 0) -> dict[str, Any]:
    return weights(cache.fit(source("table"), recipe(epochs=1), samples("table"), "victim", seed, ""))


def file_of(folder: Path, age: float = 0) -> Path:
    """The newest file, made this much older."""
    path = max(folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime)
    aged(path, age)
    return path


def aged(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_what_it_serves_equals_what_was_trained_bit_for_bit(tmp_path: Path, trained: list[int]) -> None:
    cache = ModelCache(tmp_path, "a")
    first, again = ask(cache), ask(cache)
    assert trained == [0]
    assert same(first, again)
    assert same(first, weights(fit(source("table"), recipe(epochs=1), samples("table"), "victim", 0)))


def test_a_served_model_is_in_eval_mode(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, "a")
    for _ in range(2):
        assert not cache.fit(source("image"), recipe(epochs=1), samples("image"), "victim", 0, "").training


def test_another_identity_or_seed_is_another_model(tmp_path: Path, trained: list[int]) -> None:
    ask(ModelCache(tmp_path, "a"))
    ask(ModelCache(tmp_path, "a"), seed=1)
    ask(ModelCache(tmp_path, "b"))
    assert trained == [0, 1, 0]


@pytest.mark.parametrize("damage", [b"", b"hello", None])
def test_a_damaged_file_is_trained_anew(tmp_path: Path, trained: list[int], damage: bytes | None) -> None:
    cache = ModelCache(tmp_path, "a")
    first = ask(cache)
    path = file_of(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7] if damage is None else damage)
    assert same(first, ask(cache))
    assert trained == [0, 0]
    assert path.read_bytes() == whole


def test_the_least_recently_used_is_trimmed_at_the_limit(tmp_path: Path, trained: list[int]) -> None:
    ask(ModelCache(tmp_path, "a"), seed=0)
    oldest = file_of(tmp_path, age=300)
    room_for_two = ModelCache(tmp_path, "a", limit=2 * oldest.stat().st_size + 100)
    ask(room_for_two, seed=1)
    unused = file_of(tmp_path, age=200)
    ask(room_for_two, seed=0)  # used again: now the younger one is the least recently used
    ask(room_for_two, seed=2)
    assert oldest.exists()
    assert not unused.exists()
    assert len(list(tmp_path.iterdir())) == 2
    assert trained == [0, 1, 2]


def test_what_others_are_writing_neither_counts_nor_is_deleted(tmp_path: Path) -> None:
    ask(ModelCache(tmp_path, "a"))
    kept = file_of(tmp_path, age=100)
    with replacing(tmp_path / "other.safetensors") as partial:
        partial.write_bytes(bytes(10 * kept.stat().st_size))
        aged(partial, 200)
        ask(ModelCache(tmp_path, "a", limit=3 * kept.stat().st_size), seed=1)
        assert partial.exists()
        assert kept.exists()


def test_what_a_killed_process_left_is_swept_after_a_day(tmp_path: Path) -> None:
    for name, age in ((".partial-1-a.safetensors", DAY + 60), (".partial-2-b.safetensors", DAY - 60)):
        (tmp_path / name).write_bytes(b"half")
        aged(tmp_path / name, age)
    ask(ModelCache(tmp_path, "a"))
    assert [path.name for path in tmp_path.glob(".*")] == [".partial-2-b.safetensors"]


def test_files_that_vanish_meanwhile_are_no_error(
    tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(tmp_path, "a")
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
