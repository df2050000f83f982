"""`fmsd doctor` on many files: processor time of a first call, of one taken up again, and memory.

python benchmarks/doctor.py [--images N] [--films N] [--kind JPEG] [--folder PATH] [--json PATH]

- Images of 256 px, in videos of 32 frames, are made of a few pictures, each with bytes of its own
  behind its end; films are clips of 12 frames of 128 px, made in the same way.
- Each kind is examined by `fmsd doctor data=folder limit=null` with two processes, in a process of
  its own: its wall time, its processor time with that of its processes, and its largest resident
  memory, without and with what the cache knows.
- The goal of 10 minutes for 100,000 files on two cores is 20 minutes of processor time.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
from harness import Row, arguments, report, row
from PIL import Image

CORES, FILES, SECONDS = 2, 100_000, 600
LENGTH, DISTINCT = 32, 16


def picture(seed: int, side: int) -> np.ndarray:
    """Noise as smooth as a face."""
    coarse = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    fine = np.random.default_rng(seed).integers(0, 24, (side, side, 3), np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC) // 2 + fine


def image_bytes(seed: int, kind: str, folder: Path) -> bytes:
    """An image file."""
    path = folder / f"image.{kind}"
    Image.fromarray(picture(seed, 256)).save(path, kind, quality=85 + seed % 2)
    return path.read_bytes()


def film_bytes(seed: int, folder: Path) -> bytes:
    """A video file."""
    path = folder / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 128
        for index in range(12):
            image = np.roll(picture(seed, 128), index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def grow(folder: Path, count: int, ending: str, made: Callable[[int], bytes]) -> None:
    """Writes a tree of splits and classes in which no two files are equal."""
    contents = [made(seed) for seed in range(DISTINCT)]
    for number in range(count):
        video = number // LENGTH if ending != "mp4" else number
        split, label = ("train", "val", "test")[video % 3], ("real", "fake")[video // 3 % 2]
        place = folder / split / label
        name = f"v{video}.mp4" if ending == "mp4" else f"v{video}/{number % LENGTH}.{ending}"
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(contents[number % DISTINCT] + number.to_bytes(8, "big"))


def examine(root: Path, cache: Path, out: Path, name: str, count: int) -> list[Row]:
    """One call, in a process of its own.

    Raises:
        RuntimeError: the report does not count all files.
    """
    command = [
        sys.executable, "-m", "fmsd", "doctor", "data=folder", f"data.root={root}", f"out={out}",
        "limit=null", f"workers={CORES}", "frames=null",
    ]  # fmt: skip
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"FMSD_CACHE": str(cache)}
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, encoding="utf-8", env=environment
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if f'"opened": {count},' not in (out.read_text(encoding="utf-8") if out.is_file() else ""):
        raise RuntimeError(f"{count} files were to be opened:\n{ended.stdout}\n{ended.stderr}")
    busy = sum(getattr(after, each) - getattr(before, each) for each in ("ru_utime", "ru_stime"))
    return [
        row(f"{name}, wall time", seconds, "s"),
        row(f"{name}, processor time", busy, "s", CORES * SECONDS * count / FILES),
        row("largest resident memory so far", after.ru_maxrss * 1024 / 1e9, "GB"),
    ]


def measure(folder: Path, images: int, films: int, kind: str) -> list[Row]:
    """Both kinds of files, each without and with the cache."""
    rows = []
    for name, count, ending, made in (
        ("images", images, kind.lower(), lambda seed: image_bytes(seed, kind, folder)),
        ("films", films, "mp4", lambda seed: film_bytes(seed, folder)),
    ):
        if not count:
            continue
        root, cache, out = folder / name, folder / f"cache-{name}", folder / f"{name}.json"
        shutil.rmtree(cache, ignore_errors=True)
        if not root.is_dir():
            grow(root, count, ending, made)
        rows += examine(root, cache, out, f"{count:,} {name}", count)
        first = out.read_bytes()
        rows += examine(root, cache, out, f"{count:,} known {name}", count)
        if out.read_bytes() != first:
            raise RuntimeError(f"The second report on {name} is another one")
    return [*rows, row("load average at the end", os.getloadavg()[0], "")]


if __name__ == "__main__":
    parser = arguments("fmsd doctor on many files")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--films", type=int, default=3_000)
    parser.add_argument("--kind", default="JPEG", choices=("JPEG", "PNG"))
    parser.add_argument("--folder", type=Path, help="where the files lie or are generated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = measure(folder, options.images, options.films, options.kind)
    report("fmsd doctor on many files", rows, options.json)
