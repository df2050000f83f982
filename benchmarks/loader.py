"""The speed of the loader beside a bare loop that decodes and resizes the same files.

python benchmarks/loader.py [--rounds N] [--processes N] [--step FRAMES/S] [--json PATH]

2,048 JPEG files of 256 pixels (drawn faces with noise, quality 95, 4:2:0) become batches of 32 at
224 pixels, by `--processes` processes on either side. The bare loop reads a file, decodes it with
simplejpeg, and shrinks it with OpenCV by averaging areas, as we do. Ours is the loader of training
and validation: it adds checks, labels, batches and their way into the main process, which drops
them. The processes of both run beforehand, files lie in the page cache, and all are measured in
turn. A ratio is the median over the rounds; in brackets are the smallest and the largest. Before
anything is timed, a RuntimeError is raised if the two do not give the same pixels.

The goal concerns the machine that trains: with as many processes as that has for a GPU, the loader
is at least twice as fast as the fastest training step, whose frames/s are given by `--step`.

"packed" reads the same bytes from the tars of `fmsd pack`. Augmentations are for information: the
bare loop has none.
"""

import itertools
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from harness import Row, arguments, interleaved, ratio, report, row
from numpy import ndarray
from torch.utils.data import DataLoader

from fmsd.data import pack
from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.manifest import Manifest, read_manifest
from fmsd.data.selection import Selection
from fmsd.data.synthetic.plan import all_clips, record_clip
from fmsd.engine.datamodule import DataModule
from fmsd.types import Frames

COUNT, STORED, SIZE, BATCH = 2048, 256, 224, 32
TITLE = f"Reading {COUNT:,} JPEG files of {STORED} px as batches of {BATCH} at {SIZE} px"
HEADROOM = 2.0
BARE = "bare loop"


def written(root: Path) -> Manifest:
    """The frames, as files below a folder."""
    root.mkdir()
    frames = []
    drawn = (image for clip in all_clips() for image in record_clip(clip))
    for number, small in enumerate(itertools.islice(drawn, COUNT)):
        noise = np.random.default_rng(number).normal(0, 3, (STORED, STORED, 3))
        image = np.clip(
            cv2.resize(small, (STORED, STORED), interpolation=cv2.INTER_CUBIC) + noise, 0, 255
        ).astype(np.uint8)
        path = root / f"{number:05d}.jpg"
        path.write_bytes(simplejpeg.encode_jpeg(image, quality=95, colorsubsampling="420"))
        frames.append(Frame(path, 0, "faces", "real", f"faces/real/{number}", 0, "train"))
    return from_entries(frames, root)


def bare(file: str) -> ndarray:
    """A file's pixels in the shortest way."""
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123  as fast as it gets
        image = simplejpeg.decode_jpeg(opened.read())
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def loop(files: Sequence[str]) -> None:
    """A process's share of the bare loop."""
    cv2.setNumThreads(0)
    for file in files:
        bare(file)


def loader(manifest: Manifest, augment: str, processes: int) -> DataLoader[Frames]:
    """Ours, as training and validation have it."""
    selection = Selection("faces", str(manifest.root), lambda root: [], ["faces"], ["faces"])
    data = DataModule(selection, SIZE, batch_size=BATCH, workers=processes)
    return data.loader(FrameDataset(manifest, ["real"], SIZE, augment), None, reused=True)


def drained(batches: DataLoader[Frames]) -> None:
    """All batches, dropped."""
    for _ in batches:
        pass


def measure(rounds: int, processes: int, step: float | None, folder: Path) -> list[Row]:
    """Frames per second of both, and times as multiples of the bare loop's.

    Args:
        step: frames/s of the fastest training step; None if unknown.
    """
    files = written(folder / "files")
    pack.write_pack(files.table, files.files(), folder / "packed", 2**30)
    packed = read_manifest(folder / "packed" / "manifest.parquet", folder / "packed")
    ours = {
        "files": loader(files, "none", processes),
        "packed": loader(packed, "none", processes),
        "files, augment=light": loader(files, "light", processes),
        "files, augment=dfb": loader(files, "dfb", processes),
    }
    for name in ("files", "packed"):
        first: Frames = next(iter(ours[name]))
        if not all(
            torch.equal(image, torch.from_numpy(bare(file)).permute(2, 0, 1))
            for image, file in zip(first.image, files.files(), strict=False)
        ):
            raise RuntimeError(f"{name}: the loader's pixels are not those of the bare loop")
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        shares = [files.files()[rank::processes] for rank in range(processes)]
        steps: dict[str, Callable[[], object]] = {BARE: lambda: list(pool.map(loop, shares))}
        seconds = interleaved(
            steps | {name: partial(drained, batches) for name, batches in ours.items()}, rounds
        )
    rows = [
        row(name, COUNT / statistics.median(values), "frames/s") for name, values in seconds.items()
    ]
    for name in ours:
        each = [own / other for own, other in zip(seconds[name], seconds[BARE], strict=True)]
        label = f"{name} ({min(each):.2f} to {max(each):.2f})"
        rows.append(row(label, ratio(seconds, name, BARE), "x", None, BARE))
    if step is not None:
        for name in ours:
            rate = COUNT / statistics.median(seconds[name])
            rows.append(
                row(f"{name}, training step", HEADROOM * step / rate, "x", 1.0, "half the loader")
            )
    return rows


if __name__ == "__main__":
    parser = arguments(TITLE)
    parser.add_argument("--rounds", type=int, default=9, help="measured passes over the files")
    parser.add_argument("--processes", type=int, default=2, help="loader processes")
    parser.add_argument("--step", type=float, help="frames/s of the fastest training step")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        report(
            TITLE,
            measure(options.rounds, options.processes, options.step, Path(place)),
            options.json,
        )
