"""The cost of the digests of files, beside the loader that computes them.

python benchmarks/digests.py [--rounds N] [--folder FOLDER] [--json PATH]

Processor time in one process, which other work on the machine disturbs least, over 512 of the JPEG
files of benchmarks/loader.py (256 pixels, about 20 KB). The loader's digests: all frames of a test
at 224 pixels, with digests and with a function that returns 0 in their place. The pass over all
training files before a training: reading them and their digests, against one epoch of the same
frames with `augment=light`, without the training step. All are measured in turn; a ratio is the
median over the rounds. The system has these files in memory.

Then the files per second of that pass, by the clock, over 20,000 files of 20 KB below FOLDER, which
are removed afterwards: removed from the system's memory before, in it, and known to the cache. A
disk of a virtual machine may lie in the memory of its host; give a FOLDER on the disk of the data.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from harness import Row, arguments, interleaved, ratio, report, row
from loader import SIZE, STORED, written

from fmsd.data.content_cache import cache_file
from fmsd.data.content_files import file_states, read_contents, read_digests
from fmsd.data.loading import dataset
from fmsd.data.loading.dataset import FrameDataset

COUNT, ON_DISK = 512, 20_000
TITLE = f"Digests of {COUNT} JPEG files of {STORED} px"


def drained(frames: FrameDataset) -> None:
    """All frames, dropped."""
    for place in range(len(frames)):
        frames[place]


def no_digest(data: bytes) -> int:
    """A number in place of a digest."""
    return 0


def without_digests(frames: FrameDataset) -> None:
    """The same without digests."""
    with mock.patch.object(dataset, "content_digest", no_digest):
        drained(frames)


def measure(rounds: int, folder: Path) -> list[Row]:
    """Microseconds per frame, and ratios."""
    files = written(folder / "files")
    files = replace(files, table=files.table.head(COUNT))
    plain = FrameDataset(files, ["real"], SIZE)
    augmented = FrameDataset(files, ["real"], SIZE, "light")
    steps = {
        "without digests": partial(without_digests, plain),
        "with digests": partial(drained, plain),
        "an epoch, augment=light": partial(drained, augmented),
        "the pass over the training files": partial(read_contents, files),
    }
    seconds = interleaved(steps, rounds, clock=time.process_time)
    rows = [
        row(name, 1e6 * statistics.median(values) / COUNT, "us/frame")
        for name, values in seconds.items()
    ]
    for name, peer, goal in (
        ("with digests", "without digests", 1.02),
        ("the pass over the training files", "an epoch, augment=light", 0.05),
    ):
        rows.append(row(f"{name} / {peer}", ratio(seconds, name, peer), "x", goal, peer))
    return rows


def measure_pass(rounds: int, folder: Path) -> list[Row]:
    """Files per second of the pass over files that were evicted from memory, in it, and known."""
    random = np.random.default_rng(0)
    places = []
    for number in range(ON_DISK):
        path = folder / "disk" / f"{number // 500}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.bytes(20_000))
        os.utime(path, (10**9, 10**9))  # what was just written is not kept
        places.append(str(path))
    os.sync()
    cache = cache_file(folder)

    def compared(prepare: Callable[[], None]) -> float:
        prepare()
        began = time.perf_counter()
        read_digests(file_states(places), folder)
        return ON_DISK / (time.perf_counter() - began)

    def forget() -> None:
        cache.unlink(missing_ok=True)

    def evict() -> None:
        forget()
        for place in places:
            with open(place, "rb") as file:  # noqa: PTH123
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    steps = {"not in memory": evict, "in memory": forget, "known to the cache": lambda: None}
    rates = {name: [] for name in steps}
    for _ in range(rounds):
        for name, prepare in steps.items():
            rates[name].append(compared(prepare))
    forget()
    return [
        row(f"the pass over files {name}", statistics.median(values), "files/s")
        for name, values in rates.items()
    ]


if __name__ == "__main__":
    parser = arguments(TITLE)
    parser.add_argument("--rounds", type=int, default=9, help="measured passes over the files")
    parser.add_argument("--folder", type=Path, help="where files are written; else as for tempfile")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        rows = measure(options.rounds, Path(place)) + measure_pass(options.rounds, Path(place))
        report(TITLE, rows, options.json)
