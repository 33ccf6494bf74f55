"""Poison as files: exact when read back, marked, and refused once changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from encircle.core import InputError, StorageError, digest
from encircle.data.poison import MARK, MARK_KEY, Poison, find_marked

SHAPES = {"grey": (1, 6, 5), "colour": (3, 4, 7), "table": (4,)}


def poison(kind: str, count: int = 3, seed: int = 0) -> Poison:
    random = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, *SHAPES[kind], generator=random)
    if kind != "table":
        inputs = (inputs * 255).round() / 255
    bases = torch.arange(count) - 1
    return Poison(inputs, torch.arange(count) % 2, bases, inputs.clone(), bases.flip(0))


def load(folder: Path, original: Poison) -> Poison:
    def base_inputs(rows: Tensor) -> Tensor:
        assert torch.equal(rows, original.bases)
        return original.base_inputs

    return Poison.load(folder, base_inputs)


@pytest.fixture(params=SHAPES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def export(tmp_path: Path, kind: str) -> Path:
    poison(kind).save(tmp_path / "poison", about={"arm": "imf"})
    return tmp_path / "poison"


class TestRoundTrip:
    @pytest.mark.parametrize("count", [0, 1, 11])
    def test_gives_back_every_bit(self, tmp_path: Path, kind: str, count: int) -> None:
        original = poison(kind, count)
        original.save(tmp_path / "poison")
        read = load(tmp_path / "poison", original)
        assert len(read) == count
        for name in ("inputs", "labels", "bases", "base_inputs", "overwritten"):
            values, expected = getattr(read, name), getattr(original, name)
            assert values.dtype == expected.dtype
            assert values.shape == expected.shape
            assert torch.equal(values, expected), name

    @given(st.lists(st.floats(width=32, allow_nan=False), min_size=4, max_size=4))
    def test_a_table_keeps_float32_to_the_bit(
        self, tmp_path_factory: pytest.TempPathFactory, values: list[float]
    ) -> None:
        row = torch.tensor([values], dtype=torch.float32)
        zero = torch.zeros(1, dtype=torch.int64)
        folder = tmp_path_factory.mktemp("table") / "poison"
        Poison(row, zero, zero, row, zero).save(folder)
        read = Poison.load(folder, lambda rows: row).inputs
        assert read.numpy().tobytes() == row.numpy().tobytes()

    @pytest.mark.parametrize("channels", [1, 3])
    def test_every_8_bit_level_survives(self, tmp_path: Path, channels: int) -> None:
        levels = torch.arange(256).reshape(1, 1, 16, 16).repeat(1, channels, 1, 1)
        zero = torch.zeros(1, dtype=torch.int64)
        Poison(levels / 255, zero, zero, levels / 255, zero).save(tmp_path / "poison")
        assert torch.equal(Poison.load(tmp_path / "poison", lambda rows: levels / 255).inputs, levels / 255)

    def test_images_are_ordinary_pictures(self, tmp_path: Path) -> None:
        for name, mode in (("grey", "L"), ("colour", "RGB")):
            original = poison(name)
            original.save(tmp_path / name)
            for number in range(len(original)):
                with Image.open(tmp_path / name / f"{number:05d}.png") as image:
                    assert image.mode == mode
                    pixels = np.asarray(image).reshape(image.height, image.width, -1)
                expected = (original.inputs[number] * 255).round().to(torch.uint8).permute(1, 2, 0)
                assert np.array_equal(pixels, expected.numpy())

    def test_a_table_has_its_columns_by_name(self, tmp_path: Path) -> None:
        poison("table").save(tmp_path / "poison", features=["age", "weight", "x 3", "ü"])
        frame = pl.read_parquet(tmp_path / "poison" / "poison.parquet")
        assert frame.columns == ["age", "weight", "x 3", "ü", "label", MARK_KEY]
        assert frame["label"].to_list() == [0, 1, 0]
        torch.testing.assert_close(torch.tensor(frame["age"].to_list()), poison("table").inputs[:, 0])

    @pytest.mark.parametrize("features", [["a", "b", "c", "label"], [MARK_KEY, "b", "c", "d"], ["a", "a", "b", "c"]])
    def test_columns_that_would_hide_each_other_are_refused(self, tmp_path: Path, features: list[str]) -> None:
        with pytest.raises(InputError, match="rename"):
            poison("table").save(tmp_path / "poison", features=features)
        assert not (tmp_path / "poison").exists()

    def test_saving_again_replaces_the_whole_folder(self, tmp_path: Path, kind: str) -> None:
        poison(kind, 5).save(tmp_path / "poison")
        smaller = poison(kind, 2, seed=1)
        smaller.save(tmp_path / "poison")
        assert torch.equal(load(tmp_path / "poison", smaller).inputs, smaller.inputs)
        assert len(list((tmp_path / "poison").iterdir())) == (2 if kind == "table" else 3)

    def test_further_facts_are_in_the_manifest(self, export: Path) -> None:
        assert json.loads((export / "manifest.json").read_text())["arm"] == "imf"


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


class TestTampering:
    @pytest.mark.parametrize("harm", [flip_a_byte, Path.unlink, lambda path: path.write_bytes(b"")])
    def test_a_changed_or_missing_file_is_a_storage_error(
        self, export: Path, kind: str, harm: Callable[[Path], Any]
    ) -> None:
        victim = export / ("poison.parquet" if kind == "table" else "00001.png")
        harm(victim)
        with pytest.raises(StorageError, match=f"{victim.name} is missing or was changed"):
            load(export, poison(kind))

    def test_a_missing_manifest_is_an_input_error(self, export: Path, kind: str) -> None:
        (export / "manifest.json").unlink()
        with pytest.raises(InputError, match="holds no poison manifest"):
            load(export, poison(kind))

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 99}', '"x"'])
    def test_somebody_else_s_manifest_is_an_input_error(self, export: Path, kind: str, content: str) -> None:
        (export / "manifest.json").write_text(content)
        with pytest.raises(InputError):
            load(export, poison(kind))

    def test_a_manifest_cannot_point_outside_its_folder(self, export: Path, tmp_path: Path) -> None:
        manifest = json.loads((export / "manifest.json").read_text())
        name, known = next(iter(manifest["sha256"].items()))
        (export / name).rename(tmp_path / name)
        manifest["sha256"] = {f"../{name}": known}
        contents = [manifest[key] for key in ("shape", "labels", "bases", "overwritten", "sha256")]
        (export / "manifest.json").write_text(json.dumps({**manifest, "digest": digest(contents)}))
        with pytest.raises(InputError, match="is not a poison manifest"):
            Poison.load(export, lambda rows: torch.zeros(0))

    @pytest.mark.parametrize("key", ["labels", "bases", "overwritten", "shape"])
    def test_an_edited_manifest_is_a_storage_error(self, export: Path, kind: str, key: str) -> None:
        manifest = json.loads((export / "manifest.json").read_text())
        manifest[key][0] += 1
        (export / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(StorageError, match="was changed since it was exported"):
            load(export, poison(kind))

    @pytest.mark.parametrize(
        "change",
        [
            {"labels": [0]},
            {"labels": "0"},
            {"bases": [0.5]},
            {"sha256": {}},
            {"sha256": []},
            {"shape": ["x"]},
            {"shape": 3},
        ],
    )
    def test_a_manifest_of_other_lists_is_an_input_error(self, export: Path, kind: str, change: dict[str, Any]) -> None:
        manifest = json.loads((export / "manifest.json").read_text()) | change
        (export / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match="is not a poison manifest"):
            load(export, poison(kind))


class TestFindMarked:
    def test_finds_every_exported_file(self, export: Path, tmp_path: Path) -> None:
        search = find_marked(tmp_path)
        assert sorted(search.marked) == sorted(path for path in export.rglob("*") if path.is_file())
        assert search.looked_at == len(search.marked)

    def test_finds_single_files_that_were_moved_away(self, export: Path, tmp_path: Path) -> None:
        for number, path in enumerate(sorted(export.iterdir())):
            folder = tmp_path / "elsewhere" / str(number)
            folder.mkdir(parents=True)
            path.rename(folder / f"RENAMED{path.suffix.upper()}")
        assert len(find_marked(tmp_path / "elsewhere").marked) == number + 1

    def test_passes_over_unmarked_and_broken_files(self, tmp_path: Path) -> None:
        Image.new("L", (4, 4)).save(tmp_path / "clean.png")
        pl.DataFrame({"x": [1.0], "label": [0]}).write_parquet(tmp_path / "clean.parquet")
        (tmp_path / "clean.json").write_text('{"encircle": "something else"}')
        (tmp_path / "list.json").write_text("[1]")
        for name in ("broken.png", "broken.parquet", "broken.json"):
            (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\nPAR1{\xff")
        (tmp_path / "other.txt").write_text(MARK)
        (tmp_path / "folder.png").mkdir()
        search = find_marked(tmp_path)
        assert search.marked == ()
        assert search.looked_at == 7

    def test_the_mark_is_text_in_the_file_and_gone_when_a_picture_is_saved_anew(self, tmp_path: Path) -> None:
        poison("grey", 1).save(tmp_path / "poison")
        with Image.open(tmp_path / "poison" / "00000.png") as image:
            image.save(tmp_path / "stripped.png")  # saving without pnginfo drops the mark
        assert tmp_path / "stripped.png" not in find_marked(tmp_path).marked

    def test_passes_over_pictures_too_large_to_open(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.new("L", (8, 8)).save(tmp_path / "scan.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)  # Pillow refuses twice as many, taking them for an attack
        assert find_marked(tmp_path).marked == ()

    def test_needs_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="is not a folder"):
            find_marked(tmp_path / "none")
