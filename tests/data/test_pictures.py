"""Pictures from files: the central square, whatever the colour mode; bounded memory; every kind of damage named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from encircle.core import InputError
from encircle.data import PictureFiles
from encircle.data import pictures as module
from encircle.data.pictures import decoded, in_central_square
from tests.data.layouts import picture


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
        whole = ImageOps.fit(image.convert("RGB"), (32, 32), Image.Resampling.BICUBIC)
    assert np.abs(decoded(path, 32).astype(float) - np.asarray(whole).astype(float)).mean() < 2


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


def files(folder: Path, count: int, side: int = 8) -> list[Path]:
    return [saved(folder / f"{number}.png", picture(number, (side, side))) for number in range(count)]


def test_batches_are_the_rows_asked_for_in_order_and_repeated(tmp_path: Path) -> None:
    samples = PictureFiles(files(tmp_path, 5), torch.arange(5), 8)
    batch = samples.batch(torch.tensor([3, 0, 3]))
    assert batch.dtype == torch.float32
    assert torch.equal(batch[0], batch[2])
    for place, row in enumerate((3, 0)):
        expected = torch.from_numpy(np.array(picture(row, (8, 8)))).permute(2, 0, 1).float() / 255
        torch.testing.assert_close(batch[place], expected)
    assert samples.batch(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 8, 8)


def test_only_so_many_bytes_are_kept_and_kept_ones_are_not_read_again(tmp_path: Path) -> None:
    paths = files(tmp_path, 6)
    samples = PictureFiles(paths, torch.arange(6), 8, kept=2 * 3 * 8 * 8)
    first = samples.batch(torch.arange(6))
    assert len(samples._kept) == 2
    for path in paths[:2]:
        path.unlink()
    assert torch.equal(samples.batch(torch.arange(2)), first[:2])
    assert torch.equal(samples.batch(torch.arange(2, 6)), first[2:])
    paths[3].unlink()
    with pytest.raises(InputError, match="does not exist"):
        samples.batch(torch.tensor([3]))


def test_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved(tmp_path / "a.jpg", picture(4, (200, 200)), quality=95).read_bytes()
    cases = {"truncated.jpg": whole[: len(whole) // 2], "text.jpg": b"hello", "empty.jpg": b""}
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
    found = in_central_square((top * height, left * width, bottom * height, right * width), (width, height))
    edge = min(width, height)
    inside = [
        max(top * height, (height - edge) / 2) < min(bottom * height, (height + edge) / 2),
        max(left * width, (width - edge) / 2) < min(right * width, (width + edge) / 2),
    ]
    if found is None:
        assert not all(inside) or min(bottom - top, right - left) < 1e-9
    else:
        assert all(0 <= each <= 1 for each in found)
        assert found[0] < found[2]
        assert found[1] < found[3]


def test_a_box_of_the_whole_square_is_one() -> None:
    assert in_central_square((0.0, 10.0, 30.0, 40.0), (50, 30)) == (0, 0, 1, 1)
