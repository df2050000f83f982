"""Decoding videos: frames at even distances, by their position in the order of presentation; PyAV carries FFmpeg."""

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
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from fmsd.data.extraction.pixels import Picture, Pixels, aspect, shown
from fmsd.data.manifest import frame_positions
from fmsd.errors import InputError, reason

DECODER = (
    f"PyAV {av.__version__} (libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"
)
"""What decodes, for the record of an extraction."""

STAMPED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers (FFmpeg's names) that tell when each frame is shown and where its key frames lie; frames of others can only be counted."""

PLAIN = ("av1", "h264", "hevc", "mjpeg", "vp9")
"""Codecs (FFmpeg's names) that make a frame of every packet; others have packets that show nothing."""

REORDERED = 16
"""B frames that wait at most for the frame after them: no codec holds more."""

T = TypeVar("T")
See = Callable[[VideoStream, int, float, VideoFrame | None, bool], T]
"""What is made of a frame from its stream, its position, its time, itself, and whether it is sound."""


class Sample(NamedTuple):
    """A frame of a video.

    Args:
        position: its place in the video, counted from 0.
        seconds: when it is shown.
        image: RGB pixels as a viewer sees them, see `fmsd.data.extraction.pixels`; None where the
            stream is damaged, unless damaged frames are asked for.
        corrupt: whether the frame is decoded, but with what the decoder made up where the stream is
            damaged.
        picture: how it is shown; None where it cannot be decoded, or is an image file.
    """

    position: int
    seconds: float
    image: Pixels | None
    corrupt: bool = False
    picture: Picture | None = None


@dataclass(frozen=True)
class Index:
    """What a video file holds, found by reading its packets without decoding them.

    Args:
        shown: time stamps of its frames in the order of presentation; None where the file does not
            tell them reliably.
        keys: positions that decoding can begin with: key frames, and the begin of the file.
        length: number of packets, which is that of frames in nearly all files.
        declared: the number that the file's head promises; 0 where it does not.
    """

    shown: Sequence[int] | None
    keys: Sequence[int]
    length: int
    declared: int

    @property
    def truncated(self) -> bool:
        """Whether the file ends before the frames that its head promises."""
        return self.length < 0.99 * self.declared - 1


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video file and its first video stream, decoded in a single thread: processes are the parallelism.

    Raises:
        InputError: an empty, damaged or audio-only file.
    """
    try:
        if not path.stat().st_size:
            raise InputError(
                f"The video {path} is empty (0 bytes)", "copy it again from its source"
            )
        with av.open(path, metadata_errors="ignore") as container:
            streams = [stream for stream in container.streams.video if not _is_cover(stream)]
            if not streams:
                raise InputError(
                    f"{path} holds no video, only "
                    f"{', '.join({stream.type for stream in container.streams}) or 'nothing'}",
                    "leave it out",
                )
            streams[0].codec_context.thread_count = 1
            yield container, streams[0]
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(
            f"The video {path} cannot be opened ({reason(error)})",
            "copy it again from its source, or leave it out",
        ) from error


def _is_cover(stream: VideoStream) -> bool:
    """Whether a stream is a picture on the cover of a sound file."""
    return bool(stream.disposition & Disposition.attached_pic)


def index(container: InputContainer, stream: VideoStream) -> Index:
    """Reads all packets of a stream."""
    packets = [
        (packet.pts, packet.is_keyframe)
        for packet in _packets(container, stream)
        if not packet.is_discard
    ]
    shown = sorted((stamp, key) for stamp, key in packets if stamp is not None)
    told = container.format.name in STAMPED and stream.codec_context.name in PLAIN
    if not told or len(dict(shown)) < len(packets):
        return Index(None, [0], len(packets), stream.frames)
    keys = [place for place, (_, key) in enumerate(shown) if key or not place]
    return Index([stamp for stamp, _ in shown], keys, len(packets), stream.frames)


def sampled(
    path: Path, count: int | None, sampling: str = "spread", keep_corrupt: bool = False
) -> Iterator[Sample]:
    """At most `count` frames of a video file, spread evenly from its first to its last, or the first ones; None for all.

    Positions, pixels and the number of frames are those of the file decoded from begin to end. A
    frame that cannot be decoded, or only with damage (see `sound`), comes without an image.

    Args:
        keep_corrupt: give the images of frames that are decoded with damage, too.

    Raises:
        InputError: as `opened`, or a file without a single frame.
    """
    yield from each(path, count, sampling, lambda sample: sample, keep_corrupt=keep_corrupt)


def complete(held: Index, path: Path) -> None:
    """Lets a file pass that holds the frames that its head promises.

    Raises:
        InputError: it is cut off.
    """
    if held.truncated:
        raise InputError(
            f"The video {path} ends after {held.length} of {held.declared} frames",
            "copy it again from its source",
        )


def each(
    path: Path,
    count: int | None,
    sampling: str,
    see: Callable[[Sample], T],
    whole: bool = False,
    keep_corrupt: bool = False,
) -> list[T]:
    """What `see` makes of each frame that `sampled` takes, without keeping the frames themselves.

    Where a file does not hold what its index promises, it is called anew for frames of another
    decoding, and what it gave before is dropped.

    Args:
        whole: refuse a file that is cut off.
        keep_corrupt: as that of `sampled`.

    Raises:
        InputError: as `sampled`.
    """

    def sample(
        stream: VideoStream, position: int, seconds: float, frame: VideoFrame | None, clean: bool
    ) -> T:
        if frame is None:
            return see(Sample(position, seconds, None))
        image, picture = shown(frame, aspect(stream))
        return see(
            Sample(position, seconds, image if clean or keep_corrupt else None, not clean, picture)
        )

    with opened(path) as (container, stream):
        held = index(container, stream)
        if whole:
            complete(held, path)
        found = _by_stamp(
            container, stream, held, frame_positions(held.length, count, sampling), sample
        )
    length = held.length
    while found is None:
        if not length:
            raise InputError(
                f"The video {path} holds no frames",
                "copy it again from its source, or leave it out",
            )
        found, length = _by_count(path, frame_positions(length, count, sampling), length, sample)
    return found


def _by_stamp(
    container: InputContainer, stream: VideoStream, held: Index, wanted: Sequence[int], see: See[T]
) -> list[T] | None:
    """The wanted frames, with a jump to the last key frame before the next one; None where frames are not what the index promises."""
    if not held.shown:
        return None
    position: dict[int | None, int] = {stamp: place for place, stamp in enumerate(held.shown)}
    found, unit, reached = list[T](), float(stream.time_base or 0), -1
    frames = _begun(container, stream, position, held.shown[0])
    for place in wanted:
        key = held.keys[bisect.bisect_right(held.keys, place) - 1]
        if jumped := key > reached + 1:
            frames, reached = _begun(container, stream, position, held.shown[key]), key - 1
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
                found.append(
                    see(stream, place, (held.shown[place] - held.shown[0]) * unit, frame, clean)
                )
    return found


def _begun(
    container: InputContainer, stream: VideoStream, position: Mapping[int | None, int], stamp: int
) -> Iterator[tuple[VideoFrame | None, bool]]:
    """What is decoded from a key frame on; a jump may end before it, and frames shown before it may follow it in the file."""
    with contextlib.suppress(av.error.FFmpegError):  # nothing, or another frame, is decoded then
        container.seek(stamp, stream=stream)
    first = position[stamp]
    return sound(
        itertools.dropwhile(
            lambda frame: frame is None or position.get(frame.pts, first) < first,
            _decoded(container, stream),
        )
    )


def _by_count(
    path: Path, wanted: Sequence[int], length: int, see: See[T]
) -> tuple[list[T] | None, int]:
    """The wanted frames, by decoding and counting all; None, and how many there are, where these are not `length` and the last is wanted."""
    with opened(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        found, left, place = list[T](), set(wanted), -1
        for place, (frame, clean) in enumerate(sound(_decoded(container, stream))):
            if place in left:
                found.append(see(stream, place, place / rate, frame, clean))
            if place == wanted[-1] < length - 1:
                return found, length
    return (found if place + 1 == length else None), place + 1


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of a stream, up to where a file is cut off or damaged beyond them."""
    with contextlib.suppress(av.error.FFmpegError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | None]:
    """Frames from where the container stands; None for a packet that cannot be decoded."""
    for packet in itertools.chain(
        _packets(container, stream), [None]
    ):  # the decoder gives the frames that it holds back at the end
        try:
            yield from stream.decode(packet)
        except av.error.FFmpegError:
            yield None


def sound(frames: Iterable[VideoFrame | None]) -> Iterator[tuple[VideoFrame | None, bool]]:
    """Each frame of a stream in the order of presentation, and whether its pixels are those of the video.

    A decoder marks the frame in which it conceals damage, but not those that it predicts from it.
    So the marked frame, or one that is lost, and all after it up to the next key frame are not
    sound; nor are the B frames right before it, which may be predicted from it.
    """
    clean, waiting = True, deque[VideoFrame]()
    for frame in frames:
        intact = frame is not None and not frame.is_corrupt
        if frame is not None and intact and frame.pict_type == PictureType.B:
            waiting.append(frame)
            if len(waiting) > REORDERED:
                yield waiting.popleft(), clean
            continue
        yield from ((before, clean and intact) for before in waiting)
        waiting.clear()
        clean = frame is not None and intact and (clean or frame.key_frame)
        yield frame, clean
    yield from ((before, clean) for before in waiting)
