"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polars.exceptions import PolarsError

from encircle.core import EncircleError, InputError, StorageError
from encircle.storage import (
    check_length,
    exclusive_lock,
    file_error,
    read_arrays,
    read_json,
    replacing,
    replacing_folder,
    sha256_of,
    sweep,
    write_arrays,
    write_bytes,
    write_json,
    write_parquet,
    write_text,
)

CROWDED = """
import resource, sys
from pathlib import Path
from encircle.core import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # what a full disk does to a write, without filling one
path = Path(sys.argv[1])
try:
    {statement}
except StorageError as error:
    print(error)
else:
    sys.exit("no StorageError")
"""


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def crowded(path: Path, statement: str) -> str:
    code = CROWDED.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestReplacing:
    def test_makes_the_file_and_its_folders(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a" / "b" / "new.txt", "ä")
        assert (tmp_path / "a" / "b" / "new.txt").read_bytes() == "ä".encode()
        assert names(tmp_path) == ["a", "a/b", "a/b/new.txt"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, StorageError])
    def test_keeps_the_old_file_when_the_block_fails(self, tmp_path: Path, error: type[BaseException]) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        with pytest.raises(error), replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise error("stopped")
        assert path.read_text() == "old"
        assert names(tmp_path) == ["file"]

    def test_nobody_sees_a_half_written_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"

    def test_a_block_that_writes_nothing_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="cannot write"), replacing(tmp_path / "file"):
            pass
        assert names(tmp_path) == []

    def test_a_full_disk_is_a_storage_error_and_keeps_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        said = crowded(path, "from encircle.storage import write_bytes; write_bytes(path, bytes(100_000))")
        assert said.startswith(f"cannot write {path}: File too large; free some space")
        assert path.read_text() == "old"
        assert names(tmp_path) == ["file"]

    @pytest.mark.parametrize("make", [replacing, replacing_folder])
    def test_a_folder_that_cannot_be_made_is_a_storage_error(self, tmp_path: Path, make: object) -> None:
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(StorageError, match="cannot write"), make(tmp_path / "file" / "below"):  # type: ignore[operator]
            pass
        assert names(tmp_path) == ["file"]


class TestReplacingFolder:
    def test_replaces_the_whole_folder(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "old").write_text("old")
        with replacing_folder(tmp_path / "folder") as temporary:
            (temporary / "new").write_text("new")
        assert names(tmp_path) == ["folder", "folder/new"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
    def test_keeps_the_old_folder_when_the_block_fails(self, tmp_path: Path, error: type[BaseException]) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "old").write_text("old")
        with pytest.raises(error), replacing_folder(tmp_path / "folder") as temporary:
            (temporary / "new").write_text("new")
            raise error("stopped")
        assert names(tmp_path) == ["folder", "folder/old"]

    def test_a_process_killed_while_deleting_leaves_no_half_folder(self, tmp_path: Path) -> None:
        code = f"""
import os, shutil
from pathlib import Path
from encircle import storage
real = shutil.rmtree
def deadly(path, **settings):
    if not Path(path).exists():
        return real(path, **settings)
    next(file for file in Path(path).iterdir()).unlink()
    os._exit(9)
storage.shutil.rmtree = deadly
with storage.replacing_folder(Path({str(tmp_path)!r}) / "folder") as temporary:
    for name in ("a", "b"):
        (temporary / name).write_text("new")
"""
        (tmp_path / "folder").mkdir()
        for name in ("a", "b", "c"):
            (tmp_path / "folder" / name).write_text("old")
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
        sweep(tmp_path)
        assert names(tmp_path) == ["folder", "folder/a", "folder/b"]

    def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "out"
        target.mkdir()
        (target / "old").write_text("precious")
        replace = Path.replace

        def refuse(self: Path, to: Path) -> Path:
            if to == target and "old-" not in self.name:
                raise OSError(5, "Input/output error")
            return replace(self, to)

        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(StorageError, match="cannot write"), replacing_folder(target) as temporary:
            (temporary / "new").write_text("x")
        assert (target / "old").read_text() == "precious"
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    @pytest.mark.parametrize(
        "write",
        [
            "pl.DataFrame({'x': np.arange(100_000)}).write_parquet(temporary / 'new')",
            "pl.LazyFrame({'x': np.arange(100_000)}).sink_parquet(temporary / 'new')",
            "safetensors.numpy.save_file({'x': np.zeros(100_000)}, temporary / 'new')",
            "Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)).save(temporary / 'new.png')",
        ],
    )
    def test_so_is_one_that_a_library_meets_by_itself(self, tmp_path: Path, write: str) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "old").write_text("old")
        statement = f"""
    import numpy as np, polars as pl, safetensors.numpy
    from PIL import Image
    from encircle.storage import replacing_folder
    with replacing_folder(path) as temporary:
        {write}"""
        said = crowded(tmp_path / "folder", statement.strip())
        assert said == (
            f"cannot write {tmp_path / 'folder'}: File too large; free some space or choose another folder, then run again."
        )
        assert names(tmp_path) == ["folder", "folder/old"]

    def test_other_errors_of_libraries_stay_what_they_are(self, tmp_path: Path) -> None:
        with pytest.raises(PolarsError, match="nowhere"), replacing(tmp_path / "file"):
            raise PolarsError("nowhere (os error 2)")
        assert names(tmp_path) == []

    def test_a_full_disk_is_a_storage_error_and_keeps_the_old_folder(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "old").write_text("old")
        statement = """
    from encircle.storage import replacing_folder
    with replacing_folder(path) as temporary:
        (temporary / "small").write_bytes(bytes(10))
        (temporary / "large").write_bytes(bytes(100_000))"""
        assert crowded(tmp_path / "folder", statement.strip()).startswith("cannot write")
        assert names(tmp_path) == ["folder", "folder/old"]


def test_sweep_removes_what_killed_processes_left_and_nothing_else(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from encircle.storage import replacing, replacing_folder
root = Path({str(tmp_path)!r})
with replacing(root / "deep" / "file") as file, replacing_folder(root / "folder") as folder:
    file.write_text("half")
    (folder / "inside").write_text("half")
    os._exit(9)  # as if killed
"""
    (tmp_path / "kept").write_text("kept")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert len(names(tmp_path)) == 5  # kept, deep, its partial file, the partial folder and its file
    sweep(tmp_path)
    assert names(tmp_path) == ["deep", "kept"]


class TestOnlyOne:
    def test_refuses_a_second_process(self, tmp_path: Path) -> None:
        code = f"""
import sys
from pathlib import Path
from encircle.core import InputError
from encircle.storage import exclusive_lock
try:
    with exclusive_lock(Path({str(tmp_path)!r})):
        sys.exit(1)
except InputError as error:
    sys.exit(0 if "another process is at work" in str(error) else 2)
"""
        with exclusive_lock(tmp_path):
            assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1  # free again

    def test_is_free_again_after_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), exclusive_lock(tmp_path / "new"):
            raise KeyError
        with exclusive_lock(tmp_path / "new"):
            pass

    def test_a_folder_that_cannot_be_made_is_a_storage_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(StorageError, match="cannot write"), exclusive_lock(tmp_path / "file"):
            pass


class TestArrays:
    @given(
        array=hnp.arrays(
            st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]), hnp.array_shapes(min_dims=0)
        ),
        facts=st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3),
    )
    def test_come_back_bit_for_bit(
        self, tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, facts: dict[str, str]
    ) -> None:
        path = tmp_path_factory.mktemp("arrays") / "x.safetensors"
        write_arrays(path, {"plain": array, "turned": array.T}, facts)
        arrays, facts_read = read_arrays(path)
        for name, expected in (("plain", array), ("turned", array.T)):
            assert arrays[name].dtype == expected.dtype
            assert arrays[name].shape == expected.shape
            assert arrays[name].tobytes() == expected.tobytes()
        assert facts_read == facts

    def test_a_missing_or_damaged_file_is_a_storage_error(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        with pytest.raises(StorageError, match="missing or damaged"):
            read_arrays(path)
        write_arrays(path, {"x": np.ones(100)})
        complete = path.read_bytes()
        for length in (0, 4, 50, len(complete) - 1):
            path.write_bytes(complete[:length])
            with pytest.raises(StorageError, match="missing or damaged"):
                read_arrays(path)


class TestJson:
    def test_writes_what_every_reader_understands(self, tmp_path: Path) -> None:
        write_json(tmp_path / "x.json", {"a": [math.nan, (math.inf, 1.5)], 2: "ä", "none": None, "yes": True})
        assert read_json(tmp_path / "x.json") == {"a": [None, [None, 1.5]], "2": "ä", "none": None, "yes": True}
        assert "NaN" not in (tmp_path / "x.json").read_text()

    def test_refuses_what_is_missing_or_not_json(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            read_json(tmp_path / "x.json")
        for content in (b'{"a": ', b"\xff\xfe\x00"):
            write_bytes(tmp_path / "x.json", content)
            with pytest.raises(InputError, match="damaged"):
                read_json(tmp_path / "x.json")


def test_a_table_comes_back(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1, 2], "y": [0.5, None]})
    write_parquet(tmp_path / "x.parquet", frame)
    assert pl.read_parquet(tmp_path / "x.parquet").equals(frame)


@pytest.mark.parametrize(("name", "long"), [("x" * 236, False), ("x" * 250, True), ("x/" * 3000, True)])
def test_a_path_that_is_too_long_is_refused_before_anything_is_done(name: str, long: bool, tmp_path: Path) -> None:
    if long:
        with pytest.raises(InputError, match=r"is too long for the file system; choose a shorter one\.$"):
            check_length(tmp_path / name)
    else:
        check_length(tmp_path / name)
        write_text(tmp_path / name, "x")
    with pytest.raises(StorageError, match=r"File name too long; choose a shorter name\.$"):
        write_text(tmp_path / ("x" * 300), "x")


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a"),
            StorageError,
            "cannot write a: No space left on device; free",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            StorageError,
            "cannot write runs: Disk quota exceeded; free some",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", b"a"),
            InputError,
            "a: No such file or directory; check",
        ),
        (OSError("odd"), InputError, "runs: odd; check the path."),
    ],
)
def test_errors_of_the_system_are_sentences(error: OSError, kind: type[EncircleError], sentence: str) -> None:
    explained = file_error(error, Path("runs"))
    assert type(explained) is kind
    assert str(explained).startswith(sentence)


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_files_sha256_is_that_of_its_bytes(size: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()
