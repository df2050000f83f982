"""The memory of a loader's processes over two epochs: do they come to hold copies of the manifest?

python benchmarks/worker_memory.py [--rows 2000000] [--processes 8] [--json PATH]

The loader of training goes through a manifest twice, with shuffled batches. Its rows name 64 tiny
images, so that time and memory are those of the loader and not of the decoder. Processes are forked
and share the memory of their parent until either writes to it, as Python does to every object that
it only looks at. The proportional set size (PSS) counts a page that n processes share as 1/n page
for each; it is read from /proc/PID/smaps_rollup (Linux), after the first batches and then ten times
an epoch. A growth of 1.00 is none.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import simplejpeg
from harness import Row, arguments, report, row
from torch.utils.data import DataLoader

from fmsd.data.frame import SCHEMA
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.sampler import ProcessBatches, Shuffle
from fmsd.data.manifest import Manifest
from fmsd.data.selection import Selection
from fmsd.engine.datamodule import DataModule

SIDE, BATCH, IMAGES = 8, 256, 64
WARM = 0.02
"""Share of an epoch after which the first size is read."""

TITLE = "The memory of a loader's processes"


def write_images(root: Path, rows: int) -> Manifest:
    """A manifest whose rows name the images in turn; videos have 100 frames."""
    for number in range(IMAGES):
        image = np.full((SIDE, SIDE, 3), 3 * number, np.uint8)
        (root / f"{number:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(image))
    number = pl.int_range(rows, eager=True).alias("number")
    table = pl.DataFrame({"number": number}).with_columns(
        path=pl.format("{}.jpg", (pl.col("number") % IMAGES).cast(pl.String).str.zfill(5)),
        label=pl.lit(0),
        video=pl.format("faces/real/{}", pl.col("number") // 100),
        index=pl.col("number") % 100,
        **{name: pl.lit(text) for name, text in TEXTS.items()},
    )
    return Manifest(table.select(SCHEMA.names()).cast(SCHEMA), root)


TEXTS = {
    "dataset": "faces",
    "domain": "real",
    "split": "train",
    "compression": "",
    "pair": "",
    "audio": "",
}


def proportional_size(pid: int | str) -> float:
    """The proportional set size of a process in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:"))


def sizes(loader: DataLoader, batches: int, epoch: int) -> Iterator[float]:
    """The size of all worker processes together, at ten places of an epoch; first, once more."""
    places = {round(batches * share) for share in (*(WARM,) * (not epoch), *np.arange(1, 11) / 10)}
    loader.batch_sampler.set_epoch(epoch)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    iterator = iter(loader)
    for number, _ in enumerate(iterator, 1):
        if number in places:
            yield sum(proportional_size(worker.pid) for worker in iterator._workers)  # pyright: ignore[reportAttributeAccessIssue]  # torch has no other way


def measure(rows: int, processes: int, folder: Path) -> list[Row]:
    """The sizes of the processes after the first batches and later, and their growth."""
    manifest = write_images(folder, rows)
    selection = Selection("faces", str(folder), lambda root: [], ["faces"], ["faces"])
    data = DataModule(selection, SIDE, batch_size=BATCH, workers=processes)
    order = Shuffle(np.zeros(rows, np.int64), BATCH, 0)
    dataset = FrameDataset(manifest, ["real"], SIDE)
    loader = data.loader(dataset, ProcessBatches(order), reused=True)
    before = proportional_size("self")
    first, *later = [size for epoch in range(2) for size in sizes(loader, order.batches, epoch)]
    return [
        row("the training process before it forks", before, "MB"),
        row(f"{processes} processes together, after the first batches", first, "MB"),
        row("after the first epoch", later[9], "MB"),
        row("after the second epoch", later[-1], "MB"),
        row("largest of all / after the first batches", max(later) / first, "x", 1.05),
    ]


if __name__ == "__main__":
    parser = arguments(TITLE)
    parser.add_argument("--rows", type=int, default=2_000_000, help="number of frames")
    parser.add_argument("--processes", type=int, default=8, help="loader processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        report(TITLE, measure(options.rows, options.processes, Path(place)), options.json)
