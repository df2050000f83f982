"""Extraction: face crops and their manifest from videos or images, in parallel and resumable."""

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fmsd.console import print_place, print_table
from fmsd.data import entries
from fmsd.data.absent_videos import write_absent
from fmsd.data.extraction.faces import FaceDetector
from fmsd.data.extraction.mask_files import AUTO, assign_masks
from fmsd.data.extraction.outcomes import report_outcomes
from fmsd.data.extraction.output import claim_work_folder, crops_output_error, write_settings
from fmsd.data.extraction.pixels import CONVERSION
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.records import check_nesting, is_extracted, read_records
from fmsd.data.extraction.source_videos import SourceVideo, group_videos, limit_videos
from fmsd.data.extraction.stale_crops import put_aside
from fmsd.data.extraction.status import Status, keep_status, read_status
from fmsd.data.extraction.video import DECODER
from fmsd.data.extraction.without_crops import list_absent
from fmsd.data.extraction.workers import extract_videos
from fmsd.data.frame import Problem
from fmsd.data.selection import Selection
from fmsd.data.sources import extracted
from fmsd.data.sources.extracted import PERSON_SUFFIX
from fmsd.errors import InputError
from fmsd.lock import try_lock
from fmsd.quoting import shell_override

log = logging.getLogger(__name__)


def extract(
    data: Selection,
    detector: Callable[[], FaceDetector],
    recipe: Recipe,
    out: Path,
    shard: tuple[int, int] = (0, 1),
    workers: int = 1,
    mask: str | None = AUTO,
) -> int:
    """Extracts face crops of the videos below the data's root, and writes their manifest.

    Videos that are extracted already are skipped. Crops whose video has another id by now are moved
    aside, see `fmsd.data.extraction.stale_crops`. With several shards, `fmsd index` writes the
    manifest.

    Args:
        detector: builds the face detector, in every process.
        shard: (number, number of shards): the part of the videos to extract, for several machines.
        workers: number of processes.
        mask: of the forged faces, see `assign_masks`.

    Returns:
        The number of videos that could not be read.

    Raises:
        InputError: there are no videos, `out` holds crops with other settings or files that would
            be replaced, it cannot be written, or another process works on it.
    """
    if not isinstance(workers, int) or workers < 1:
        raise InputError(
            f"workers={workers} must be a whole number of at least 1", "null means one per core"
        )
    number, shards = shard
    if not 0 <= number < shards:
        raise InputError(
            f"shard={number}/{shards} does not exist", f"shards are counted from 0 to {shards - 1}"
        )
    about = (
        detector().about
    )  # a detector that cannot be built is refused before anything is written
    listed, requested = list_source_videos(data, mask)
    if recipe.faces == "all":
        check_person_ids(listed)
    settings = {"decoder": DECODER, "conversion": CONVERSION, "detector": about} | asdict(recipe)
    if any(source.masks for source in listed):
        settings["mask"] = "auto" if mask == AUTO else "given"
    write_settings(out, settings)
    part = requested[number::shards]
    name = data.name if shards == 1 else f"{data.name}-{number}-of-{shards}"
    lock = functools.partial(try_lock, patience=1)
    try:
        with claim_work_folder(out, name, lock) as work:
            put_aside(listed, out)
            check_nesting(part, out)
            left = [source for source in part if not is_extracted(source, out)]
            before = len(part) - len(left)
            if before:
                log.info("%d of %d videos are done already.", before, len(part))
            status = Status(data.name, number, shards, len(requested), before)
            with keep_status(out, status) as note:
                outcomes = list(extract_videos(left, detector, recipe, out, work, workers, note))
            failures = report_outcomes(outcomes, left, recipe, out / f"failures-{name}.csv")
    except OSError as error:
        raise crops_output_error(out, error) from error
    if shards == 1:
        write_manifest(out)
    return failures


def list_source_videos(
    data: Selection, mask: str | None
) -> tuple[list[SourceVideo], list[SourceVideo]]:
    """All videos of the source, and those to extract; problems of the copy are logged.

    Args:
        mask: see `assign_masks`.

    Raises:
        InputError: there are no videos to extract, or no masks of them.
    """
    problems: list[Problem] = []
    try:
        listed = assign_masks(group_videos(data.source(data.root_path), problems), mask)
    finally:
        entries.log_problems(problems)
    chosen = (
        source
        for source in listed
        if not source.label or data.forgeries is None or source.domain in data.forgeries
    )
    requested = limit_videos(chosen, data.videos)
    if not requested:
        raise InputError(
            f"No videos were found under {data.root_path}",
            "check the root and the layout on the page of the dataset in docs/datasets",
        )
    return listed, requested


def check_person_ids(sources: Sequence[SourceVideo]) -> None:
    """Refuses videos whose id ends like those of the further persons of a video (faces=all)."""
    for source in sources:
        if PERSON_SUFFIX.search(source.video):
            raise InputError(
                f"The id {source.video} ends like the id of a person's track (faces=all)",
                "rename that video",
            )


def write_manifest(out: Path) -> None:
    """Writes the manifest of all crops in a folder, and the list of videos without any.

    Raises:
        InputError: no video in the folder has a crop.
    """
    frames = (frame for _, record in read_records(out) for frame in record["frames"])
    if not any(frame["status"] == "face" for frame in frames):
        raise InputError(
            f"No face was found in any of the videos in {out}",
            "lower detector.score, or look at them",
        )
    manifest = entries.from_entries(extracted.scan(out), out).validate()
    write_absent(out, list_absent(out))
    manifest.write(out / "manifest.parquet")
    print_place(
        f"{len(manifest)} crops of {manifest.videos} videos lie in {out}; train and test with "
        f"{shell_override('data.root', out)}",
        out,
    )


def print_status(out: Path) -> None:
    """Prints how far the extractions into a folder are; they may be at work.

    Raises:
        InputError: see `fmsd.data.extraction.status.read_status`.
    """
    parts, now = read_status(out), time.time()
    records = [
        {
            "data": part.data,
            "shard": part.shard,
            "shards": part.shards,
            "state": part.state(now),
            "videos": part.videos,
            "done": part.before + part.done,
            "failed": part.failed,
            "left": part.left,
            "videos_per_minute": 60 * part.rate,
            "seconds_left": part.seconds_left,
            "updated": datetime.fromtimestamp(part.updated, UTC).isoformat(timespec="seconds")
            if part.began
            else None,
        }
        for part in parts
    ]
    rows = [
        [
            part.data if part.shards == 1 else f"{part.data} {part.shard}/{part.shards}",
            str(record["state"]),
            *(f"{record[name]:,}" for name in ("videos", "done", "failed", "left")),
            f"{record['videos_per_minute']:,.1f}",
            format_seconds(part.seconds_left),
            format_seconds(max(0.0, now - part.updated)) if part.began else "-",
        ]
        for part, record in zip(parts, records, strict=True)
    ]
    header = ["data", "state", "videos", "done", "failed", "left", "videos/min"]
    done, videos = (sum(record[key] for record in records) for key in ("done", "videos"))
    times = [record["seconds_left"] for record in records if record["state"] == "running"]
    known = [seconds for seconds in times if seconds is not None]
    left = f"; those that run need about {format_seconds(max(known))}" if known else ""
    print_table(
        f"Extraction into {out}",
        [*header, "time left", "reported ago"],
        rows,
        f"{done:,} of {videos:,} videos are done{left}",
        name="status",
        records=records,
    )


def format_seconds(seconds: float | None) -> str:
    """Hours, minutes and seconds as H:MM:SS; a dash for None."""
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))
