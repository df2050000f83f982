"""Images and videos: pixels, or a sentence; and a command that meets a damaged one."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from fmsd.data.extraction.video import sample_video
from fmsd.data.loading.image import decode
from fmsd.errors import InputError
from tests.films import film, walk
from tests.fuzz.conftest import Place
from tests.fuzz.running import judge, run, time_limit
from tests.fuzz.search import search
from tests.fuzz.values import bitten

FORMATS = {
    "png": ("RGB", "L", "P", "RGBA", "I;16", "1"),
    "jpeg": ("RGB", "L", "CMYK"),
    "tiff": ("RGB", "L", "P", "I;16", "F", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "avif": ("RGB",),
    "bmp": ("RGB", "P", "1"),
    "gif": ("P",),
    "ppm": ("RGB", "L"),
    "tga": ("RGB", "RGBA"),
    "pcx": ("RGB", "P"),
    "sgi": ("RGB", "L"),
    "dds": ("RGB", "RGBA"),
    "jpeg2000": ("RGB", "L"),
    "qoi": ("RGB",),
    "ico": ("RGB",),
    "icns": ("RGB",),
    "im": ("RGB", "L"),
    "msp": ("1",),
    "spider": ("F",),
    "xbm": ("1",),
    "blp": ("P",),
}
"""The formats and modes that Pillow writes; it opens files by their content, not by their name."""


FILMS = {
    "a.mp4": "libx264",
    "b.mkv": "libx264",
    "c.avi": "mpeg4",
    "d.webm": "libvpx-vp9",
    "e.mov": "mjpeg",
    "f.gif": "gif",
    "g.ts": "libx264",
    "h.mpg": "mpeg2video",
}
"""Containers and codecs that datasets use."""


def images() -> Iterator[bytes]:
    """An image in each format and mode, with metadata where the format has them."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    for name, modes in FORMATS.items():
        for mode in modes:
            file = io.BytesIO()
            image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
            image = image.convert("I").convert("I;16") if mode == "I;16" else image
            extra = {"exif": exif} if name in ("png", "jpeg", "tiff", "webp", "avif") else {}
            try:
                image.save(file, name, **extra)
            except (OSError, KeyError, ValueError):
                continue  # this build of Pillow does not write it
            yield file.getvalue()


def check_image(content: bytes) -> None:
    """An image is decoded to RGB, or refused."""
    with time_limit(10):
        try:
            pixels = decode(content, "image")
        except InputError:
            return
    assert (pixels.ndim, pixels.shape[2], pixels.dtype) == (3, 3, np.uint8)


def test_images() -> None:
    search(st.sampled_from([*images()]).flatmap(bitten), check_image, cases=6000)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A short film in each container and codec that datasets use."""
    folder, images = tmp_path_factory.mktemp("clips"), walk(4, size=(64, 64), side=40)
    return [film(folder / name, images, codec).read_bytes() for name, codec in FILMS.items()]


def test_videos(films: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "case.mp4"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        with time_limit(30):
            try:
                samples = list(sample_video(path, 3))
            except InputError:
                return
        assert samples

    search(st.sampled_from(films).flatmap(bitten), check, cases=800)


def test_a_command_that_meets_a_damaged_file(place: Place, films: list[bytes]) -> None:
    extract = (
        "extract", "data=folder", "data.root=films", "frames=2", "size=32", "workers=1", "out=new",
    )  # fmt: skip
    doctor = ("doctor", "data=folder", "data.root=tree", "workers=0", "out=new.json")
    evaluate = ("evaluate", "run")
    image = Path("tree/test/real/test0/0.png")

    def check(case: tuple[bytes, tuple[str, ...]]) -> None:
        content, words = case
        place.reset()
        (place.work / ("films/train/real/v.mp4" if words is extract else image)).write_bytes(
            content
        )
        judge(words, run(words, place.work))

    film_cases = st.tuples(st.sampled_from(films).flatmap(bitten), st.just(extract))
    image_cases = st.tuples(
        st.sampled_from([*images()]).flatmap(bitten), st.sampled_from([doctor, evaluate])
    )
    search(film_cases | image_cases, check, cases=40)
