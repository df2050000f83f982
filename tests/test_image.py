from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmsd.data.image import read_image
from fmsd.types import InputError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.stack([GREY, 2 * GREY, 3 * GREY], -1)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_colour_is_read_as_rgb(tmp_path: Path) -> None:
    assert np.array_equal(read_image(saved(tmp_path / "a.png", Image.fromarray(COLOUR))), COLOUR)


def test_grey_palette_and_transparency(tmp_path: Path) -> None:
    expected = np.repeat(GREY[..., None], 3, 2)
    assert np.array_equal(read_image(saved(tmp_path / "grey.png", Image.fromarray(GREY))), expected)
    assert np.array_equal(read_image(saved(tmp_path / "palette.png", Image.fromarray(GREY).convert("P"))), expected)
    layered = Image.fromarray(np.dstack([COLOUR, np.full_like(GREY, 7)]), "RGBA")
    assert np.array_equal(read_image(saved(tmp_path / "alpha.png", layered)), COLOUR)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 257
    assert np.array_equal(read_image(saved(tmp_path / "deep.png", Image.fromarray(deep))), np.repeat(GREY[..., None], 3, 2))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = saved(tmp_path / "ink.jpg", Image.fromarray(np.full((16, 16, 3), [200, 40, 40], np.uint8)).convert("CMYK"), quality=95)
    assert np.abs(read_image(path).reshape(-1, 3).mean(0) - [200, 40, 40]).max() < 8


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by a quarter turn to the right
    path = saved(tmp_path / "turned.png", Image.fromarray(COLOUR), exif=exif)
    assert np.array_equal(read_image(path), np.rot90(COLOUR, -1))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / f"half.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"half\.{suffix} cannot be read .*restore it"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"text\.jpg cannot be read"):
        read_image(path)
    with pytest.raises(InputError, match=r"absent\.jpg cannot be read"):
        read_image(tmp_path / "absent.jpg")
