"""What a source yields: frames, videos and problems of a copy; and the columns of a manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from fmsd.errors import sentence
from fmsd.names import check_names

Split = Literal["train", "val", "test"]

Audio = Literal["", "real", "fake"]
"""What the sound of a video is; empty where it has none or it is not known."""

SPLITS: tuple[str, ...] = get_args(Split)

AUDIO: tuple[str, ...] = get_args(Audio)

REAL = "real"
"""The domain of every real frame; all other domains name a forgery."""

SCHEMA = pl.Schema(
    {
        "path": pl.String,
        "label": pl.Int8,
        "dataset": pl.String,
        "domain": pl.String,
        "video": pl.String,
        "index": pl.Int32,
        "split": pl.String,
        "compression": pl.String,
        "pair": pl.String,
        "audio": pl.String,
    }
)
"""The columns of a manifest: the fields of a frame, in their order."""

LATER_COLUMNS = ("pair", "audio")
"""The columns that manifests of earlier versions lack, where they are read as empty."""

DIGEST_COLUMNS = tuple(name for name in SCHEMA if name not in LATER_COLUMNS)
"""The columns of a manifest's digest and of predictions.

The pair only helps to compose training batches, and the sound is not looked at; neither is part of
what is tested.
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a dataset.

    Args:
        path: the image file; relative to the root that the manifest is read with, or absolute.
        label: 0 real, 1 fake.
        dataset: the dataset's name, the unit of a cross-dataset table.
        domain: the forgery method, or `real`.
        video: unique id of the video, see `video_id`.
        index: position of the frame in its video; frames of one video are ordered by it.
        compression: the stored quality where the dataset has several (`c23`), else empty.
        pair: of a fake frame, the id of the real video that it was made from, where the source
            knows it, whether or not the copy holds that video; else empty.
        audio: whether the sound of the video is real or fake; the label is that of the images, so
            that a real face under fake speech has the label 0. Empty where it is not known.

    Raises:
        InputError: dataset, domain, compression, video or pair cannot become file names, see
            `fmsd.names`.
    """

    path: Path
    label: Literal[0, 1]
    dataset: str
    domain: str
    video: str
    index: int
    split: Split
    compression: str = ""
    pair: str = ""
    audio: Audio = ""

    def __post_init__(self) -> None:
        """Checks the names."""
        check_names(self.dataset, self.domain, self.compression, self.video, self.pair)


@dataclass(frozen=True, slots=True)
class Video:
    """One video in the tree of a dataset: a video file, a folder of its frames, or both.

    Args:
        file: the video file, where the copy has it.
        images: the folder of its extracted frames, where the copy has it.
        label, dataset, domain, video, split, compression, pair, audio: see `Frame`.
        mask: of a fake, the clip or the folder of images that shows which pixels are forged, where
            the copy has it.

    Raises:
        InputError: see `Frame`.
    """

    file: Path | None
    images: Path | None
    label: Literal[0, 1]
    dataset: str
    domain: str
    video: str
    split: Split
    compression: str = ""
    pair: str = ""
    audio: Audio = ""
    mask: Path | None = None

    def __post_init__(self) -> None:
        """Checks the names."""
        check_names(self.dataset, self.domain, self.compression, self.video, self.pair)


@dataclass(frozen=True, slots=True)
class Problem:
    """A defect of a copy of a dataset that does not prevent reading the rest of it.

    Args:
        kind: one word for a table: `missing`, `unlisted`, `repeated`, `slashes`, ...
        what: the defect, naming the file or video; without a full stop.
        remedy: how to repair it, or how it was read, as a clause; without a full stop.
        files: number of files it concerns, where it sums up those of a folder.
        domain: the domain of what is missing, where it is known.
    """

    kind: str
    what: str
    remedy: str = ""
    files: int = 0
    domain: str | None = None

    def __str__(self) -> str:
        return sentence(self.what, self.remedy)


Entry = Frame | Video | Problem
"""What a source yields."""


def video_id(dataset: str, domain: str, compression: str, video: str) -> str:
    """The id `dataset/domain/compression/video`, without the empty parts.

    Equal folder names in two manipulations so stay two videos.
    """
    return "/".join(part for part in (dataset, domain, compression, video) if part)


def pair_id(dataset: str, compression: str, video: str | None) -> str:
    """The id of a real video by its name, as the `pair` of a fake; empty for None."""
    return "" if video is None else video_id(dataset, REAL, compression, video)
