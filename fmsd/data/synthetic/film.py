"""A film of a drawn person who is in no split of the embedded dataset: python -m ... FILE.mp4."""

import sys
from pathlib import Path

import av

from fmsd.data.synthetic.plan import Clip, record_clip

RATE = 12
"""Frames per second."""


def write_film(path: Path, domain: str = "blend", frames: int = 24) -> None:
    """Writes a video of frames as the embedded dataset has them, without loss.

    Args:
        domain: `real`, or a forgery of the embedded dataset.
        frames: number of frames.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    images = list(record_clip(Clip("synthetic", "test", domain, "film"), frames))
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264rgb", RATE, options={"qp": "0"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "rgb24"
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    write_film(Path(sys.argv[1]))
