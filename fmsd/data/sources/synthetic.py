"""The embedded dataset: drawn once into a folder, then read like any other.

ROOT/synthetic-vN/DATASET/DOMAIN/VIDEO/INDEX.jpg
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fmsd.console import track
from fmsd.data.frame import REAL, Frame, video_id
from fmsd.data.synthetic import plan
from fmsd.errors import InputError, reason

log = logging.getLogger(__name__)


def scan(root: Path) -> Iterator[Frame]:
    """The frames of `synthetic` and `synthetic_shift`; the first call draws them (half a minute).

    Raises:
        InputError: the root cannot be written.
    """
    folder = root / f"synthetic-v{plan.DRAWING_VERSION}"
    try:
        if not folder.is_dir():
            log.info("The embedded dataset is drawn into %s.", folder)
            _draw(folder)
    except OSError as error:
        raise InputError(
            f"The embedded dataset cannot be drawn in {root} ({error.strerror or reason(error)})",
            "set FMSD_CACHE to a folder that can be written, or give one as data.root=PATH",
        ) from error
    for clip in plan.all_clips():
        for index in range(plan.FRAMES):
            yield Frame(
                path=_file(folder, clip, index),
                label=0 if clip.domain == REAL else 1,
                dataset=clip.dataset,
                domain=clip.domain,
                video=video_id(clip.dataset, clip.domain, "", clip.name),
                index=index,
                split=clip.split,
            )


def _file(folder: Path, clip: plan.Clip, index: int) -> Path:
    return folder / clip.dataset / clip.domain / clip.name / f"{index:03d}.jpg"


def _draw(folder: Path) -> None:
    """Draws all frames into a folder that appears in one step: a killed run leaves none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        clips = list(plan.all_clips())
        for clip in track(clips, "Drawing the embedded dataset", len(clips), "videos"):
            _file(partial, clip, 0).parent.mkdir(parents=True)
            for index, image in enumerate(plan.record_clip(clip)):
                _file(partial, clip, index).write_bytes(
                    plan.encode_jpeg(image, plan.jpeg_quality(clip))
                )
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has drawn the same frames meanwhile
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
