"""Which face of a video is forged: the one under the manipulation mask that its dataset publishes.

A mask is a clip, or a folder of images, that is bright where a fake differs from the real video
that it was made from. It belongs to the fake, and shows the same person in that real video.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from fmsd.data.extraction.faces import Face
from fmsd.data.extraction.opening import open_video
from fmsd.data.extraction.pixels import Pixels
from fmsd.data.extraction.video import map_frames, read_index
from fmsd.data.loading.image import read_image
from fmsd.data.sources.tree import read_folder
from fmsd.errors import InputError

BRIGHT = 64
"""Smallest value of a bright pixel's brightest channel; noise of compression is darker."""

MASKED = 0.25
"""Smallest share of a mask inside a face's box, on average, that makes the face the forged one."""

EMPTY = 1e-4
"""Share of a frame below which a mask is empty."""

SAME_LENGTH = 0.1
"""Largest difference of the numbers of frames of a mask and of its video, as a share."""

SAME_SHAPE = 0.02
"""Largest difference of their ratios of width to height, as a share."""


class Mask(NamedTuple):
    """A manipulation mask.

    Args:
        video: id of the fake that it belongs to.
        path: a video, or a folder of images.
    """

    video: str
    path: Path


class DetectedFrame(NamedTuple):
    """A frame whose faces are compared with a mask.

    Args:
        position: in the video.
        size: width and height in pixels.
        faces: the faces in it.
    """

    position: int
    size: tuple[int, int]
    faces: Sequence[Face]


class MaskShares(NamedTuple):
    """How much of a mask each face of a video covers.

    Args:
        record: what the record of the video says about its masks; empty where it has none.
        by_frame: the share of the mask inside the box of each face, by the frame's position, of
            frames whose mask is not empty; None where no mask can be used.
    """

    record: dict[str, Any]
    by_frame: Mapping[int, Sequence[float]] | None


def measure_masks(
    masks: Sequence[Mask],
    frames: Sequence[DetectedFrame],
    file: Path | None,
    images: Sequence[tuple[int, Path]],
) -> MaskShares:
    """The shares by the first mask that can be used.

    Args:
        masks: of the video; none in most datasets.
        frames: the frames that could be decoded.
        file, images: the video, as `fmsd.data.extraction.frames.process_frames` takes it.
    """
    faults = []
    for mask in masks:
        try:
            shares = _mask_shares(mask.path, frames, file, images)
        except InputError as error:
            faults.append(f"{mask.video}: {error}")
        else:
            return MaskShares({"of": mask.video, "used": True}, shares)
    return MaskShares({"used": False, "why": faults[0]} if masks else {}, None)


def _mask_shares(
    path: Path,
    frames: Sequence[DetectedFrame],
    file: Path | None,
    images: Sequence[tuple[int, Path]],
) -> dict[int, list[float]]:
    """The shares of a mask by position, see `MaskShares`.

    Raises:
        InputError: the mask cannot be read, does not fit the video, or is empty in all frames.
    """
    remedy = "complete the copy of the masks, or extract with mask=null"
    by_position = {frame.position: frame for frame in frames}
    shares: dict[int, list[float]] = {}

    def compare(position: int, image: Pixels | None) -> None:
        frame = by_position[position]
        if image is None:
            return
        height, width, _ = image.shape
        if abs(width * frame.size[1] / (height * frame.size[0]) - 1) > SAME_SHAPE:
            raise InputError(
                f"The mask {path} has {width} x {height} pixels, and its video {frame.size[0]} x "
                f"{frame.size[1]}",
                remedy,
            )
        bright = image.max(-1) >= BRIGHT
        if bright.mean() > EMPTY:
            shares[position] = [
                share_inside(bright, face, width / frame.size[0]) for face in frame.faces
            ]

    if path.is_dir():
        names = [path / name for name in read_folder(path).images]
        if file is None:  # masks of some images only are found by name
            places = {mask.stem: mask for mask in names}
            found = {place: places[image.stem] for place, image in images if image.stem in places}
        else:
            check_length(path, len(names), count_frames(file), remedy)
            found = dict(enumerate(names))
        for position in sorted(by_position.keys() & found.keys()):
            compare(position, read_image(found[position]))
    else:
        length = len(images) if file is None else count_frames(file)
        check_length(path, count_frames(path), length, remedy)
        map_frames(
            path, None, sorted(by_position), lambda sample: compare(sample.position, sample.image)
        )
    if not shares:
        raise InputError(f"The mask {path} is empty in all frames of its video", remedy)
    return shares


def share_inside(mask: Bool[ndarray, "height width"], face: Face, scale: float) -> float:
    """The share of a mask inside the box of a face.

    Args:
        scale: pixels of the mask per pixel of the face's frame.
    """
    left, top, width, height = (round(side * scale) for side in face.box)
    inside = mask[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    return float(np.count_nonzero(inside) / np.count_nonzero(mask))


def count_frames(path: Path) -> int:
    """The number of frames of a video by its packets.

    Raises:
        InputError: as `open_video`.
    """
    with open_video(path) as (container, stream):
        return read_index(container, stream).length


def check_length(path: Path, length: int, of_video: int, remedy: str) -> None:
    """Checks that a mask has about as many frames as its video.

    Raises:
        InputError: it has not, so that its frames are not those of the video.
    """
    if abs(length - of_video) > SAME_LENGTH * of_video:
        raise InputError(f"The mask {path} has {length} frames, and its video {of_video}", remedy)


def track_shares(
    tracks: Sequence[Mapping[int, Face]], share_of: Callable[[int, Face], float | None]
) -> list[tuple[float, float]]:
    """(sum, mean) of the shares of the mask in the faces of each track.

    Args:
        tracks: faces by number of the frame.
        share_of: the share of a face in a frame; None where its mask is empty.
    """
    sums = []
    for track in tracks:
        shares = [share for place, face in track.items() if (share := share_of(place, face))]
        counted = sum(share_of(place, face) is not None for place, face in track.items())
        sums.append((sum(shares), sum(shares) / max(counted, 1)))
    return sums
