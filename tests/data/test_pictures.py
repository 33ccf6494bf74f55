"""Pictures from files: the central square, whatever the colour mode; bounded memory; every kind of damage named."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from encircle.core import InputError
from encircle.data import PictureFiles, stanford_dogs
from encircle.data import pictures as module
from encircle.data.pictures import decoded, file_orientation, in_central_square, orientation
from tests.data.layouts import dogs, picture


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_what_is_decoded_is_what_a_library_crops_and_resizes(tmp_path: Path) -> None:
    image = picture(0, (50, 36))
    expected = ImageOps.fit(image, (16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(
        decoded(saved(tmp_path / "a.png", image), 16).astype(float), np.asarray(expected).astype(float), atol=1
    )


def test_jpeg_decoded_small_is_close_to_jpeg_decoded_whole(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", picture(1, (400, 300)), quality=95)
    with Image.open(path) as image:
        expected = ImageOps.fit(image.convert("RGB"), (32, 32), Image.Resampling.BICUBIC)
    assert np.abs(decoded(path, 32).astype(float) - np.asarray(expected).astype(float)).mean() < 2


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "LA", "RGB"])
def test_every_colour_mode_becomes_three_channels(tmp_path: Path, mode: str) -> None:
    ending = "jpg" if mode in {"CMYK", "L", "RGB"} else "png"
    path = saved(tmp_path / f"a.{ending}", picture(2).convert(mode))
    assert decoded(path, 8).shape == (8, 8, 3)


def test_grey_stays_grey_and_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    grey = decoded(saved(tmp_path / "grey.jpg", picture(3).convert("L"), quality=95), 8)
    assert np.ptp(grey.astype(int), axis=2).max() == 0
    plain = decoded(saved(tmp_path / "a.jpg", picture(3), quality=95), 8).astype(float)
    cmyk = decoded(saved(tmp_path / "b.jpg", picture(3).convert("CMYK"), quality=95), 8).astype(float)
    assert np.abs(plain - cmyk).mean() < 6


RAMP = np.tile(np.linspace(0, 1, 8), (8, 1))
LEVELS = np.rint(RAMP * 65535).astype(np.uint16)
EIGHT = np.rint(LEVELS / 257).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path: Path, pixels: np.ndarray, colour: int, bits: int = 8, **chunks: bytes) -> Path:
    """A PNG of a kind that Pillow does not write: colour 0 is grey, 2 RGB, 3 a palette, 4 grey with alpha, 6 RGB with alpha."""
    height, width = pixels.shape[:2]
    if bits < 8:
        packed = np.packbits(
            (pixels[:, :, None] >> np.arange(bits)[::-1] & 1).reshape(height, -1).astype(np.uint8), axis=1
        )
    else:
        packed = pixels.astype(">u2" if bits == 16 else np.uint8)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    for name in ("PLTE", "tRNS"):
        content += chunk(name.encode(), chunks[name]) if name in chunks else b""
    content += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))) + chunk(b"IEND", b"")
    path.write_bytes(content)
    return path


def tiff(path: Path, pixels: np.ndarray, **tags: int) -> Path:
    """A TIFF of a kind that Pillow does not write, with one strip and these tags (`t258=12`) besides."""
    height, width = pixels.shape
    endian = ">" if pixels.dtype.byteorder == ">" else "<"
    data = pixels.tobytes()
    entries = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    entries |= {279: len(data)} | {int(name[1:]): value for name, value in tags.items()}
    directory = struct.pack(endian + "H", len(entries))
    for tag, value in sorted(entries.items()):
        directory += struct.pack(endian + "HHII", tag, 4, 1, value)
    header = (b"MM" if endian == ">" else b"II") + struct.pack(endian + "HI", 42, 8 + len(data))
    path.write_bytes(header + data + directory + b"\0\0\0\0")
    return path


class TestSixteenBits:
    @pytest.mark.parametrize("ending", ["png", "tif", "jp2", "pgm"])
    def test_grey_is_scaled_to_eight(self, tmp_path: Path, ending: str) -> None:
        path = saved(tmp_path / f"a.{ending}", Image.fromarray(LEVELS))
        np.testing.assert_array_equal(decoded(path, 8), np.repeat(EIGHT[:, :, None], 3, axis=2))

    def test_every_level_is_rounded_to_the_nearest(self, tmp_path: Path) -> None:
        levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        path = saved(tmp_path / "a.png", Image.fromarray(levels))
        expected = np.rint(levels.astype(float) / 257)
        np.testing.assert_array_equal(decoded(path, 256)[:, :, 0], expected)

    def test_both_byte_orders_and_white_for_zero(self, tmp_path: Path) -> None:
        for name, pixels, expected, tags in (
            ("big", LEVELS.astype(">u2"), EIGHT, {}),
            ("little", LEVELS.astype("<u2"), EIGHT, {}),
            ("inverted", LEVELS.astype("<u2"), 255 - EIGHT, {"t262": 0}),
            ("eight inverted", EIGHT, 255 - EIGHT, {"t262": 0}),
        ):
            path = tiff(tmp_path / f"{name}.tif", pixels, **tags)
            np.testing.assert_array_equal(decoded(path, 8)[:, :, 0], expected)

    def test_twelve_bits_reach_white(self, tmp_path: Path) -> None:
        levels = np.rint(RAMP * 4095).astype(int)
        first, second = levels[:, ::2], levels[:, 1::2]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).reshape(8, 12)
        path = tiff(tmp_path / "a.tif", packed.astype(np.uint8), t256=8, t258=12)
        np.testing.assert_allclose(decoded(path, 8)[:, :, 0], RAMP * 255, atol=0.51)
        (tmp_path / "a.pgm").write_bytes(b"P5\n8 8\n4095\n" + levels.astype(">u2").tobytes())
        np.testing.assert_allclose(decoded(tmp_path / "a.pgm", 8)[:, :, 0], RAMP * 255, atol=0.51)

    @pytest.mark.parametrize("channels", [3, 4])
    def test_colour_is_cut_to_eight(self, tmp_path: Path, channels: int) -> None:
        pixels = np.stack([LEVELS, LEVELS[:, ::-1], LEVELS.T, np.full_like(LEVELS, 65535)], axis=2)[:, :, :channels]
        pixels_read = decoded(png(tmp_path / "a.png", pixels, {3: 2, 4: 6}[channels], 16), 8)
        np.testing.assert_array_equal(pixels_read, pixels[:, :, :3] >> 8)

    @pytest.mark.parametrize(
        ("pixels", "tags"),
        [
            (RAMP.astype(np.float32), {"t339": 3}),
            (LEVELS.astype(np.uint32), {}),
            (LEVELS.astype(np.int32), {"t339": 2}),
            (LEVELS.astype(np.int16), {"t339": 2}),
            (EIGHT.astype(np.int8), {"t339": 2}),
        ],
        ids=lambda value: str(getattr(value, "dtype", "")),
    )
    def test_what_states_no_range_is_refused(self, tmp_path: Path, pixels: np.ndarray, tags: dict[str, int]) -> None:
        path = tiff(tmp_path / "a.tif", pixels, **tags)
        kind = "floating-point numbers" if pixels.dtype.kind == "f" else "integers"
        with pytest.raises(InputError, match=rf"a\.tif holds {kind} that state no range from black to white; save it"):
            decoded(path, 8)

    def test_a_float_map_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.pfm").write_bytes(b"Pf\n8 8\n-1.0\n" + RAMP.astype("<f4").tobytes())
        with pytest.raises(InputError, match="floating-point numbers that state no range"):
            decoded(tmp_path / "a.pfm", 8)


class TestTransparency:
    """What is hidden must not be seen: a dark square under transparency shows white."""

    HIDDEN = np.where(RAMP < 0.5, 0, 255).astype(np.uint8)
    """Of alpha: the left half is hidden."""

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    @pytest.mark.parametrize("ending", ["png", "webp", "tif"])
    def test_alpha_shows_white(self, tmp_path: Path, mode: str, ending: str) -> None:
        image = Image.fromarray(np.full((8, 8), 40, np.uint8)).convert(mode)
        image.putalpha(Image.fromarray(self.HIDDEN))
        path = saved(tmp_path / f"a.{ending}", image, **({"lossless": True} if ending == "webp" else {}))
        np.testing.assert_array_equal(decoded(path, 8)[:, :, 1], np.where(self.HIDDEN, 40, 255))

    @given(st.integers(0, 255), st.integers(0, 255))
    def test_half_transparent_is_half_white(self, alpha: int, level: int) -> None:
        with TemporaryDirectory() as folder:
            path = saved(Path(folder) / "a.png", Image.new("RGBA", (1, 1), (level, level, level, alpha)))
            assert abs(float(decoded(path, 1)[0, 0, 0]) - (level * alpha + 255 * (255 - alpha)) / 255) <= 1

    @pytest.mark.parametrize("ending", ["png", "gif"])
    def test_a_transparent_entry_of_a_palette_shows_white(self, tmp_path: Path, ending: str) -> None:
        image = Image.fromarray((self.HIDDEN // 255).astype(np.uint8), "L").convert("P")
        image.putdata([int(value) for value in self.HIDDEN.ravel() // 255])
        image.putpalette([10, 20, 30, 40, 50, 60])
        path = saved(tmp_path / f"a.{ending}", image, transparency=0)
        colours = decoded(path, 8)
        np.testing.assert_array_equal(colours[:, :4], 255)
        np.testing.assert_array_equal(colours[:, 4:], np.broadcast_to([40, 50, 60], (8, 4, 3)))

    def test_a_palette_may_be_half_transparent(self, tmp_path: Path) -> None:
        path = png(tmp_path / "a.png", self.HIDDEN // 255, 3, PLTE=bytes([0, 0, 0, 40, 50, 60]), tRNS=bytes([0, 255]))
        assert decoded(path, 8)[0, :, 0].tolist() == [255] * 4 + [40] * 4

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    def test_a_transparent_grey_shows_white(self, tmp_path: Path, bits: int) -> None:
        highest = 2**bits - 1
        pixels = np.rint(RAMP * highest).astype(np.uint16)
        hidden = int(pixels[0, 1])
        levels = decoded(png(tmp_path / "a.png", pixels, 0, bits, tRNS=struct.pack(">H", hidden)), 8)[:, :, 0]
        expected = np.where(pixels == hidden, 255, np.rint(pixels / highest * 255))
        np.testing.assert_array_equal(levels, expected)

    @pytest.mark.parametrize("bits", [8, 16])
    def test_a_transparent_colour_shows_white(self, tmp_path: Path, bits: int) -> None:
        levels = EIGHT if bits == 8 else LEVELS
        pixels = np.stack([levels, levels, levels.T], axis=2)
        hidden = [int(value) for value in pixels[2, 1]]
        colours = decoded(png(tmp_path / "a.png", pixels, 2, bits, tRNS=struct.pack(">HHH", *hidden)), 8)
        expected = np.where((pixels == hidden).all(axis=2)[:, :, None], 255, pixels if bits == 8 else pixels >> 8)
        np.testing.assert_array_equal(colours, expected)


class TestOrientation:
    @pytest.mark.parametrize("number", range(1, 9))
    @pytest.mark.parametrize(
        ("ending", "size"),
        [("png", (40, 30)), ("tif", (31, 48)), ("webp", (40, 31)), ("jpg", (31, 48)), ("jpg", (400, 301))],
    )
    def test_pictures_are_turned_upright(self, tmp_path: Path, ending: str, number: int, size: tuple[int, int]) -> None:
        image, exif = picture(5, size), Image.Exif()
        exif[274] = number
        options = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(ending, {})
        path = saved(tmp_path / f"a.{ending}", image, exif=exif, **options)
        with Image.open(path) as opened:
            assert orientation(opened) == number
            upright = ImageOps.exif_transpose(opened).convert("RGB")
        expected = decoded(saved(tmp_path / "upright.png", upright), 16)
        assert np.abs(decoded(path, 16).astype(float) - expected.astype(float)).mean() < (
            2 if ending == "jpg" else 0.01
        )

    def test_grey_of_16_bits_is_turned_too(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 3
        path = saved(tmp_path / "a.png", Image.fromarray(LEVELS), exif=exif)
        np.testing.assert_array_equal(decoded(path, 8)[:, :, 0], EIGHT[::-1, ::-1])

    @pytest.mark.parametrize(
        "exif", [b"Exif\0\0nonsense", b"", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0"]
    )
    def test_damaged_metadata_is_passed_over(self, tmp_path: Path, exif: bytes) -> None:
        path = saved(tmp_path / "a.jpg", picture(5), quality=95, exif=exif)
        plain = saved(tmp_path / "b.jpg", picture(5), quality=95)
        np.testing.assert_array_equal(decoded(path, 16), decoded(plain, 16))
        assert file_orientation(path) == file_orientation(tmp_path / "none.jpg") == 1


def test_a_box_in_a_picture_that_exif_turns_is_refused(tmp_path: Path) -> None:
    folder, exif = dogs(tmp_path / "dogs"), Image.Exif()
    exif[274] = 6
    path = min((folder / "Images").glob("*/*_8.jpg"))  # of the test part
    saved(path, picture(5), exif=exif)
    with pytest.raises(InputError, match=r"_8\.jpg is turned by its EXIF orientation but its box in .* is not"):
        stanford_dogs(folder, side=16)
    (folder / "Annotation" / path.parent.name / path.stem).unlink()
    assert len(stanford_dogs(folder, side=16).boxes) == 8


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_frames_counts(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((10, 20, 30), (200, 100, 50))]
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert decoded(path, 4)[2, 2].tolist() == [10, 20, 30]


def files(folder: Path, count: int, side: int = 8) -> list[Path]:
    return [saved(folder / f"{number}.png", picture(number, (side, side))) for number in range(count)]


def test_batches_are_the_rows_asked_for_in_order_and_repeated(tmp_path: Path) -> None:
    samples = PictureFiles(files(tmp_path, 5), torch.arange(5), 8)
    batch = samples.batch(torch.tensor([3, 0, 3]))
    assert batch.dtype == torch.float32
    assert torch.equal(batch[0], batch[2])
    for index, row in enumerate((3, 0)):
        expected = torch.from_numpy(np.array(picture(row, (8, 8)))).permute(2, 0, 1).float() / 255
        torch.testing.assert_close(batch[index], expected)
    assert samples.batch(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 8, 8)


def test_only_so_many_bytes_are_kept_and_kept_ones_are_not_read_again(tmp_path: Path) -> None:
    paths = files(tmp_path, 6)
    samples = PictureFiles(paths, torch.arange(6), 8, cache_bytes=2 * 3 * 8 * 8)
    first = samples.batch(torch.arange(6))
    assert len(samples._cache) == 2
    for path in paths[:2]:
        path.unlink()
    assert torch.equal(samples.batch(torch.arange(2)), first[:2])
    assert torch.equal(samples.batch(torch.arange(2, 6)), first[2:])
    paths[3].unlink()
    with pytest.raises(InputError, match="does not exist"):
        samples.batch(torch.tensor([3]))


def test_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = saved(tmp_path / "a.jpg", picture(4, (200, 200)), quality=95).read_bytes()
    cases = {"truncated.jpg": complete[: len(complete) // 2], "text.jpg": b"hello", "empty.jpg": b""}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} cannot be decoded \(.+\); replace or drop it"):
            decoded(tmp_path / name, 8)
    with pytest.raises(InputError, match=r"gone\.jpg does not exist"):
        decoded(tmp_path / "gone.jpg", 8)
    monkeypatch.setattr(module, "LARGEST", 100)
    with pytest.raises(InputError, match="200x200 pixels"):
        decoded(tmp_path / "a.jpg", 8)


def test_a_picture_larger_than_pillow_trusts_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.png", picture(4, (200, 200)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="cannot be decoded"):
        decoded(path, 8)


def test_labels_and_files_must_match(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 picture files but 1 labels"):
        PictureFiles(files(tmp_path, 2), torch.arange(1), 8)


@given(st.integers(1, 300), st.integers(1, 300), st.tuples(*[st.floats(0, 1)] * 4))
def test_boxes_in_the_square_are_where_their_pixels_are(width: int, height: int, corners: tuple[float, ...]) -> None:
    top, bottom = sorted(corners[:2])
    left, right = sorted(corners[2:])
    box = in_central_square((top * height, left * width, bottom * height, right * width), (width, height))
    edge = min(width, height)
    inside = [
        max(top * height, (height - edge) / 2) < min(bottom * height, (height + edge) / 2),
        max(left * width, (width - edge) / 2) < min(right * width, (width + edge) / 2),
    ]
    if box is None:
        assert not all(inside) or min(bottom - top, right - left) < 1e-9
    else:
        assert all(0 <= edge_share <= 1 for edge_share in box)
        assert box[0] < box[2]
        assert box[1] < box[3]


def test_a_box_of_the_whole_square_is_one() -> None:
    assert in_central_square((0.0, 10.0, 30.0, 40.0), (50, 30)) == (0, 0, 1, 1)
