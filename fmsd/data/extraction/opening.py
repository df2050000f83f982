"""Opening a video file: its first video stream, with a decoder that stays within bounds."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from fmsd.data.loading.image import MAX_PIXELS
from fmsd.errors import InputError, reason
from fmsd.magic_numbers import recognise_text

# fmt: off
CONTAINERS = (
    "mov", "avi", "matroska", "ogg", "gif", "flv", "live_flv", "mpeg", "mpegvideo", "mpegts",
    "mpegtsraw", "asf", "rm", "mxf", "gxf", "dv", "wtv", "nut", "nsv", "yuv4mpegpipe", "mjpeg",
    "mjpeg_2000", "ivf", "obu", "av1", "h261", "h263", "h264", "hevc", "vvc", "m4v", "vc1",
    "vc1test", "dirac", "cavsvideo", "apng", "jpegxl_anim", "jpeg_pipe", "png_pipe", "webp_pipe",
    "bmp_pipe", "tiff_pipe", "j2k_pipe",
    "mp3", "aac", "wav", "w64", "flac", "ac3", "eac3", "dts", "aiff", "au", "amr", "caf", "ape",
)
"""FFmpeg's names of the containers and streams that are read, of sound for its own message.

None of them refers to other files, as lists (concat, hls, dash, sdp) and patterns (image2) do.
"""
# fmt: on

OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
"""FFmpeg's options by which a file can name no other file and no address that would be read."""


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a video file; yields the container and its first video stream.

    It is decoded in a single thread: processes are the parallelism. Its content decides what it
    is, whatever its suffix; a list of other files is refused.

    Raises:
        InputError: an empty, damaged or audio-only file, or one of an unknown codec or of frames
            larger than `MAX_PIXELS`.
    """
    try:
        if not path.stat().st_size:
            raise InputError(
                f"The video {path} is empty (0 bytes)", "copy it again from its source"
            )
        with av.open(path, metadata_errors="ignore", options=OPTIONS) as container:
            streams = [stream for stream in container.streams.video if not _is_cover(stream)]
            if not streams:
                raise InputError(
                    f"{path} holds no video, only "
                    f"{', '.join({stream.type for stream in container.streams}) or 'nothing'}",
                    "leave it out",
                )
            _set_decoder(path, streams[0])
            yield container, streams[0]
    except av.error.ArgumentError as error:  # of the list of containers, mostly
        raise InputError(
            f"{path} is no video of a format that is read, or a list of other files",
            "convert it to MP4, or leave it out",
        ) from error
    except (OSError, av.error.FFmpegError) as error:
        fault = None
        with contextlib.suppress(OSError):
            fault = recognise_text(path)
        if fault is not None:
            raise InputError(f"{path} {fault.what}, and no video", fault.remedy) from error
        raise InputError(
            f"The video {path} cannot be opened ({reason(error)})",
            "copy it again from its source, or leave it out",
        ) from error


def _set_decoder(path: Path, stream: VideoStream) -> None:
    """Sets the threads of a stream's decoder, and the largest frame that it may decode.

    Raises:
        InputError: there is no decoder, or the frames are larger than `MAX_PIXELS`.
    """
    decoder = stream.codec_context  # PyAV has none where FFmpeg does not know the codec
    if decoder is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise InputError(
            f"The video {path} has a codec that FFmpeg does not know, or a damaged header",
            "copy it again from its source, convert it, or leave it out",
        )
    if decoder.width * decoder.height > MAX_PIXELS:
        raise InputError(
            f"The frames of {path} have {decoder.width} x {decoder.height} pixels, and at most "
            f"{MAX_PIXELS // 10**6} million are decoded",
            "scale it down, or leave it out",
        )
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(MAX_PIXELS)}  # a frame may be larger than its header says


def _is_cover(stream: VideoStream) -> bool:
    """Whether a stream is the cover picture of an audio file."""
    return bool(stream.disposition & Disposition.attached_pic)
