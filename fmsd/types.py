"""The nouns of the project: what a frame is, what travels through the network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fmsd.errors import sentence
from fmsd.names import check_names

Split = Literal["train", "val", "test"]

REAL = "real"
"""The domain of every real frame; all other domains name a forgery."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a dataset.

    Args:
        path: the image file; relative to the root that the manifest is read with, or absolute.
        label: 0 real, 1 fake.
        dataset: the dataset's name, the unit of a cross-dataset table.
        domain: the forgery method, or `real`.
        video: unique id of the video; make it with `video_id`.
        index: position of the frame in its video; frames of one video are ordered by it.
        compression: the stored quality where the dataset has several (`c23`), else empty.

    Raises:
        InputError: dataset, domain, compression or video cannot become names of files, see
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

    def __post_init__(self) -> None:
        """Checks the names."""
        check_names(self.dataset, self.domain, self.compression, self.video)


@dataclass(frozen=True, slots=True)
class Video:
    """One video as the tree of a dataset holds it: a video file, a folder of its frames, or both.

    Args:
        file: the video file, where the copy has it.
        images: the folder of its extracted frames, where the copy has it.
        label, dataset, domain, video, split, compression: as those of a frame.

    Raises:
        InputError: as of a frame.
    """

    file: Path | None
    images: Path | None
    label: Literal[0, 1]
    dataset: str
    domain: str
    video: str
    split: Split
    compression: str = ""

    def __post_init__(self) -> None:
        """Checks the names."""
        check_names(self.dataset, self.domain, self.compression, self.video)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a copy of a dataset that is not as it should be, though the rest of it can be read.

    Args:
        kind: one word for a table: `missing`, `unlisted`, `repeated`, `slashes`, ...
        what: what is wrong, naming the thing; without a full stop.
        remedy: what to do about it, or how it was read, as a clause; without a full stop.
        files: how many files it is about, where it sums up those of a folder.
    """

    kind: str
    what: str
    remedy: str = ""
    files: int = 0

    def __str__(self) -> str:
        return sentence(self.what, self.remedy)


Entry = Frame | Video | Problem
"""What a source yields."""


def video_id(dataset: str, domain: str, compression: str, video: str) -> str:
    """The id `dataset/domain/compression/video`, without the empty parts: equal folder names in two manipulations stay two videos."""
    return "/".join(part for part in (dataset, domain, compression, video) if part)


class Frames(NamedTuple):
    """A batch. Pixels travel as bytes (a quarter of the memory and bus of floats); the detector scales and normalises them.

    `domain` is the id of each frame's domain; -1 marks a frame that only fills up a process's share
    and counts for nothing in the loss.
    """

    image: UInt8[Tensor, "batch 3 height width"]
    label: Int[Tensor, " batch"]
    domain: Int[Tensor, " batch"]
    row: Int[Tensor, " batch"]


class Predictions(NamedTuple):
    """One logit for each manifest row; sigmoid(logit) is the probability of fake."""

    row: Int[Tensor, " frames"]
    logit: Float[Tensor, " frames"]
