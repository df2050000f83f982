"""What the keys of a file of scores are: paths of frames, ids of videos, or names of either.

Keys are compared as whole texts, after slashes, `./`, and Unicode's normal form were made alike.
They are never opened as files.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fmsd.data.manifest import VIDEO_NAME, Manifest
from fmsd.data.sources.tree import VIDEO_SUFFIXES
from fmsd.errors import InputError
from fmsd.quoting import shell_override

AUTO = "auto"
TRIED = 20
"""Keys for which a root is looked for, at most."""

MATCH_LEVELS = (AUTO, "frame", "video")
MATCH_KEYS = (AUTO, "path", "video", "name")

VIDEO_SUFFIX = (
    rf"(?i)({'|'.join(suffix.replace('.', '[.]') for suffix in sorted(VIDEO_SUFFIXES))})$"
)

NAME = r"([^/]+)$"
FOLDER = r"^(.+)/[^/]+$"
ABSOLUTE = r"^(/|[A-Za-z]:/)"
ABSOLUTE_KEY = r"^([/\\]|[A-Za-z]:[/\\])"


class Reading(NamedTuple):
    """What the keys of a file are.

    Args:
        by: `path` of a frame; `video`, the id of a video or the folder of its frames; or `name`,
            the last part of a frame's path or of a video's id.
        level: `frame` or `video`.
    """

    by: str
    level: str

    def __str__(self) -> str:
        """The reading in words."""
        return {
            "path": "paths of frames",
            "video": "ids or folders of videos",
            "name": f"file names of {self.level}s" if self.level == "frame" else "names of videos",
        }[self.by]


STEPS: Sequence[Sequence[Reading]] = (
    (Reading("path", "frame"), Reading("video", "video")),
    (Reading("name", "frame"), Reading("name", "video")),
)
"""The readings that are tried, those of a step together; the next step if none of it finds any."""


def find_keys(
    table: pl.DataFrame,
    tests: Mapping[str, Manifest],
    source: Path,
    level: str,
    by: str,
    root: str | None,
) -> tuple[Reading, pl.DataFrame]:
    """What the keys are, and the pairs of an `entry` and the `dataset` and `row` of its frame.

    The row of a video is that of its first frame.

    Raises:
        InputError: see `match_scores`.
    """
    allowed = [
        [one for one in step if level in (AUTO, one.level) and by in (AUTO, one.by)]
        for step in STEPS
    ]
    if not any(allowed):
        raise InputError(
            f"level={level} and by={by} contradict each other", "leave one of them out"
        )
    for step in allowed:
        found = {
            reading: pairs
            for reading in step
            if len(pairs := _pairs(table, tests, reading, root, whole=by == AUTO))
        }
        if len(found) == 1:
            return next(iter(found.items()))
        if found:
            counts = [f"{pairs['entry'].n_unique():,} {one}" for one, pairs in found.items()]
            raise InputError(
                f"The keys of {source} may be read in two ways: {' and '.join(counts)} are among "
                "them",
                "give level=frame or level=video",
            )
    manifest = next(iter(tests.values())).table
    wanted = " or ".join(str(one) for step in allowed for one in step)
    first = manifest.row(0, named=True)
    raise InputError(
        f"No key of {source} is among the {wanted} of the tests (its first key is "
        f"{shown_text(table['key'][0])}; a test frame is {shown_text(first['path'])} of the video "
        f"{shown_text(first['video'])})",
        _remedy(table, tests, level, by),
    )


def _remedy(table: pl.DataFrame, tests: Mapping[str, Manifest], level: str, by: str) -> str:
    """What makes keys be found that were not; each override was tried."""
    ways = []
    if by != "name" and (root := _common_root(table, tests, level)) is not None:
        ways.append(f"{shell_override('root', root)}, which its paths are below")
    names = [
        pairs
        for reading in STEPS[1]
        if level in (AUTO, reading.level)
        and len(pairs := _pairs(table, tests, reading, None, whole=False))
    ]
    if by != "name" and len(names) == 1 and not names[0]["entry"].is_duplicated().any():
        ways.append("by=name to compare names alone")
    if ways:
        return f"give {', or '.join(ways)}"
    return "correct its keys, or give the data that they are of by data= and data.root="


def _common_root(table: pl.DataFrame, tests: Mapping[str, Manifest], level: str) -> str | None:
    """The folder as `root=` by which one of the first keys is found; None if there is none."""
    keys = table.select(plain(pl.col("key").head(TRIED))).to_series().to_list()
    for reading in STEPS[0]:
        if level not in (AUTO, reading.level):
            continue
        targets = pl.concat(
            _targets(name, manifest, reading, absolute=True) for name, manifest in tests.items()
        ).select(pl.col("text").unique())
        for key in keys:
            stem = re.sub(VIDEO_SUFFIX, "", key) if reading.level == "video" else key
            below = targets.filter(pl.lit(stem).str.ends_with(pl.format("/{}", "text")))
            above = targets.filter(pl.col("text").str.ends_with(f"/{stem}"))
            roots = [stem[: -len(text) - 1] or "/" for text in below["text"]]
            roots += [text[: -len(stem) - 1] for text in above["text"] if text.startswith("/")]
            for root in sorted(roots, key=len):
                if len(_pairs(table, tests, reading, root, whole=True)):
                    return root
    return None


def _pairs(
    table: pl.DataFrame,
    tests: Mapping[str, Manifest],
    reading: Reading,
    root: str | None,
    whole: bool,
) -> pl.DataFrame:
    """The entries with the frames or videos that have their keys.

    Args:
        whole: a key with folders is no name.
    """
    shared = ["dataset"] if "dataset" in table.columns else []
    given = pl.concat(
        table.select("entry", *shared, text=form) for form in _forms(reading, root, whole)
    ).drop_nulls("text")
    absolute = root is not None or bool(table["key"].str.contains(ABSOLUTE_KEY).any())
    targets = pl.concat(
        _targets(name, manifest, reading, absolute=absolute) for name, manifest in tests.items()
    )
    pairs = given.join(targets, on=["text", *shared], how="inner")
    return pairs.select("entry", "dataset", "row").unique().sort("entry", "dataset", "row")


def plain(text: pl.Expr) -> pl.Expr:
    """A path with slashes, without `./` and repeated slashes, in Unicode's composed form."""
    return (
        text.str.replace_all("\\", "/", literal=True)
        .str.replace_all(r"/(\./|/)+", "/")
        .str.replace(r"^(\./+)+", "")
        .str.replace(r"(.)/$", "${1}")
        .str.normalize("NFC")
    )


def _forms(reading: Reading, root: str | None, whole: bool) -> list[pl.Expr]:
    """The texts that a key may be found by; null where there is none."""
    key = plain(pl.col("key"))
    if reading.by == "name":
        forms = [key if whole else key.str.extract(NAME)]
    elif root is None:
        forms = [key]
    else:
        base, absolute = pl.select(plain(pl.lit(root))).item(), key.str.contains(ABSOLUTE)
        below = key.str.strip_prefix(f"{base.rstrip('/')}/")
        joined = pl.format("{}/{}", pl.lit(base.rstrip("/")), key)
        forms = [
            pl.when(absolute).then(key).otherwise(joined),
            pl.when(below != key).then(below),
        ]
        forms += [key] if reading.level == "video" else []
    if reading.level == "video":
        forms += [_without_suffix(form) for form in forms]
    return forms


def _without_suffix(text: pl.Expr) -> pl.Expr:
    """A name without the suffix of a video file; null where it has none."""
    return pl.when(text.str.contains(VIDEO_SUFFIX)).then(text.str.replace(VIDEO_SUFFIX, ""))


def _targets(dataset: str, manifest: Manifest, reading: Reading, *, absolute: bool) -> pl.DataFrame:
    """The texts that the frames or videos of a dataset are found by, each with its `row`.

    Args:
        absolute: also the absolute paths of frames and folders.
    """
    frames = manifest.table.select("path", "video").with_row_index("row")
    if reading.level == "video":
        frames = frames.with_columns(
            row=pl.col("row").min().over("video"), path=pl.col("path").str.extract(FOLDER)
        ).unique()
    path, video = plain(pl.col("path")), plain(pl.col("video"))
    if reading == Reading("name", "frame"):
        forms = [path.str.extract(NAME)]
    elif reading == Reading("name", "video"):
        forms = [plain(VIDEO_NAME)]
    else:
        roots = {root.as_posix().rstrip("/") for root in (manifest.root, manifest.root.resolve())}
        relative = ~path.str.starts_with("/")
        below = [pl.when(relative).then(pl.format("{}/{}", pl.lit(root), path)) for root in roots]
        forms = [path, *(below if absolute else [])]
        if reading.level == "video":
            forms += [video, video.str.strip_prefix(f"{dataset}/")]
    parts = [frames.select("row", text=form, dataset=pl.lit(dataset)) for form in forms]
    targets = pl.concat(parts).drop_nulls("text")
    return targets.unique() if reading.level == "video" else targets


def shown_text(text: str) -> str:
    """A text from a file for a message, without what a terminal would obey."""
    shown = repr(text)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."
