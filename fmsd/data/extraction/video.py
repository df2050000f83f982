"""Decoding of videos by PyAV (FFmpeg): frames by their position in the order of presentation."""

import bisect
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from fmsd.data.extraction.opening import open_video
from fmsd.data.extraction.pixels import Picture, Pixels, pixel_aspect, render_frame
from fmsd.data.manifest import frame_positions
from fmsd.errors import InputError

DECODER = (
    f"PyAV {av.__version__} (libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"
)
"""Version of the decoder, for the settings of an extraction."""

TIMED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers (FFmpeg's names) with reliable time stamps; in others frames are counted."""

ONE_FRAME_CODECS = ("av1", "h264", "hevc", "mjpeg", "vp9")
"""Codecs (FFmpeg's names) that decode every packet to one frame; others may decode it to none."""

MAX_B_FRAMES = 16
"""Largest number of B frames that wait for the frame after them: no codec reorders more."""

T = TypeVar("T")
FrameCount = int | None | Callable[[int, float], int | None]
"""Largest number of frames, None for all; or a function of a video's frames and its seconds."""

FrameFunction = Callable[[VideoStream, int, float, VideoFrame | None, bool], T]
"""A function of the stream, a frame's position and seconds, the frame, and whether it is intact."""


class Sample(NamedTuple):
    """A frame of a video.

    Args:
        position: index in the video, from 0.
        seconds: time of presentation.
        image: RGB pixels as a viewer sees them, see `fmsd.data.extraction.pixels`; None where the
            stream is damaged, unless damaged frames are kept.
        corrupt: whether the frame is decoded, but with damage that the decoder concealed.
        picture: how it is shown; None where it cannot be decoded, or is an image file.
    """

    position: int
    seconds: float
    image: Pixels | None
    corrupt: bool = False
    picture: Picture | None = None


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video file, by its packets, without decoding them.

    Args:
        shown: time stamps of the frames in the order of presentation; None where the file's are
            not reliable.
        keys: positions at which decoding can begin: key frames, and the start of the file.
        length: number of packets, which equals the number of frames in nearly all files.
        declared: number of frames by the file's header; 0 where it has none.
    """

    shown: Sequence[int] | None
    keys: Sequence[int]
    length: int
    declared: int

    @property
    def truncated(self) -> bool:
        """Whether the file has fewer frames than its header declares."""
        return self.length < 0.99 * self.declared - 1


def read_index(container: InputContainer, stream: VideoStream) -> VideoIndex:
    """Reads all packets of a stream, without decoding them."""
    packets = [
        (packet.pts, packet.is_keyframe)
        for packet in _packets(container, stream)
        if not packet.is_discard
    ]
    shown = sorted((stamp, key) for stamp, key in packets if stamp is not None)
    timed = (
        container.format.name in TIMED_CONTAINERS and stream.codec_context.name in ONE_FRAME_CODECS
    )
    if not timed or len(dict(shown)) < len(packets):
        return VideoIndex(None, [0], len(packets), stream.frames)
    keys = [place for place, (_, key) in enumerate(shown) if key or not place]
    return VideoIndex([stamp for stamp, _ in shown], keys, len(packets), stream.frames)


def sample_video(
    path: Path, count: int | None, sampling: str = "spread", keep_corrupt: bool = False
) -> Iterator[Sample]:
    """Samples frames of a video file.

    Positions, pixels and the number of frames equal those of decoding the whole file in order. A
    frame that cannot be decoded, or only with damage (see `mark_intact`), has no image.

    Args:
        count: largest number of frames; None for all.
        sampling: `spread` evenly from the first frame to the last, or the `first` ones.
        keep_corrupt: keep the images of frames that are decoded with damage.

    Raises:
        InputError: as `open_video`, or a file without frames.
    """
    yield from map_frames(path, count, sampling, lambda sample: sample, keep_corrupt=keep_corrupt)


def check_complete(index: VideoIndex, path: Path) -> None:
    """Checks that a file has the frames that its header declares, which a cut-off file lacks."""
    if index.truncated:
        raise InputError(
            f"The video {path} ends after {index.length} of {index.declared} frames",
            "copy it again from its source",
        )


def duration(stream: VideoStream, length: int = 0) -> float:
    """The seconds of a video by its header, else those of `length` frames."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return length / frame_rate(stream)


def frame_rate(stream: VideoStream) -> float:
    """Frames per second by the header; 25 where it does not say."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def map_frames(
    path: Path,
    count: FrameCount,
    sampling: str | Sequence[int],
    function: Callable[[Sample], T],
    whole: bool = False,
    keep_corrupt: bool = False,
) -> list[T]:
    """Applies a function to each sampled frame of a video file, without keeping the frames.

    Where the frames differ from the file's index, the file is decoded again from its start: the
    function is called anew, and its earlier results are dropped.

    Args:
        count: see `FrameCount`.
        sampling: as of `sample_video`, or positions in rising order; those beyond the end are left
            out.
        keep_corrupt: as of `sample_video`.
        whole: refuse a file that is cut off.

    Raises:
        InputError: as `sample_video`.
    """

    def sample(
        stream: VideoStream, position: int, seconds: float, frame: VideoFrame | None, clean: bool
    ) -> T:
        if frame is None:
            return function(Sample(position, seconds, None))
        image, picture = render_frame(frame, pixel_aspect(stream))
        return function(
            Sample(position, seconds, image if clean or keep_corrupt else None, not clean, picture)
        )

    def positions(length: int) -> Sequence[int]:
        if not isinstance(sampling, str):
            return [place for place in sampling if place < length]
        most = count(length, seconds) if callable(count) else count
        return frame_positions(length, most, sampling)

    with open_video(path) as (container, stream):
        index = read_index(container, stream)
        if whole:
            check_complete(index, path)
        seconds = duration(stream, index.length)
        requested = positions(index.length)
        results = _map_by_stamp(container, stream, index, requested, sample)
    length = index.length
    while results is None:
        if not length:
            raise InputError(
                f"The video {path} holds no frames",
                "copy it again from its source, or leave it out",
            )
        results, length = _map_by_count(path, positions(length), length, sample)
    return results


def _map_by_stamp(
    container: InputContainer,
    stream: VideoStream,
    index: VideoIndex,
    requested: Sequence[int],
    function: FrameFunction[T],
) -> list[T] | None:
    """Applies a function to frames that are found by time stamp, seeking to the last key frame.

    Returns:
        None where the decoded frames differ from the index.
    """
    if not index.shown:
        return None
    position: dict[int | None, int] = {stamp: place for place, stamp in enumerate(index.shown)}
    results: list[T] = []
    unit, reached = float(stream.time_base or 0), -1
    frames = _decode_from(container, stream, position, index.shown[0])
    for place in requested:
        key = index.keys[bisect.bisect_right(index.keys, place) - 1]
        if jumped := key > reached + 1:
            frames, reached = _decode_from(container, stream, position, index.shown[key]), key - 1
        while reached < place:
            frame, clean = next(frames, (None, False))
            reached += 1
            if (
                frame is None
                or position.get(frame.pts) != reached
                or (jumped and reached == key and not frame.key_frame)
            ):
                return None
            if reached == place:
                seconds = (index.shown[place] - index.shown[0]) * unit
                results.append(function(stream, place, seconds, frame, clean))
    return results


def _decode_from(
    container: InputContainer, stream: VideoStream, position: Mapping[int | None, int], stamp: int
) -> Iterator[tuple[VideoFrame | None, bool]]:
    """The frames from the key frame of a time stamp on, each with whether it is intact.

    A seek may end before the key frame, and frames shown before it may follow it in the file; both
    are skipped.
    """
    with contextlib.suppress(av.error.FFmpegError):  # nothing, or another frame, is decoded then
        container.seek(stamp, stream=stream)
    first = position[stamp]
    return mark_intact(
        itertools.dropwhile(
            lambda frame: frame is None or position.get(frame.pts, first) < first,
            _decode(container, stream),
        )
    )


def _map_by_count(
    path: Path, requested: Sequence[int], length: int, function: FrameFunction[T]
) -> tuple[list[T] | None, int]:
    """Applies a function to frames that are found by decoding and counting all.

    Args:
        requested: positions, in rising order, chosen for a video of `length` frames.

    Returns:
        The results and `length`; None and the number of frames where this is not `length`, unless
        counting ended at the last requested frame before the end of the video.
    """
    with open_video(path) as (container, stream):
        rate = frame_rate(stream)
        results: list[T] = []
        left, place = set(requested), -1
        for place, (frame, clean) in enumerate(mark_intact(_decode(container, stream))):
            if place in left:
                results.append(function(stream, place, place / rate, frame, clean))
            if place == requested[-1] < length - 1:
                return results, length
    return (results if place + 1 == length else None), place + 1


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of a stream, up to where the file is cut off or damaged."""
    with contextlib.suppress(av.error.FFmpegError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | None]:
    """Frames from the container's position on; None for a packet that cannot be decoded."""
    # None makes the decoder return the frames that it has held back
    for packet in itertools.chain(_packets(container, stream), [None]):
        try:
            yield from stream.decode(packet)
        except av.error.FFmpegError:
            yield None


def mark_intact(frames: Iterable[VideoFrame | None]) -> Iterator[tuple[VideoFrame | None, bool]]:
    """Pairs each frame, in the order of presentation, with whether it is free of damage.

    A decoder marks the frame in which it conceals damage, but not the frames that it predicts from
    it. So the marked or lost frame and all after it up to the next key frame are not intact, nor
    are the B frames right before it, which may be predicted from it.
    """
    clean, waiting = True, deque[VideoFrame]()
    for frame in frames:
        intact = frame is not None and not frame.is_corrupt
        if frame is not None and intact and frame.pict_type == PictureType.B:
            waiting.append(frame)
            if len(waiting) > MAX_B_FRAMES:
                yield waiting.popleft(), clean
            continue
        yield from ((before, clean and intact) for before in waiting)
        waiting.clear()
        clean = frame is not None and intact and (clean or frame.key_frame)
        yield frame, clean
    yield from ((before, clean) for before in waiting)
