"""Products: whole or absent, and never outside of their folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encircle.core import StorageError
from encircle.jobs.products import MANIFEST, commit, is_complete, pack, remove, seal, unpack

from .stubs import task

NAMES = st.lists(st.text("abc.", min_size=1, max_size=3).filter(lambda name: name.strip(".")), min_size=1, max_size=3)


def product(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    seal(folder, task(0))
    return folder


@given(st.dictionaries(NAMES.map(lambda parts: "d/" * (len(parts) - 1) + parts[-1] + "x"), st.binary(max_size=50)))
def test_what_is_packed_is_what_is_unpacked(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    root = tmp_path_factory.mktemp("products")
    here = product(root / "here", {"always": b"", **files})
    unpack(pack(here), root / "there")
    assert pack(root / "there") == pack(here)
    assert is_complete(root / "there", task(0).id, thorough=True)


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../out", "..", "a\\..\\b", ""])
def test_names_that_lead_outside_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="outside of its folder"):
        unpack({name: b"x"}, tmp_path / "in")
    here = product(tmp_path / "here", {"a": b"1"})
    (tmp_path / "out").write_bytes(b"x")
    manifest = json.loads((here / MANIFEST).read_text())
    manifest["files"][name] = [1, "0"]
    (here / MANIFEST).write_text(json.dumps(manifest))
    assert not is_complete(here, task(0).id)


def test_a_link_is_no_product(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to("/etc/hostname")
    with pytest.raises(StorageError, match="left a link"):
        seal(tmp_path / "out", task(0))


def test_commit_replaces_what_stood_there(tmp_path: Path) -> None:
    out = product(tmp_path / "out", {"a": b"new", "d/b": b"new"})
    product(tmp_path / "place" / "it", {"a": b"old", "c": b"old"})
    commit(out, tmp_path / "place" / "it")
    assert set(pack(tmp_path / "place" / "it")) == {"a", "d/b", MANIFEST}
    assert is_complete(tmp_path / "place" / "it", task(0).id, thorough=True)
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["it"]
    assert not out.exists()


def test_commit_says_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        commit(product(tmp_path / "out", {"a": b"1"}), tmp_path / "file" / "it")


DAMAGES: dict[str, Any] = {
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "half a manifest": lambda folder: (folder / MANIFEST).write_text('{"task": '),
    "another manifest": lambda folder: (folder / MANIFEST).write_text("[]"),
    "a strange manifest": lambda folder: (folder / MANIFEST).write_text(
        f'{{"task": "{task(0).id}", "files": {{"a": 3}}}}'
    ),
    "a missing file": lambda folder: (folder / "a").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen(damage: str, tmp_path: Path) -> None:
    here = product(tmp_path / "here", {"a": b"1"})
    assert is_complete(here, task(0).id)
    assert not is_complete(here, task(1).id)
    DAMAGES[damage](here)
    assert not is_complete(here, task(0).id)
    assert not is_complete(here, task(0).id, thorough=True)


def test_changed_bytes_are_seen_by_a_thorough_look_only(tmp_path: Path) -> None:
    here = product(tmp_path / "here", {"a": b"1"})
    (here / "a").write_bytes(b"2")
    assert is_complete(here, task(0).id)
    assert not is_complete(here, task(0).id, thorough=True)


def test_removing_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")
    remove(product(tmp_path / "here", {"a": b"1"}))
    assert list(tmp_path.iterdir()) == []
