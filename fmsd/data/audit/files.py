"""Checks of the files: missing, damaged, misnamed and equal ones; their properties."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
from PIL import Image

from fmsd.data.audit.copy import IS_FILM
from fmsd.data.audit.findings import Finding, nonempty
from fmsd.data.audit.known_inspections import inspect_changed
from fmsd.data.content_files import file_states
from fmsd.data.manifest import Manifest, evenly_spaced
from fmsd.data.spelling import fold_case, path_finder, with_slashes

ALIKE = {"MPO": "JPEG", "DIB": "BMP"}
"""Formats that differ from another one only in what precedes or follows the first picture."""

SMALL, FLAT = 32, 3.0
"""Images with a side below SMALL pixels, or a contrast below FLAT grey levels, show nothing."""


def inspect_files(
    manifest: Manifest, limit: int | None, workers: int, cached: bool = True
) -> pl.DataFrame:
    """Looks for every file, and opens at most `limit` of them, evenly spread; None opens all.

    Args:
        manifest: with the column `film`.
        workers: processes that open files; 0 for this one.
        cached: see `fmsd.data.audit.known_inspections.inspect_changed`.

    Returns:
        The manifest's columns, `size` in bytes (null where there is no file), the columns of
        `INSPECTION_SCHEMA`, and `opened`.
    """
    states = file_states(manifest.files())
    table = manifest.table.with_columns(states["size"]).with_row_index("row")
    present = table.select("row", "film").hstack(states)
    present = present.with_columns(hashed=pl.len().over("size") > 1).filter(pl.col("size") > 0)
    chosen = present if limit is None else present[evenly_spaced(present.height, limit)]
    opened = inspect_changed(chosen.drop("row"), manifest.root, workers, cached).with_columns(
        chosen["row"], opened=pl.lit(True)
    )
    return table.join(opened, on="row", how="left", maintain_order="left").with_columns(
        pl.col("opened").fill_null(False)
    )


def actual_spellings(paths: Iterable[str]) -> Iterator[str | None]:
    """Each missing file's path as the disk spells it; None where it does not exist at all.

    Slashes, upper and lower case, and Unicode normal forms may differ.
    """
    places = path_finder(fold_case)
    for path in paths:
        yield next((place for place in places(with_slashes(path)) if os.path.isfile(place)), None)


def file_findings(files: pl.DataFrame, root: Path) -> list[Finding]:
    """Checks the files.

    Args:
        files: see `inspect_files`.
    """
    absent = files.filter(pl.col("size").is_null())["path"].sort().to_list()
    spellings = list(
        actual_spellings(path if path.startswith("/") else f"{root}/{path}" for path in absent)
    )
    located = list(zip(absent, spellings, strict=True))
    empty, broken = files.filter(size=0), files.filter(pl.col("error").is_not_null())
    unread = [
        text if path in (text := error.replace(f"{root}/", "")) else f"{path}: {text}"
        for path, error in broken.select("path", "error").rows()
    ]
    small = files.filter(pl.min_horizontal("width", "height") < SMALL)
    again = "restore them from the dataset, or leave them out"
    return nonempty(
        Finding(
            "missing_files",
            "missing files",
            "fatal",
            [path for path, spelling in located if spelling is None],
            "complete the copy",
        ),
        Finding(
            "misspelt_files",
            "other case or slashes on disk",
            "fatal",
            [f"{path} is {spelling}" for path, spelling in located if spelling is not None],
            "rename the files, or correct the list",
        ),
        Finding("empty_files", "empty files", "fatal", empty["path"].to_list(), again),
        Finding("unreadable_files", "unreadable files", "fatal", unread, again),
        Finding(
            "small_images",
            f"images under {SMALL} px",
            "warning",
            [
                f"{path} is {width} x {height}"
                for path, width, height in small.select("path", "width", "height").rows()
            ],
            "leave them out",
        ),
        Finding(
            "flat_images",
            "flat images",
            "warning",
            files.filter(pl.col("contrast") < FLAT)["path"].to_list(),
            "look at them; leave them out if they show nothing",
        ),
        Finding(
            "misnamed_files",
            "endings of other formats",
            "note",
            _misnamed(files),
            "rename them; they are read by their content",
        ),
        *_duplicates(files),
    )


def _misnamed(files: pl.DataFrame) -> list[str]:
    """The images whose format is not that of their suffix."""
    formats: Mapping[str, str | None] = Image.registered_extensions()
    misnamed = []
    for path, kind in files.filter(~IS_FILM).drop_nulls("kind").select("path", "kind").rows():
        expected = formats.get(Path(path).suffix.lower()) or str(kind)
        if ALIKE.get(expected, expected) != ALIKE.get(kind, kind):
            misnamed.append(f"{path} is a {kind} file")
    return misnamed


def _duplicates(files: pl.DataFrame) -> list[Finding]:
    """Files of the same bytes: under two labels, in two splits, others."""
    hashed = files.drop_nulls("digest").sort("label", "split", "path")
    groups = hashed.group_by("digest", maintain_order=True).agg(
        pl.col("path"), pl.col("label").n_unique(), pl.col("split").n_unique()
    )
    groups = groups.filter(pl.col("path").list.len() > 1)
    labels: list[str] = []
    splits: list[str] = []
    others: list[str] = []
    for paths, label_count, split_count in groups.select("path", "label", "split").rows():
        more = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
        examples = labels if label_count > 1 else splits if split_count > 1 else others
        examples.append(f"{paths[0]} = {paths[-1]}{more}")
    return [
        Finding(
            "equal_files",
            "equal files under two labels",
            "fatal",
            labels,
            "find out which label is right, and remove the other file",
        ),
        Finding(
            "equal_files", "equal files in two splits", "fatal", splits, "keep each in one split"
        ),
        Finding("equal_files", "equal files", "warning", others, "keep one of each"),
    ]


def video_properties(
    files: pl.DataFrame, numeric: Sequence[str], categorical: Sequence[str]
) -> pl.DataFrame:
    """A row per video with its properties, which might reveal its label.

    They are medians over what training reads of a video: its frames, or else its video file.

    Args:
        files: see `inspect_files`.
        numeric, categorical: names of the properties, as the report spells them.

    Returns:
        The properties, label, dataset, split, and `listed`, the number of frames in the manifest.
    """
    read = files.with_columns(listed=(~IS_FILM).sum().over("video")).filter(
        ~IS_FILM | (pl.col("listed") == 0)
    )
    measured = read.with_columns(
        pl.col("size").alias("file size"),
        pl.col("bits").alias("bits per pixel"),
        pl.col("quality").alias("JPEG quality"),
        pl.col("kind").alias("file type"),
        pl.col("chroma").alias("chroma subsampling"),
        aspect=pl.col("width") / pl.col("height"),
        frames=pl.when(pl.col("listed") > 0).then(pl.col("listed")).otherwise(pl.col("length")),
    )
    return measured.group_by("video", maintain_order=True).agg(
        *(pl.col(name).first() for name in ("label", "dataset", "split", "listed")),
        *(pl.col(name).median() for name in numeric),
        *(pl.col(name).drop_nulls().first() for name in categorical),
    )
