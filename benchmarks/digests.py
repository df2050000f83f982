"""The cost of the digests of files, beside the loader that computes them.

python benchmarks/digests.py [--rounds N] [--json PATH]

Processor time in one process, which other work on the machine disturbs least, over 512 of the JPEG
files of benchmarks/loader.py (256 pixels, about 20 KB). The loader's digests: all frames of a test
at 224 pixels, with digests and with a function that returns 0 in their place. The pass over all
training files before a training: reading them and their digests, against one epoch of the same
frames with `augment=light`, without the training step. All are measured in turn; a ratio is the
median over the rounds.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

from harness import Row, arguments, interleaved, ratio, report, row
from loader import SIZE, STORED, written

from fmsd.data.content_files import read_contents
from fmsd.data.loading import dataset
from fmsd.data.loading.dataset import FrameDataset

COUNT = 512
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


if __name__ == "__main__":
    parser = arguments(TITLE)
    parser.add_argument("--rounds", type=int, default=9, help="measured passes over the files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        report(TITLE, measure(options.rounds, Path(place)), options.json)
