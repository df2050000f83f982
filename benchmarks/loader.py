"""How fast frames come out of the loader, against a bare loop that decodes and resizes the same files and throws the pixels away.

python benchmarks/loader.py [--rounds N] [--json PATH]

2,048 JPEG files of 256 pixels (drawn faces with noise, quality 95, 4:2:0) become batches of 32 at
224 pixels, by two processes on either side. The bare loop reads a file, decodes it with simplejpeg,
and shrinks it with OpenCV by averaging areas, as we do. Ours is the loader of training and
validation: it adds checks, labels, batches and their way into the main process, which drops them.
The processes of both are there beforehand, files lie in the page cache, and all are measured in
turn. A ratio is the median over the rounds; in brackets are the smallest and the largest. Before
anything is timed, a RuntimeError says if the two do not give the same pixels.

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
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.manifest import Manifest, collect, read
from fmsd.data.synthetic import clips, record
from fmsd.engine.datamodule import DataModule
from fmsd.types import Frame, Frames

COUNT, STORED, SIZE, BATCH, PROCESSES = 2048, 256, 224, 32, 2
TITLE = (
    f"Reading {COUNT:,} JPEG files of {STORED} px as batches of {BATCH} at {SIZE} px, "
    f"{PROCESSES} processes"
)
GOAL = round(1 / 0.85, 2)
BARE = "bare loop"


def written(root: Path) -> Manifest:
    """The frames, as files below a folder."""
    root.mkdir()
    frames = []
    drawn = (image for clip in clips() for image in record(clip))
    for number, small in enumerate(itertools.islice(drawn, COUNT)):
        noise = np.random.default_rng(number).normal(0, 3, (STORED, STORED, 3))
        image = np.clip(
            cv2.resize(small, (STORED, STORED), interpolation=cv2.INTER_CUBIC) + noise, 0, 255
        ).astype(np.uint8)
        path = root / f"{number:05d}.jpg"
        path.write_bytes(simplejpeg.encode_jpeg(image, quality=95, colorsubsampling="420"))
        frames.append(Frame(path, 0, "faces", "real", f"faces/real/{number}", 0, "train"))
    return collect(frames, root)


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


def loader(manifest: Manifest, augment: str) -> DataLoader[Frames]:
    """Ours, as training and validation have it."""
    data = DataModule(
        "faces",
        str(manifest.root),
        lambda root: [],
        ["faces"],
        ["faces"],
        SIZE,
        batch_size=BATCH,
        workers=PROCESSES,
    )
    return data.loader(FrameDataset(manifest, ["real"], SIZE, augment), None, again=True)


def drained(batches: DataLoader[Frames]) -> None:
    """All batches, dropped."""
    for _ in batches:
        pass


def measure(rounds: int, folder: Path) -> list[Row]:
    """Frames per second of everything, and times as multiples of the bare loop's."""
    files = written(folder / "files")
    pack.write_pack(files.table, files.files(), folder / "packed", 2**30)
    packed = read(folder / "packed" / "manifest.parquet", folder / "packed")
    ours = {
        "files": loader(files, "none"),
        "packed": loader(packed, "none"),
        "files, augment=light": loader(files, "light"),
        "files, augment=dfb": loader(files, "dfb"),
    }
    for name in ("files", "packed"):
        first: Frames = next(iter(ours[name]))
        if not all(
            torch.equal(image, torch.from_numpy(bare(file)).permute(2, 0, 1))
            for image, file in zip(first.image, files.files(), strict=False)
        ):
            raise RuntimeError(f"{name}: the loader's pixels are not those of the bare loop")
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("fork")) as pool:
        shares = [files.files()[rank::PROCESSES] for rank in range(PROCESSES)]
        steps: dict[str, Callable[[], object]] = {BARE: lambda: list(pool.map(loop, shares))}
        seconds = interleaved(
            steps | {name: partial(drained, batches) for name, batches in ours.items()}, rounds
        )
    rows = [
        row(name, COUNT / statistics.median(values), "frames/s") for name, values in seconds.items()
    ]
    for name in ours:
        each = [own / other for own, other in zip(seconds[name], seconds[BARE], strict=True)]
        goal = GOAL if name in ("files", "packed") else None
        rows.append(
            row(
                f"{name} ({min(each):.2f} to {max(each):.2f})",
                ratio(seconds, name, BARE),
                "x",
                goal,
                BARE,
            )
        )
    return rows


if __name__ == "__main__":
    parser = arguments(TITLE)
    parser.add_argument("--rounds", type=int, default=9, help="measured passes over the files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        report(TITLE, measure(options.rounds, Path(place)), options.json)
