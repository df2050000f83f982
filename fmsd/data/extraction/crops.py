"""The extraction of one video: from its frames to a folder of face crops and their record.

The folder appears in one step when all of it is written: a folder that is there is complete.
"""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from fmsd.data.extraction.faces import FaceDetector
from fmsd.data.extraction.frames import process_frames
from fmsd.data.extraction.outcomes import VideoOutcome, summarize_record
from fmsd.data.extraction.recipe import Recipe, encode_crop
from fmsd.data.extraction.records import check_crop_folder
from fmsd.data.extraction.source_videos import RECORD_FILE, SOURCE_KEYS, SourceVideo, file_state
from fmsd.data.loading.blending import LANDMARKS_SUFFIX
from fmsd.errors import InputError
from fmsd.ownership import path_below


def extract_video(
    source: SourceVideo, detect: FaceDetector, recipe: Recipe, out: Path, work: Path
) -> VideoOutcome:
    """Writes all crops of one video below `out`, or none; an unreadable video is a failed outcome.

    Args:
        work: a folder on the same disk, where the crops are written first.

    Raises:
        InputError: something else lies in the place of the crops.
        OSError: they cannot be written.
    """
    try:
        record, files = process_video(source, detect, recipe)
    except InputError as error:
        return VideoOutcome(source.video, failure=str(error))
    folder, partial = path_below(out, source.video), work / uuid.uuid4().hex
    try:
        partial.mkdir()
        for name, content in files.items():
            if name.endswith(LANDMARKS_SUFFIX):
                np.save(partial / name, content)
            else:
                (partial / name).write_bytes(encode_crop(content, recipe.format, recipe.quality))
        (partial / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_crop_folder(folder)  # again: another file may have been put there meanwhile
        if folder.exists():  # made of another file, or with a damaged record
            folder.replace(partial.with_suffix(".old"))
        partial.replace(folder)
    finally:
        for left in (partial, partial.with_suffix(".old")):
            shutil.rmtree(left, ignore_errors=True)
    return summarize_record(record, recipe)


def process_video(
    source: SourceVideo, detect: FaceDetector, recipe: Recipe
) -> tuple[dict[str, Any], dict[str, ndarray]]:
    """The record of a video, and its crops and landmarks by file name.

    Raises:
        InputError: as `process_frames`.
    """
    frames, crops = process_frames(
        source.file, source.images, detect, recipe, source.masks, fake=source.label == 1
    )
    about = {name: getattr(source, name) for name in SOURCE_KEYS}
    return about | {"source": file_state(source)} | frames, crops
