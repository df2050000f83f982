"""Finding training frames in test sets: images hashed, a search in a million hashes, and errors.

python benchmarks/contamination.py [--images N] [--hashes N] [--faces FOLDER] [--json PATH]

- JPEG and PNG images of 256 px are hashed by one process, in its processor time.
- As many random hashes as `--hashes` says are compared with as many others, by all pairs of trims
  and mirrored, as `fmsd doctor train=... test=...` does; of the other ones every hundredth is a
  copy with four bits changed.
- A million frames in an hour on two cores is the goal for both together: half of them training
  frames, half of them test frames.
- `--faces` names a folder with a manifest.csv (docs/datasets/table.md): how many of its faces are
  found again after each change, and which videos of different identities are near.
"""

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import polars as pl
from harness import Row, arguments, report, row
from PIL import Image

from fmsd.data.audit.contamination import LEAST_CORRELATION, TRIM_PAIRS, find_contamination
from fmsd.data.entries import from_entries
from fmsd.data.hash_search import COARSE_RADIUS, RADIUS, near_pairs
from fmsd.data.image_hashes import read_hashes
from fmsd.data.loading.image import decode, read_image
from fmsd.data.perceptual_hash import (
    MIRROR,
    TRIMS,
    aligned_correlation,
    hash_distance,
    perceptual_hashes,
)
from fmsd.data.sources import table

CORES, FRAMES, SECONDS = 2, 1_000_000, 3600


def stored(image: np.ndarray, kind: str = "JPEG", quality: int = 90) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=quality)
    return file.getvalue()


def hashing(count: int, kind: str) -> float:
    """Images per second of processor time."""
    rng = np.random.default_rng(0)
    images = [
        stored(cv2.resize(rng.integers(0, 256, (32, 32, 3), np.uint8), (256, 256)), kind)
        for _ in range(16)
    ]
    start = time.process_time()
    for number in range(count):
        perceptual_hashes(decode(images[number % len(images)], "image"))
    return count / (time.process_time() - start)


def searching(count: int) -> float:
    """Seconds of processor time of all searches.

    Raises:
        RuntimeError: the search misses a copy.
    """
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 2**63, (count, 4), dtype=np.uint64) << 1 for _ in range(2))
    places = np.arange(0, count, 100)
    other[places] = one[rng.permutation(len(places))]
    for bit in (1, 20, 40, 60):
        other[places, 0] ^= np.uint64(1) << np.uint64(bit)
    start = time.process_time()
    for _ in TRIM_PAIRS:
        found = len(near_pairs(one, other).one)
        if found < len(places):
            raise RuntimeError(f"Of {len(places)} copies {found} were found")
        near_pairs(one, other ^ MIRROR)
    return time.process_time() - start


def cropped(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """Cuts a share off each side."""

    def crop(image: np.ndarray) -> np.ndarray:
        top, left = int(image.shape[0] * share), int(image.shape[1] * share)
        return image[top : image.shape[0] - top, left : image.shape[1] - left]

    return crop


def scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """Resizes an image."""
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def recompressed(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    """Stores an image as JPEG and reads it again."""
    return lambda image: decode(stored(image, "JPEG", quality), "image")


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG, quality 50": recompressed(50),
    "JPEG, quality 20": recompressed(20),
    "a quarter of the size": scaled(0.25),
    "twice the size": scaled(2),
    "half the size, JPEG of quality 60": lambda image: recompressed(60)(scaled(0.5)(image)),
    "4 % cut off each side": cropped(0.04),
    "8 % cut off each side": cropped(0.08),
    "10 % cut off each side": cropped(0.1),
    "4 % cut off two sides": lambda image: image[image.shape[0] // 25 :, image.shape[1] // 25 :],
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "gamma 0.7": lambda image: (255 * (image / 255) ** 0.7).astype(np.uint8),
    "blurred, sigma 2": lambda image: cv2.GaussianBlur(image, (0, 0), 2),
}


def is_found(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images are near-duplicates, by their hashes and by their pixels."""
    hashes, changed = (perceptual_hashes(image)[1] for image in (one, other))
    near = [
        (int(hash_distance(hashes[left], turned[right])), left, right, mirrored)
        for left, right in TRIM_PAIRS
        for mirrored, turned in ((False, changed), (True, changed ^ MIRROR))
        if np.bitwise_count(hashes[left, 0] ^ turned[right, 0]) <= COARSE_RADIUS
    ]
    distance, left, right, mirrored = min(near, default=(RADIUS + 1, 0, 0, False))
    trims = TRIMS[left], TRIMS[right]
    return (
        distance <= RADIUS and aligned_correlation(one, other, trims, mirrored) >= LEAST_CORRELATION
    )


def errors(folder: Path) -> list[Row]:
    """The share of changed faces that are found, and the pairs of different videos."""
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    images = [read_image(folder / line["path"]) for line in listed[::4]]
    rows = []
    for name, change in CHANGES.items():
        found = sum(is_found(image, np.ascontiguousarray(change(image))) for image in images)
        rows.append(row(f"found: {name}", 100 * found / len(images), "%"))
    person = {line["video"]: line["identity"] for line in listed}
    manifest = from_entries(table.scan(folder, "manifest.csv"), folder)
    frames = read_hashes(manifest, CORES).with_columns(path=pl.Series(manifest.files()))
    near = [
        (line["train"], line["test"], line["near"], line["distance"])
        for line in find_contamination(frames, frames, CORES).videos.iter_rows(named=True)
        if line["train"] < line["test"] and person[line["train"]] != person[line["test"]]
    ]
    for one, other, count, distance in near:
        print(f"{one} and {other}: {count} frames, {distance} bits apart")
    people = np.array(list(person.values()))
    pairs = int((people[:, None] != people[None]).sum()) // 2
    rows.append(row("pairs of videos with different identities", pairs / 1e6, "million"))
    rows.append(row("of these, near", len(near), "pairs"))
    return rows


def measure(images: int, count: int, faces: Path | None) -> list[Row]:
    """All figures."""
    speeds = {kind: hashing(images, kind) for kind in ("JPEG", "PNG")}
    seconds = searching(count)
    rows = [
        *(row(f"{kind} images hashed, one core", speed, "1/s") for kind, speed in speeds.items()),
        row(f"search, {count:,} hashes against {count:,}", seconds, "s"),
    ]
    for kind, speed in speeds.items():
        total = FRAMES / speed / CORES + seconds * FRAMES / 2 / count
        rows.append(row(f"a million {kind} frames, hashed and searched", total, "s", SECONDS))
    return rows + ([] if faces is None else errors(faces))


if __name__ == "__main__":
    parser = arguments("Training frames in test sets")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--hashes", type=int, default=FRAMES)
    parser.add_argument("--faces", type=Path)
    options = parser.parse_args()
    title = "Training frames in test sets"
    report(title, measure(options.images, options.hashes, options.faces), options.json)
