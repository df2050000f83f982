"""What is wrong with a copy of a dataset: what its source says, what its table tells, and what a look into its files shows.

A file is read without ever ending the examination: whatever a decoder says about it is a finding.
"""

import contextlib
import functools
import hashlib
import io
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import polars as pl
from jaxtyping import Int64, UInt8
from numpy import ndarray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from fmsd.data.extraction.video import check_complete, open_video, read_index, sample_video
from fmsd.data.loading.image import content, decode, member
from fmsd.data.manifest import NAME, SOURCE, Manifest, collect
from fmsd.data.processes import pool
from fmsd.data.sources import tree
from fmsd.data.spelling import fold_case, path_finder, with_slashes
from fmsd.errors import InputError, reason
from fmsd.types import REAL, Entry, Frame, Problem, Video

Severity = Literal["fatal", "warning", "note"]
"""`fatal`: training stops, or its numbers would be wrong; `warning`: they may not mean what they seem to; `note`: to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found in a copy.

    Args:
        check: what was looked for, in a few words.
        examples: every place where it was found.
        remedy: what to do about it.
    """

    check: str
    severity: Severity
    examples: list[str]
    remedy: str

    @property
    def count(self) -> int:
        """In how many places it was found."""
        return len(self.examples)


FILM = pl.col("film")
"""Which rows of an examined manifest are video files; training reads only the others."""


def stills(manifest: Manifest) -> Manifest:
    """A manifest that is read instead of a scan, and so has no video files, with the column `film`."""
    return replace(manifest, table=manifest.table.with_columns(film=pl.lit(False)))


def listed(
    source: Callable[[Path], Iterable[Entry]], root: Path
) -> tuple[Manifest | None, list[Finding]]:
    """Every file that a source yields, video files included, which the column `film` marks, and what it says is wrong; None where it yields nothing.

    What was read before the source refused the copy is kept.
    """
    problems: list[Problem] = []
    refusals: list[Exception] = []
    films: list[str] = []

    def files() -> Iterator[Frame]:
        try:
            for entry in source(root):
                if isinstance(entry, Problem):
                    problems.append(entry)
                elif isinstance(entry, Video):
                    yield from _files(entry, problems)
                    films.extend([] if entry.file is None else [entry.file.as_posix()])
                else:
                    yield entry
        except (InputError, OSError) as error:
            refusals.append(error)

    manifest = None
    try:
        manifest = collect(files(), root)
        manifest = replace(
            manifest,
            table=manifest.table.with_columns(film=pl.Series(manifest.files()).is_in(films)),
        )
    except InputError as error:
        refusals = refusals or [error]
    return manifest, [*map(refused, refusals), *_by_kind(problems)]


def refused(error: Exception) -> Finding:
    """What ends a training before it begins."""
    if isinstance(error, InputError):
        return Finding("refused", "fatal", [error.message], error.remedy)
    return Finding("refused", "fatal", [reason(error)], READ_AGAIN)


READ_AGAIN = "make it readable, or restore it from its source"

UNREADABLE = "unreadable folders"


def _files(video: Video, problems: list[Problem]) -> Iterator[Frame]:
    """The frames of a video, and its file with the index behind theirs."""
    count = 0
    if video.images is not None:
        try:
            for frame in tree.entry_frames(video):
                if isinstance(frame, Problem):
                    problems.append(frame)
                else:
                    count += 1
                    yield frame
        except (InputError, OSError) as error:
            what, remedy = (
                (error.message, error.remedy)
                if isinstance(error, InputError)
                else (reason(error), READ_AGAIN)
            )
            problems.append(Problem(UNREADABLE, what, remedy))
    if video.file is not None:
        yield Frame(
            video.file,
            video.label,
            video.dataset,
            video.domain,
            video.video,
            count,
            video.split,
            video.compression,
        )


def _by_kind(problems: Sequence[Problem]) -> list[Finding]:
    """A finding for each kind of problem, with the remedy of its first."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    return [
        Finding(
            kind,
            "fatal" if kind == UNREADABLE else "warning",
            [problem.what for problem in found],
            found[0].remedy,
        )
        for kind, found in kinds.items()
    ]


def videos(manifest: Manifest) -> pl.DataFrame:
    """A row per video with its number of frames."""
    constant = (pl.col(name).first() for name in ("label", "dataset", "domain", "split"))
    return manifest.table.group_by("video").agg(*constant, (~FILM).sum().alias("frames"))


def table_findings(
    manifest: Manifest,
    name: str,
    expected: Mapping[str, Mapping[str, int]],
    names: str | None = None,
    frames: int | None = None,
    train_frames: int | None = None,
    missing: Sequence[str] = (),
) -> list[Finding]:
    """What is wrong with the table itself; no file is touched.

    Args:
        manifest: with the column `film`.
        name: the dataset that `expected` is about.
        expected: numbers of videos of a whole copy by split (or `all`) and domain.
        names: what the names of videos tell, see `leak_findings`.
        frames: every video should have so many; None for any number.
        train_frames: the same for training videos.
        missing: what the source said about videos that are not there; a domain that it names was
            not left out on purpose.
    """
    table = videos(manifest)
    own = table.filter(dataset=name)
    parts = [] if own.is_empty() else part_findings(own, expected, missing)
    train = pl.col("split") == "train"
    sides = (
        ((table, frames),)
        if train_frames == frames
        else ((table.filter(train), train_frames), (table.filter(~train), frames))
    )
    short = [
        finding
        for side, wanted in sides
        if wanted is not None
        for finding in short_findings(side, wanted)
    ]
    return [*parts, *class_findings(table), *leak_findings(table, names), *short]


FAKE = "fake"


def part_findings(
    table: pl.DataFrame, expected: Mapping[str, Mapping[str, int]], missing: Sequence[str] = ()
) -> list[Finding]:
    """Which parts have other numbers of videos than a whole copy; where no forgery has a name that is known there, all of them together.

    Args:
        table: a row per video of the dataset.
        expected, missing: as those of `table_findings`.
    """
    absent, chosen, fewer, more = [], [], [], []
    known = set(table["domain"])
    forged = known - {REAL}
    for split, domains in expected.items():
        part = table if split == "all" else table.filter(split=split)
        wanted, held = domains, dict(part.group_by("domain").len().rows())
        if forged and not forged & set(domains):
            wanted, held = _two_classes(wanted), _two_classes(held)
        for domain, whole in wanted.items():
            count = held.get(domain, 0)
            if count != whole:
                named = domain in known | {REAL, FAKE} or any(
                    domain in sentence for sentence in missing
                )
                lacking = absent if named else chosen
                place = more if count > whole else fewer if count else lacking
                place.append(
                    f"{domain}{'' if split == 'all' else f' {split}'} {count:,} of {whole:,}"
                )
    complete = "complete the copy, or say beside every number what it lacks"
    return _those(
        Finding(
            "parts without a video",
            "fatal",
            absent,
            "complete the copy, or choose other parts of it",
        ),
        Finding(
            "domains that are not there",
            "note",
            chosen,
            "complete the copy, unless they were left out on purpose",
        ),
        Finding("fewer videos than a whole copy", "warning", fewer, complete),
        Finding(
            "more videos than a whole copy",
            "warning",
            more,
            "remove what does not belong to the dataset",
        ),
    )


def _two_classes(numbers: Mapping[str, int]) -> dict[str, int]:
    """Numbers by domain with all forgeries together."""
    forged = [count for domain, count in numbers.items() if domain != REAL]
    return {domain: count for domain, count in numbers.items() if domain == REAL} | (
        {FAKE: sum(forged)} if forged else {}
    )


def class_findings(table: pl.DataFrame) -> list[Finding]:
    """Which splits have only real or only fake videos."""
    sided = (
        table.group_by("dataset", "split")
        .agg(pl.col("label").max(), least=pl.col("label").min())
        .filter(pl.col("label") == pl.col("least"))
    )
    rows = sided.sort("dataset", "split").select("dataset", "split", "label").rows()
    examples = [
        f"{dataset} {split} holds only {'fake' if label else 'real'} videos"
        for dataset, split, label in rows
    ]
    return _those(
        Finding(
            "one class only",
            "warning",
            examples,
            "complete the copy; no AUC exists on such a split, and none can be trained on",
        )
    )


LEAKS: Mapping[str, tuple[str, Severity, str]] = {
    "sources": (
        "source video in several splits",
        "fatal",
        "use the official split; a forgery belongs to the split of its sources",
    ),
    "persons": (
        "person in several splits",
        "warning",
        "where the official split is so, say it beside every number; else split by person",
    ),
}
"""What names of videos may tell, and what it means that one of those is on both sides of a split."""


def leak_findings(table: pl.DataFrame, names: str | None = None) -> list[Finding]:
    """Which source videos or persons are on both sides of a split.

    Args:
        table: a row per video.
        names: what the names of videos tell: `sources`, as `033_097` is made from the videos 033
            and 097, or `persons`, as `id0_id1_0003` shows id0 and id1, and `01__exit` shows 01;
            None if they tell nothing.
    """
    if names is None:
        return []
    second = NAME.str.extract(r"^[A-Za-z]*\d+_([A-Za-z]*\d+)(?:_|$)")
    alike = SOURCE.str.extract(r"^([A-Za-z]*)\d") == second.str.extract(r"^([A-Za-z]*)\d")
    parsed = table.select(
        "dataset", "split", "video", first=SOURCE, second=pl.when(alike).then(second)
    )
    parsed = parsed.unpivot(
        ["first", "second"], index=["dataset", "split", "video"], value_name="of"
    ).drop_nulls("of")
    parts = (
        parsed.group_by("dataset", "of", "split")
        .agg(pl.col("video").min(), more=pl.col("video").n_unique() - 1)
        .sort("dataset", "of", "split")
    )
    others = (
        pl.when(pl.col("more") > 0).then(pl.format(" and {} more", "more")).otherwise(pl.lit(""))
    )
    sides = parts.group_by("dataset", "of", maintain_order=True).agg(
        places=pl.format("{}: {}{}", "split", "video", others), splits=pl.len()
    )
    crossing = sides.filter(pl.col("splits") > 1).select("of", pl.col("places").list.join("; "))
    check, severity, remedy = LEAKS[names]
    return _those(
        Finding(check, severity, [f"{of} is in {places}" for of, places in crossing.rows()], remedy)
    )


def short_findings(table: pl.DataFrame, frames: int) -> list[Finding]:
    """Which videos have few frames; datasets of lone images have no videos in this sense.

    Args:
        table: columns dataset, video and frames (0 or null where the number is not known).
    """
    few = table.filter(
        (pl.col("frames").max().over("dataset") > 1) & pl.col("frames").is_between(1, frames - 1)
    ).sort("frames", "video")
    examples = [f"{video} has {count:.0f}" for video, count in few.select("video", "frames").rows()]
    return _those(
        Finding(
            f"videos with fewer than {frames} frames",
            "warning",
            examples,
            "extract them again, unless they are so short",
        )
    )


def _those(*findings: Finding) -> list[Finding]:
    return [finding for finding in findings if finding.examples]


def sizes(places: Iterable[str]) -> Iterator[int | None]:
    """The bytes of each file, or part of a tar; None where there is no such file."""
    tar_there = functools.cache(os.path.isfile)
    for place in places:
        if inside := member(place):
            yield inside[2] if tar_there(inside[0]) else None
            continue
        size = None
        with contextlib.suppress(OSError, ValueError):
            found = os.stat(place)  # noqa: PTH116  a million paths pass
            size = found.st_size if stat.S_ISREG(found.st_mode) else None
        yield size


def renamed(paths: Iterable[str]) -> Iterator[str | None]:
    """Each missing file's path as the disk has it, with other slashes, letters in another case or normal form; None where it is nowhere."""
    places = path_finder(fold_case)
    for path in paths:
        yield next((place for place in places(with_slashes(path)) if os.path.isfile(place)), None)


class Look(NamedTuple):
    """What one file shows; None where it has no such property, or could not be read.

    Args:
        error: why it cannot be read.
        digest: SHA-256 of its bytes, where that was asked for.
        kind: the file type; for a video its ending and codec.
        bits: bits per pixel.
        quality: the JPEG quality that its quantisation tables stand for.
        contrast: standard deviation of grey.
        sharpness: variance of the Laplacian of grey.
        length: number of frames of a video file.
    """

    error: str | None = None
    digest: str | None = None
    kind: str | None = None
    width: int | None = None
    height: int | None = None
    bits: float | None = None
    quality: float | None = None
    chroma: str | None = None
    brightness: float | None = None
    saturation: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    length: int | None = None


LOOK = pl.Schema(
    {
        name: pl.String if name in ("error", "digest", "kind", "chroma") else pl.Float64
        for name in Look._fields
    }
    | dict.fromkeys(("width", "height", "length"), pl.Int64)
)
"""The columns of looks."""


class Job(NamedTuple):
    """A file to look into.

    Args:
        place: a path, or a part of a tar.
        size: its bytes.
        hashed: whether its digest is asked for.
        film: whether it is a video file.
    """

    place: str
    size: int
    hashed: bool
    film: bool


CHUNK = 8
"""Files that a process is given at once."""


def looks(jobs: Sequence[Job], workers: int) -> Iterator[Look]:
    """A look into each file, in order.

    Where a process dies, the files that may have been its last are read again one after the other,
    by one process: that on which it dies is damaged.

    Args:
        workers: processes; 0 for this one, which a file may then kill.
    """
    if not workers:
        yield from map(look, jobs)
        return
    done = suspects = 0  # files looked into, and the end of those that are read one after the other
    while done < len(jobs):
        alone = done < suspects
        with pool(1 if alone else workers, _calm) as readers:
            try:
                for seen in readers.map(
                    look, jobs[done : suspects if alone else None], chunksize=1 if alone else CHUNK
                ):
                    yield seen
                    done += 1
            except BrokenProcessPool:
                if alone:
                    yield Look(error="the decoder crashed on it, or memory ran out")
                    done += 1
                else:
                    suspects = done + CHUNK * workers
            finally:
                readers.shutdown(wait=False, cancel_futures=True)


def _calm() -> None:
    """Before a process begins: OpenCV's threads do not survive a fork."""
    cv2.setNumThreads(1)


def look(job: Job) -> Look:
    """What a file shows."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return _film(job) if job.film else _picture(job)
    except Exception as error:  # whatever a decoder makes of damaged bytes is what there is to say
        return Look(error=error.message if isinstance(error, InputError) else reason(error))


CHROMA = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


def _picture(job: Job) -> Look:
    data = content(job.place)
    pixels = decode(data, job.place)
    with Image.open(io.BytesIO(data)) as stored:
        jpeg = isinstance(stored, JpegImageFile)
        quality = quality_of(stored.quantization[0]) if jpeg and 0 in stored.quantization else None
        seen = Look(
            kind=stored.format,
            quality=quality,
            chroma=CHROMA.get(get_sampling(stored), "other") if jpeg else None,
        )
    height, width, _ = pixels.shape
    digest = hashlib.sha256(data).hexdigest() if job.hashed else None
    return seen._replace(
        digest=digest,
        width=width,
        height=height,
        bits=8 * job.size / (width * height),
        **surface(pixels),
    )


def quality_of(table: Sequence[int]) -> int:
    """The quality from 1 to 100 at which libjpeg makes this luminance table; for one of another encoder, the quality of like coarseness."""
    return int(np.abs(_coarseness() - sum(table)).argmin()) + 1


@functools.cache
def _coarseness() -> Int64[ndarray, "100"]:
    """The sum of libjpeg's luminance table at each quality."""
    sums = []
    for quality in range(1, 101):
        Image.new("L", (1, 1)).save(made := io.BytesIO(), "JPEG", quality=quality)
        with Image.open(made) as stored:
            assert isinstance(stored, JpegImageFile)
            sums.append(sum(stored.quantization[0]))
    return np.array(sums)


def surface(pixels: UInt8[ndarray, "height width 3"]) -> dict[str, float]:
    """Brightness, colour, contrast and sharpness of an image."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return {
        "brightness": float(grey.mean()),
        "saturation": float(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1].mean()),
        "contrast": float(grey.std()),
        "sharpness": float(cv2.Laplacian(grey, cv2.CV_64F).var()),
    }


def _film(job: Job) -> Look:
    """The first and the last frame of a video file."""
    path = Path(job.place)
    with open_video(path) as (container, stream):
        held = read_index(container, stream)
        chroma, kind = (
            stream.format.name if stream.format else None,
            f"{path.suffix.lower().lstrip('.')} {stream.codec_context.name}",
        )
    check_complete(held, path)
    samples = list(sample_video(path, 2))
    images = [sample.image for sample in samples if sample.image is not None]
    if any(sample.corrupt for sample in samples):
        raise InputError(
            f"The first or the last frame of {path} is damaged, and was patched by the decoder",
            "copy it again from its source",
        )
    if len(images) < len(samples):
        raise InputError(
            f"The first or the last frame of {path} cannot be decoded",
            "copy it again from its source",
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if job.hashed else None
    height, width, _ = images[0].shape
    bits, ends = 8 * job.size / (width * height * held.length), [surface(image) for image in images]
    means = {name: float(np.mean([end[name] for end in ends])) for name in ends[0]}
    seen = Look(
        digest=digest,
        kind=kind,
        width=width,
        height=height,
        bits=bits,
        chroma=chroma,
        length=held.length,
    )
    return seen._replace(**means)


ALIKE = {"MPO": "JPEG", "DIB": "BMP"}
"""Formats that differ from another one only in what follows or precedes the first picture."""


def other_formats(files: pl.DataFrame) -> list[str]:
    """Which images are of another format than their ending says.

    Args:
        files: columns path, kind and film.
    """
    endings: Mapping[str, str | None] = Image.registered_extensions()
    found = []
    for path, kind in files.filter(~FILM).drop_nulls("kind").select("path", "kind").rows():
        meant = endings.get(Path(path).suffix.lower()) or str(kind)
        if ALIKE.get(meant, meant) != ALIKE.get(kind, kind):
            found.append(f"{path} is a {kind} file")
    return found


SMALL, FLAT = 32, 3.0
"""Pixels and grey levels: images with a side below the first, or with a contrast below the second, show nothing."""


def file_findings(files: pl.DataFrame, root: Path) -> list[Finding]:
    """What is wrong with the files.

    Args:
        files: a manifest's columns, `size`, and those of a look where one was taken.
    """
    gone = files.filter(pl.col("size").is_null())["path"].sort().to_list()
    there = list(renamed(path if path.startswith("/") else f"{root}/{path}" for path in gone))
    lost = [path for path, place in zip(gone, there, strict=True) if place is None]
    otherwise = [
        f"{path} is {place}" for path, place in zip(gone, there, strict=True) if place is not None
    ]
    empty, broken = files.filter(size=0), files.filter(pl.col("error").is_not_null())
    unread = [
        said if path in (said := error.replace(f"{root}/", "")) else f"{path}: {said}"
        for path, error in broken.select("path", "error").rows()
    ]
    small = (
        files.filter(pl.min_horizontal("width", "height") < SMALL)
        .select("path", "width", "height")
        .rows()
    )
    flat = files.filter(pl.col("contrast") < FLAT)["path"].to_list()
    again = "restore them from the dataset, or leave them out"
    return _those(
        Finding("missing files", "fatal", lost, "complete the copy"),
        Finding(
            "other case or slashes on disk",
            "fatal",
            otherwise,
            "rename the files, or correct the list",
        ),
        Finding("empty files", "fatal", empty["path"].to_list(), again),
        Finding("unreadable files", "fatal", unread, again),
        Finding(
            f"images under {SMALL} px",
            "warning",
            [f"{path} is {width} x {height}" for path, width, height in small],
            "leave them out",
        ),
        Finding(
            "flat images", "warning", flat, "look at them; leave them out if they show nothing"
        ),
        Finding(
            "endings of other formats",
            "note",
            other_formats(files),
            "rename them; they are read by their content",
        ),
        *_equal(files),
    )


def _equal(files: pl.DataFrame) -> list[Finding]:
    """Files of the same bytes, by how bad that is."""
    hashed = files.drop_nulls("digest").sort("label", "split", "path")
    groups = hashed.group_by("digest", maintain_order=True).agg(
        pl.col("path"), pl.col("label").n_unique(), pl.col("split").n_unique()
    )
    groups = groups.filter(pl.col("path").list.len() > 1)
    kinds: dict[str, list[str]] = {"labels": [], "splits": [], "": []}
    for paths, labels, splits in groups.select("path", "label", "split").rows():
        more = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
        kinds["labels" if labels > 1 else "splits" if splits > 1 else ""].append(
            f"{paths[0]} = {paths[-1]}{more}"
        )
    return [
        Finding(
            "equal files under two labels",
            "fatal",
            kinds["labels"],
            "find out which label is right, and remove the other file",
        ),
        Finding("equal files in two splits", "fatal", kinds["splits"], "keep each in one split"),
        Finding("equal files", "warning", kinds[""], "keep one of each"),
    ]
