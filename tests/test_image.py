import contextlib
import io
import runpy
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from fmsd.data.loading import image as images
from fmsd.data.loading.image import decode, parse_tar_member, read_bytes, read_image
from fmsd.data.loading.resizing import resize
from fmsd.data.loading.transforms import build_transform
from fmsd.errors import InputError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.stack([GREY, 2 * GREY, 3 * GREY], -1)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_the_import_leaves_the_warnings_of_its_user() -> None:
    before = list(warnings.filters)
    runpy.run_path(str(images.__file__))
    assert list(warnings.filters) == before


def test_colour_is_read_as_rgb(tmp_path: Path) -> None:
    assert np.array_equal(read_image(saved(tmp_path / "a.png", Image.fromarray(COLOUR))), COLOUR)


def test_grey_palette_and_transparency(tmp_path: Path) -> None:
    expected = np.repeat(GREY[..., None], 3, 2)
    assert np.array_equal(read_image(saved(tmp_path / "grey.png", Image.fromarray(GREY))), expected)
    assert np.array_equal(
        read_image(saved(tmp_path / "palette.png", Image.fromarray(GREY).convert("P"))), expected
    )
    layered = Image.fromarray(np.dstack([COLOUR, np.full_like(GREY, 7)]), "RGBA")
    assert np.array_equal(read_image(saved(tmp_path / "alpha.png", layered)), COLOUR)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 257
    assert np.array_equal(
        read_image(saved(tmp_path / "deep.png", Image.fromarray(deep))),
        np.repeat(GREY[..., None], 3, 2),
    )


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "ink.jpg",
        Image.fromarray(np.full((16, 16, 3), [200, 40, 40], np.uint8)).convert("CMYK"),
        quality=95,
    )
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


def picture(height: int = 61, width: int = 83) -> Image.Image:
    """Smooth colours with some noise: what photographs are like to a codec. Its sides are odd, so
    that blocks and chroma do not fit.
    """
    rng = np.random.default_rng(0)
    smooth = cv2.resize(
        rng.integers(0, 256, (5, 7, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return Image.fromarray(
        np.clip(smooth + rng.normal(0, 5, smooth.shape), 0, 255).astype(np.uint8)
    )


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oracle(data: bytes) -> np.ndarray:
    """What Pillow alone makes of an 8-bit image."""
    with Image.open(io.BytesIO(data)) as opened:
        return np.array(ImageOps.exif_transpose(opened).convert("RGB"))


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def said(**texts: str) -> PngImagePlugin.PngInfo:
    about = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        about.add_itxt(name.replace("_", ":").replace("::", "."), text, zip=True)
    return about


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'

KINDS: dict[str, Callable[[], bytes]] = {
    "4:4:4": lambda: stored(picture(), "JPEG", quality=95, subsampling=0),
    "4:2:2": lambda: stored(picture(), "JPEG", quality=80, subsampling=1),
    "4:2:0": lambda: stored(picture(), "JPEG", quality=75, subsampling=2),
    "one pixel": lambda: stored(picture(1, 1), "JPEG"),
    "quality 1": lambda: stored(picture(), "JPEG", quality=1),
    "progressive": lambda: stored(picture(), "JPEG", progressive=True, optimize=True),
    "restart markers": lambda: stored(picture(), "JPEG", restart_marker_rows=1),
    "RGB inside": lambda: stored(picture(), "JPEG", keep_rgb=True),
    "grey JPEG": lambda: stored(picture().convert("L"), "JPEG"),
    "CMYK JPEG": lambda: stored(picture().convert("CMYK"), "JPEG"),
    "JPEG with a comment": lambda: stored(
        picture(), "JPEG", comment=b"\xff\xda not yet", dpi=(72, 72)
    ),
    "turned JPEG": lambda: stored(picture(), "JPEG", exif=turned()),
    "JPEG turned by XMP": lambda: stored(picture(), "JPEG", xmp=XMP.encode()),
    "JPEG with words behind": lambda: stored(picture(), "JPEG") + b"words",
    "OpenCV's JPEG": lambda: bytes(cv2.imencode(".jpg", np.array(picture()))[1]),
    "RGB PNG": lambda: stored(picture(), "PNG"),
    "OpenCV's PNG": lambda: bytes(cv2.imencode(".png", np.array(picture()))[1]),
    "PNG with resolution": lambda: stored(picture(), "PNG", dpi=(300, 300)),
    "PNG with words": lambda: stored(picture(), "PNG", pnginfo=said(Comment="a face")),
    "turned PNG": lambda: stored(picture(), "PNG", exif=turned()),
    "PNG turned by XMP": lambda: stored(picture(), "PNG", pnginfo=said(XML_com__adobe__xmp=XMP)),
    "PNG with one transparent colour": lambda: stored(picture(), "PNG", transparency=(1, 2, 3)),
    "grey PNG": lambda: stored(picture().convert("L"), "PNG"),
    "palette PNG": lambda: stored(picture().quantize(50), "PNG"),
    "RGBA PNG": lambda: stored(picture().convert("RGBA"), "PNG"),
    "interlaced PNG": lambda: interlaced(np.array(picture())),
    "PNG with gamma": lambda: with_chunk(
        stored(picture(), "PNG"), b"gAMA", struct.pack(">I", 100_000)
    ),
    "WebP": lambda: stored(picture(), "WEBP"),
    "BMP": lambda: stored(picture(), "BMP"),
    "TIFF": lambda: stored(picture(), "TIFF"),
}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with another chunk behind its header."""
    return png[:33] + chunk(kind, data) + png[33:]


def interlaced(pixels: np.ndarray) -> bytes:
    """Adam7, unfiltered."""
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    parts = [pixels[top::down, left::right] for top, left, down, right in passes]
    rows = b"".join(b"\0" + line.tobytes() for part in parts if part.size for line in part)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_pixels_that_pillow_gives(kind: str) -> None:
    data = KINDS[kind]()
    expected = oracle(data)
    assert np.array_equal(decode(data, kind), expected)
    assert decode(data, kind).flags.writeable
    assert (
        expected.shape == (61, 83, 3)
        if "urned" not in kind and kind != "one pixel"
        else expected.shape in ((83, 61, 3), (1, 1, 3))
    )


@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "RGB PNG", "OpenCV's PNG"])
def test_of_damaged_bytes_pillow_decides(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = KINDS[kind]()
    rng = np.random.default_rng(1)
    damaged = [data[:length] for length in rng.integers(0, len(data), 60)] + [
        data[:-length] for length in range(1, 16)
    ]
    for place in rng.integers(0, len(data), 300):
        changed = bytearray(data)
        changed[place] ^= 1 << rng.integers(0, 8)
        damaged.append(bytes(changed))
    refused = 0
    for some in damaged:
        try:
            expected = oracle(some)
        except (OSError, SyntaxError, ValueError):
            refused += 1
            with pytest.raises(InputError, match="cannot be read"):
                decode(some, "it")
        else:
            assert np.array_equal(decode(some, "it"), expected)
    assert refused > 60
    assert capfd.readouterr().err == ""


def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour: a few bytes for many pixels."""
    row = zlib.compress(bytes(1 + width // 8) * height, 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((13_000, 13_000), "13000 x 13000 pixels"),
        ((9_000, 9_000), "9000 x 9000 pixels"),
        ((50_000, 50_000), "far too many pixels"),
    ],
)
def test_a_few_bytes_that_stand_for_too_many_pixels_are_refused(
    size: tuple[int, int], said: str
) -> None:
    data = bomb(*size)
    assert len(data) < 400_000
    tracemalloc.start()
    with pytest.raises(InputError) as refusal:
        decode(data, "it")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert f"The image it has {said}, and at most 64 million are read" in str(refusal.value)


def test_the_limit_of_pixels_holds_for_both_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("4:2:0", "RGB PNG"):
        monkeypatch.setattr(images, "MAX_PIXELS", 61 * 83)
        assert decode(KINDS[kind](), "it").shape == (61, 83, 3)
        monkeypatch.setattr(images, "MAX_PIXELS", 61 * 83 - 1)
        with pytest.raises(InputError, match="it has 83 x 61 pixels"):
            decode(KINDS[kind](), "it")


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_chunks_that_swell_are_refused_or_skipped(kind: bytes) -> None:
    swollen = zlib.compress(bytes(100 * 2**20), 9)
    head = b"name\0\1\0\0\0" if kind == b"iTXt" else b"name\0\0"
    data = with_chunk(KINDS["RGB PNG"](), kind, head + swollen)
    assert len(data) < 200_000
    tracemalloc.start()
    with contextlib.suppress(InputError):
        assert np.array_equal(decode(data, "it"), decode(KINDS["RGB PNG"](), "it"))
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_formats_whose_decoders_start_other_programs_are_no_images() -> None:
    data = stored(picture(), "EPS")
    with pytest.raises(InputError, match="it is not an image"):
        decode(data, "it")


def test_an_image_inside_a_tar_is_read_from_its_place(tmp_path: Path) -> None:
    data = KINDS["4:2:0"]()
    tar = tmp_path / "0.tar"
    tar.write_bytes(b"?" * 512 + data + b"?" * 99)
    place = f"{tar}#512+{len(data)}"
    assert read_bytes(place) == data
    assert np.array_equal(read_image(place), oracle(data))
    for wrong in (f"{tar}#512+{len(data) + 100}", f"{tar}#9999+5"):
        with pytest.raises(
            InputError, match=r"0\.tar#\d+\+\d+ cannot be read \(the tar ends before it\)"
        ):
            read_image(wrong)
    with pytest.raises(InputError, match=r"1\.tar#0\+5 cannot be read"):
        read_image(f"{tmp_path / '1.tar'}#0+5")


def test_only_places_in_tars_are_taken_for_them(tmp_path: Path) -> None:
    assert parse_tar_member("/data/0.tar#12+34") == ("/data/0.tar", 12, 34)
    for path in ("/data/0.tar", "/data/0.tar#1", "/data/a#1+2", "/data/0.tar#1+2/0.png"):
        assert parse_tar_member(path) is None
    odd = saved(tmp_path / "0.tar#1+2.png", Image.fromarray(COLOUR))
    assert np.array_equal(read_image(odd), COLOUR)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux lists the open files")
def test_many_tars_do_not_use_up_the_open_files(tmp_path: Path) -> None:
    data = KINDS["one pixel"]()
    for number in range(300):
        (tmp_path / f"{number}.tar").write_bytes(data)
        assert read_bytes(f"{tmp_path}/{number}.tar#0+{len(data)}") == data
    assert (
        sum(
            str(name.resolve()).startswith(str(tmp_path))
            for name in Path("/proc/self/fd").iterdir()
        )
        <= 256
    )
    images._open_tar.cache_clear()


@pytest.mark.parametrize(
    ("height", "width"),
    [(256, 256), (300, 200), (200, 300), (20, 30), (24, 24), (24, 30), (20, 24), (512, 16)],
)
def test_resizing_is_that_of_the_augmentations(height: int, width: int) -> None:
    image = np.array(picture(height, width))
    assert np.array_equal(resize(image, 24), build_transform("none", 24)(image=image)["image"])


@pytest.mark.parametrize(
    ("height", "width", "rule"),
    [
        (256, 300, cv2.INTER_AREA),
        (24, 30, cv2.INTER_AREA),
        (20, 10, cv2.INTER_LINEAR),
        (24, 20, cv2.INTER_LINEAR),
    ],
)
def test_sides_that_change_alike_are_resized_in_one_pass(
    height: int, width: int, rule: int
) -> None:
    image = np.array(picture(height, width))
    assert np.array_equal(resize(image, 24), cv2.resize(image, (24, 24), interpolation=rule))


def averages(length: int, size: int) -> np.ndarray:
    """The share of each of `length` pixels in each of `size` larger ones."""
    begins, edges = np.arange(length), np.arange(size + 1) * length / size
    shares = np.minimum(edges[1:, None], begins + 1) - np.maximum(edges[:-1, None], begins)
    return shares.clip(0) * size / length


@pytest.mark.parametrize(("height", "width"), [(512, 32), (512, 96), (300, 200), (225, 223)])
@pytest.mark.parametrize("turned", [False, True])
def test_areas_are_averaged_along_the_side_that_shrinks_where_the_other_grows(
    height: int, width: int, turned: bool
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    rows = np.tensordot(averages(height, 224), image, 1)
    expected = cv2.resize(rows.astype(np.float32), (224, 224), interpolation=cv2.INTER_LINEAR)
    found = resize(image.swapaxes(0, 1) if turned else image, 224)
    assert (
        np.abs((found.swapaxes(0, 1) if turned else found) - expected).max() < 1.5
    )  # rounded twice


def test_fine_stripes_become_their_mean_where_the_other_side_grows() -> None:
    stripes = np.zeros((448, 32, 3), np.uint8)
    stripes[::2] = 254
    assert (resize(stripes, 224) == 127).all()
