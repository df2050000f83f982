"""Videos for tests: drawn faces on a plain ground, written by the codecs that datasets use."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from fmsd.data.synthetic.faces import Pose, render
from fmsd.data.synthetic.recording import CONDITIONS, draw_identity

STILL = Pose(0, 0, 0, 0, 0.5, 0.2, 0, 0, 0)


def portrait(seed: int, side: int) -> np.ndarray:
    """A drawn face, RGB."""
    who = draw_identity(np.random.default_rng(seed), CONDITIONS["synthetic"])
    image = render(who, STILL, seed, 0.0).image
    return cv2.resize(
        (np.clip(image, 0, 1) * 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC
    )


def shot(size: tuple[int, int], faces: Iterable[tuple[int, int, int, int]]) -> np.ndarray:
    """An image of (width, height) with faces of given (seed, left, top, side)."""
    image = np.full((size[1], size[0], 3), 120, np.uint8)
    for seed, left, top, side in faces:
        image[top : top + side, left : left + side] = portrait(seed, side)
    return image


def walk(
    count: int, seed: int = 1, size: tuple[int, int] = (192, 128), side: int = 96
) -> list[np.ndarray]:
    """A face that moves from left to right."""
    return [
        shot(size, [(seed, round((size[0] - side) * place / max(count - 1, 1)), 16, side)])
        for place in range(count)
    ]


def film(
    path: Path,
    images: Sequence[np.ndarray],
    codec: str = "libx264",
    stamps: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    shape: str = "1:1",
) -> Path:
    """Writes a video of 25 frames a second, or with the given time stamps in 1/100 s; `shape` is
    width to height of a pixel.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mux = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(path, "w", options=mux) as container:
        stream = container.add_stream(codec, 25, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.codec_context.sample_aspect_ratio = Fraction(shape.replace(":", "/"))
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        if stamps:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = stamps[number] if stamps else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tagged(
    path: Path,
    frames: Sequence[np.ndarray],
    bits: int,
    space: int,
    full: bool = False,
    transfer: int = 2,
) -> Path:
    """Writes Y, Cb and Cr of `bits` bits without loss, as frames that declare their matrix and
    transfer function (numbers of H.273) and range.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", 25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_trc, context.color_primaries = (
            space,
            2 if full else 1,
            transfer,
            9 if space > 8 else 1,
        )
        for number, components in enumerate(frames):
            frame = av.VideoFrame(stream.width, stream.height, stream.pix_fmt)
            for plane, values in zip(frame.planes, np.moveaxis(components, -1, 0), strict=True):
                rows = np.zeros((plane.height, plane.line_size), np.uint8)
                content = np.ascontiguousarray(
                    values.astype(np.uint8 if bits == 8 else "<u2")
                ).view(np.uint8)
                rows[:, : content.shape[1]] = content
                plane.update(rows)
            frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries = (
                space,
                2 if full else 1,
                transfer,
                9 if space > 8 else 1,
            )
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def bitten(path: Path, begin: float, seed: int, count: int = 3) -> Path:
    """Spoils `count` bytes of coded pictures from a share of a file on, in its first 4,000 bytes
    there, as a bad cable or disk does.
    """
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    start = round(begin * len(content))
    for place in start + rng.integers(0, 4000, count):
        content[place + 16 * (place % 188 < 16)] ^= 0x5A  # not in the head of a transport packet
    path.write_bytes(content)
    return path


def sound(path: Path) -> Path:
    """A file without video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", 44100, layout="mono")
        for number in range(4):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 44100, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path) -> Path:
    """Makes players turn an MP4 file by a quarter to the right, as telephones ask for in portrait
    format: the matrix of its track header.
    """
    content = path.read_bytes()
    begin = content.index(b"tkhd") + 4 + 40
    matrix = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(content[:begin] + matrix + content[begin + 36 :])
    return path
