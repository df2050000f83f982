"""The validated table of a dataset's frames: what is on disk, who is in which split, and a digest that pins it down.

Paths are relative to the manifest's root, so the digest of one dataset is the same on every
machine.
"""

import functools
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from fmsd.atomic import atomic
from fmsd.data import pack
from fmsd.data.loading.image import member
from fmsd.data.sources import tree
from fmsd.data.spelling import is_text, printable
from fmsd.errors import InputError, reason
from fmsd.names import unfit_names
from fmsd.quoting import shell_override
from fmsd.shares import ceil_share
from fmsd.tables import read_parquet
from fmsd.types import REAL, Entry, Frame, Problem, Split, Video

log = logging.getLogger(__name__)

SCHEMA = pl.Schema(
    {
        "path": pl.String,
        "label": pl.Int8,
        "dataset": pl.String,
        "domain": pl.String,
        "video": pl.String,
        "index": pl.Int32,
        "split": pl.String,
        "compression": pl.String,
    }
)
"""The columns of a manifest: the fields of a frame."""

SPLITS: tuple[str, ...] = get_args(Split)

NAME = pl.col("video").str.extract(r"([^/]+)$")
"""A video's name, the end of its id."""

SOURCE = NAME.str.replace(r"^([A-Za-z]*\d+)_.*$", "$1")
"""What a video was made from, as far as its name tells: `033` of `033_097`, the person `id3` of `id3_id5_0001`; else its whole name."""


@dataclass(frozen=True)
class Manifest:
    """The frames of one or several datasets, a row each; a frame's row number is its id wherever predictions are joined."""

    table: pl.DataFrame
    root: Path

    def __len__(self) -> int:
        return self.table.height

    @property
    def videos(self) -> int:
        """Number of videos."""
        return self.table["video"].n_unique()

    def where(self, **values: str | Sequence[str]) -> "Manifest":
        """The frames whose columns have the given values, e.g. `where(split="train", dataset=["ff++", "dfdc"])`."""
        kept = [
            pl.col(name).is_in([value] if isinstance(value, str) else list(value))
            for name, value in values.items()
        ]
        return replace(self, table=self.table.filter(*kept))

    def spread(self, frames: int | None, sampling: str = "spread") -> "Manifest":
        """At most `frames` frames of each video; None keeps all.

        Args:
            sampling: `spread`, evenly from its first to its last, or `first`, those it begins with.
        """
        if frames is None:
            return self
        lengths = self.table.group_by("video").len()["len"].unique().to_list()
        chosen = [
            (length, place) for length in lengths for place in places(length, frames, sampling)
        ]
        wanted = pl.DataFrame(
            chosen, schema={"length": pl.UInt32, "place": pl.UInt32}, orient="row"
        )
        placed = self.table.with_columns(
            pl.col("index").rank("ordinal").over("video").cast(pl.UInt32).sub(1).alias("place"),
            pl.len().over("video").alias("length"),
        )
        return replace(
            self,
            table=placed.join(
                wanted, on=["length", "place"], how="semi", maintain_order="left"
            ).select(SCHEMA.names()),
        )

    def only(
        self, forgeries: Sequence[str] | None = None, compression: str | None = None
    ) -> "Manifest":
        """The real frames and those of some forgeries, in one compression or without any; None keeps all."""
        wanted = {
            "domain": None if forgeries is None else [REAL, *forgeries],
            "compression": None if compression is None else [compression, ""],
        }
        return self.where(**{name: values for name, values in wanted.items() if values is not None})

    def first(self, videos: int | None) -> "Manifest":
        """At most `videos` videos of each dataset, split and domain, for a quick trial; None keeps all."""
        if videos is None:
            return self
        rank = pl.col("video").rank("dense").over("dataset", "split", "domain")
        return replace(self, table=self.table.filter(rank <= videos))

    def hold_out(self, fraction: float) -> "Manifest":
        """Moves about `fraction` of the training videos into `val`; the choice depends on their names alone.

        Videos that share a source move together: `033` and its manipulations `033_097`, or all of
        the person `id3`. Within each dataset, sources are drawn from each combination of domains in
        which they occur, at least one of two.
        """
        train = self.table.with_columns(source=SOURCE).filter(split="train")
        groups = train.group_by("dataset", "source").agg(
            pl.col("domain").unique().sort().str.join("/").alias("domains")
        )
        keys = [
            hashlib.sha256(f"{dataset}/{name}".encode()).hexdigest()
            for dataset, name in groups.select("dataset", "source").rows()
        ]
        kind = ("dataset", "domains")
        ranked = groups.with_columns(key=pl.Series(keys)).with_columns(
            rank=pl.col("key").rank("ordinal").over(kind), count=pl.len().over(kind)
        )
        drawn = pl.col("count").map_elements(lambda count: ceil_share(fraction, count), pl.Int64)
        held = ranked.filter((pl.col("rank") <= drawn) & (pl.col("count") > 1))
        videos = train.join(held, on=["dataset", "source"], how="semi")["video"].unique().to_list()
        moved = (pl.col("split") == "train") & pl.col("video").is_in(videos)
        return replace(
            self,
            table=self.table.with_columns(
                split=pl.when(moved).then(pl.lit("val")).otherwise("split")
            ),
        )

    def files(self) -> list[str]:
        """Where every frame lies: its absolute path, or TAR#OFFSET+SIZE in a folder that `fmsd pack` wrote.

        Raises:
            InputError: such a folder is incomplete.
        """
        path = self.table["path"]
        packed = pack.located(self.root, path)
        if packed is not None:
            return packed.to_list()
        below = pl.format("{}{}", pl.lit(f"{self.root.as_posix().rstrip('/')}/"), "path")
        return (
            self.table.select(
                pl.when(pl.col("path").str.starts_with("/")).then("path").otherwise(below)
            )
            .to_series()
            .to_list()
        )

    def digest(self) -> str:
        """SHA-256 of the rows, independent of their order and of the root."""
        ordered = self.table.select(SCHEMA.names()).sort(SCHEMA.names())
        lines = ordered.select(pl.concat_str(pl.all().cast(pl.String), separator="\x1f"))
        return hashlib.sha256("\n".join(lines.to_series()).encode()).hexdigest()

    def validate(self, files: bool = True) -> "Manifest":
        """Returns itself if it can be trained and tested on.

        Args:
            files: also check that every file exists, and that tars reach as far as their frames.

        Raises:
            InputError: the first thing found wrong, with the rows that show it.
        """
        numbered = self.table.with_row_index("row")
        if numbered.is_empty():
            raise InputError(
                f"The manifest of {self.root} has no frames",
                "check data.root and what was chosen of it",
            )
        empty = numbered.with_columns(cell=pl.lit("empty")).filter(
            pl.any_horizontal(pl.col(name).is_null() for name in SCHEMA.names())
        )
        _refuse(empty, "cell", "have no value", "fill them in")
        _refuse(
            numbered.filter(~pl.col("label").is_in([0, 1])),
            "label",
            "are neither 0 (real) nor 1 (fake)",
            "correct the labels",
        )
        _refuse(
            numbered.filter(pl.col("index") < 0),
            "index",
            "are below 0",
            "number the frames of each video from 0",
        )
        _refuse(
            numbered.filter(~pl.col("split").is_in(SPLITS)),
            "split",
            f"are none of {', '.join(SPLITS)}",
            "rename the splits",
        )
        for column in ("dataset", "domain", "compression", "video"):
            texts = self.table[column].unique().to_list()
            wrong = unfit_names(
                (text for text in texts if text or column != "compression"),
                nested=column == "video",
            )
            if wrong:
                rows = numbered.filter(pl.col(column).is_in(list(wrong)))
                what, remedy = wrong[rows[column][0]]
                _refuse(rows, column, f"cannot become names of files (the first {what})", remedy)
        mismatch = (pl.col("domain") == REAL) != (pl.col("label") == 0)
        _refuse(
            numbered.filter(mismatch),
            "domain",
            f"do not fit their label (exactly the real frames have the domain {REAL!r})",
            "correct label or domain",
        )
        several = pl.any_horizontal(
            pl.col("label", "domain", "dataset", "compression").n_unique().over("video") > 1
        )
        _refuse(
            numbered.filter(several),
            "video",
            "carry more than one label, domain, dataset or compression",
            "give each video an id of its own (dataset/domain/compression/video)",
        )
        _refuse(
            numbered.filter(pl.col("split").n_unique().over("video") > 1),
            "video",
            "lie in more than one split",
            "leave each video in one split",
        )
        _refuse(
            numbered.filter(pl.col("path").is_duplicated()),
            "path",
            "are listed more than once",
            "keep one row per file",
        )
        _refuse(
            numbered.filter(pl.col("index").is_duplicated().over("video")),
            "index",
            "come twice in a video",
            "number the frames of each video",
        )
        if files:
            end = functools.cache(
                lambda tar: Path(tar).stat().st_size if os.path.isfile(tar) else -1
            )
            absent, cut, held = [], [], self.files()
            for row, place in enumerate(held):
                if inside := member(place):
                    tar, offset, size = inside
                    if end(tar) < offset + size:
                        cut.append(row)
                elif not os.path.isfile(place):
                    absent.append(row)
            links = [row for row in absent if os.path.islink(held[row])]  # noqa: PTH114  paths of text
            _refuse(
                numbered[links],
                "path",
                "are links to files that are not there",
                "complete the copy, or remove the links",
            )
            _refuse(
                numbered[absent],
                "path",
                f"do not exist under {self.root}",
                "complete the copy or correct the root",
            )
            _refuse(
                numbered[cut],
                "path",
                f"lie in tars that are missing or cut off under {self.root}",
                "complete the copy",
            )
        return self

    def write(self, path: Path) -> None:
        """Writes parquet, atomically."""
        with atomic(path) as partial:
            self.table.write_parquet(partial)


def evenly(length: int, count: int) -> list[int]:
    """At most `count` places of a video of `length` frames, evenly from the first to the last."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()


def places(length: int, count: int | None, sampling: str) -> Sequence[int]:
    """The frames that are taken of a video of `length` frames: at most `count`, evenly (`spread`) or the `first` ones; None for all."""
    if count is None:
        return range(length)
    return evenly(length, count) if sampling == "spread" else range(min(length, count))


def _refuse(rows: pl.DataFrame, column: str, what: str, remedy: str, shown: int = 3) -> None:
    """Raises for the given rows, quoting the first few."""
    if rows.is_empty():
        return
    said = [
        f"row {row['row']} ({', '.join(str(row[name]) for name in dict.fromkeys(('path', column)))})"
        for row in rows.head(shown).to_dicts()
    ]
    more = f" and {rows.height - shown} more" if rows.height > shown else ""
    raise InputError(
        f"In the manifest, the {column} values of {', '.join(said)}{more} {what}", f"{remedy}"
    )


def log_problems(problems: Iterable[Problem]) -> None:
    """Logs what is wrong with a copy: the first problem of each kind, and how many more there are."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    for kind, (first, *others) in kinds.items():
        files = sum(problem.files for problem in (first, *others))
        counted = (
            f"{files:,} files in {1 + len(others):,} folders"
            if files
            else f"{len(others):,} more like this"
        )
        log.warning(
            "%s%s", first, f" ({counted}: {kind}; fmsd doctor lists them)" if others else ""
        )


def collect(entries: Iterable[Entry], root: Path) -> Manifest:
    """The manifest of what a source yields, ordered by path; paths become relative to `root` where they lie below it.

    Problems of the copy are logged, the first of each kind.

    Raises:
        InputError: there is no frame, a video has no extracted frames, a frame has a value of the
            wrong kind, or a dataset's frames lie in folders of several kinds.
    """
    problems, parts = list[Problem](), list[pl.DataFrame]()
    found = _frames(entries, problems)
    try:
        while rows := [_row(frame) for frame in itertools.islice(found, CHUNK)]:
            parts.append(_part(rows, root))
    finally:
        log_problems(problems)  # they may be why the copy is refused
    if not parts:
        raise InputError(
            f"No frames were found under {root}",
            "check the root and the layout that docs/data.md describes",
        )
    prefix = f"{root.as_posix().rstrip('/')}/"
    return Manifest(
        pl.concat(parts).with_columns(pl.col("path").str.strip_prefix(prefix)).sort("path"), root
    )


CHUNK = 50_000
"""Frames that are held as Python objects at a time."""

_fields = attrgetter(*SCHEMA.names())


def _row(frame: Frame) -> tuple[Any, ...]:
    return (str(frame.path), *_fields(frame)[1:])


def _part(rows: list[tuple[Any, ...]], root: Path) -> pl.DataFrame:
    """Frames as a table."""
    if odd := next(
        (row for row in rows if not all(is_text(cell) for cell in row if isinstance(cell, str))),
        None,
    ):
        raise InputError(
            f"{printable(odd[0])} has a name or description that is not UTF-8",
            "rename it, or correct what lists it",
        )
    if odd := next(
        (row for row in rows if type(row[1]) is not int), None
    ):  # a cast would make 0.7 real, true and "1" fake
        raise InputError(
            f"The frames of {root} have values of the wrong kind (the label of {odd[0]} is "
            f"{odd[1]!r})",
            "labels are 0 or 1",
        )
    try:
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"The frames of {root} have values of the wrong kind ({reason(error)})",
            "labels are 0 or 1, indices whole numbers",
        ) from error


def _frames(entries: Iterable[Entry], problems: list[Problem]) -> Iterator[Frame]:
    """All frames; problems are put aside."""
    kinds: dict[str, Path] = {}
    for entry in entries:
        if (
            isinstance(entry, Video)
            and entry.images is not None
            and entry.images.parent.name in tree.FRAMES
        ):
            other = kinds.setdefault(entry.dataset, entry.images.parent)
            if other.name != entry.images.parent.name:
                raise InputError(
                    f"{other} and {entry.images.parent} hold frames of {entry.dataset} that were "
                    "made in two ways, which would tell real from fake",
                    "choose one kind by data.source.frames=NAME (data.source.tree.frames where "
                    "the source has a tree)",
                )
        for found in tree.frames(entry):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                yield found


def read(path: Path, root: Path) -> Manifest:
    """Reads a manifest that `Manifest.write` made.

    Raises:
        InputError: a missing file or one with other columns.
    """
    if not path.is_file():
        raise InputError(f"There is no manifest {path}", "make it with `fmsd index`")
    try:
        table = read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"The manifest {path} is no parquet file", "make it again with `fmsd index`"
        ) from error
    if missing := [name for name in SCHEMA.names() if name not in table.columns]:
        raise InputError(
            f"The manifest {path} lacks the columns {', '.join(missing)}",
            "make it again with `fmsd index`",
        )
    if not table.schema["label"].is_integer():  # a cast would make 0.7 real
        raise InputError(
            f"The manifest {path} has values of the wrong kind (labels are "
            f"{table.schema['label']})",
            "make it again with `fmsd index`",
        )
    try:
        return Manifest(table.select(SCHEMA.names()).cast(SCHEMA), root)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"The manifest {path} has values of the wrong kind ({reason(error)})",
            "make it again with `fmsd index`",
        ) from error


MARKS = ("extract.json", "pack.json")
"""What lies beside the manifest of a folder that this package wrote."""


def written(root: Path) -> Manifest | None:
    """The manifest in a folder that `fmsd extract` or `fmsd pack` wrote; None for any other folder.

    Raises:
        InputError: such a folder has no manifest yet.
    """
    if not any((root / mark).is_file() for mark in MARKS):
        return None
    path = root / "manifest.parquet"
    if not path.is_file():
        raise InputError(
            f"{root} holds crops without a manifest, of shards or an extraction that was "
            "interrupted",
            "when all are done, join them with fmsd index data=extracted "
            f"{shell_override('data.root', root)} {shell_override('out', path)}",
        )
    return read(path, root)


def made(root: Path) -> dict[str, Any] | None:
    """How the crops in a folder were made by `fmsd extract`, also where they were packed since; None where that is not known.

    Raises:
        InputError: the record is damaged.
    """
    for mark in MARKS:
        if (root / mark).is_file():
            try:
                record = json.loads((root / mark).read_text(encoding="utf-8"))
                crops = record if mark == MARKS[0] else record["crops"]
                if crops is not None and not (
                    type(crops["frames"]) in (int, type(None))
                    and crops["sampling"] in ("spread", "first")
                ):
                    raise ValueError(f"frames={crops['frames']}, sampling={crops['sampling']}")
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{root / mark} is damaged ({reason(error)})",
                    "copy it again, or make the folder anew",
                ) from error
            return crops
    return None


def join(manifests: Sequence[Manifest]) -> Manifest:
    """One manifest of several, with absolute paths."""
    tables = [
        manifest.table.with_columns(pl.Series("path", manifest.files(), dtype=pl.String))
        for manifest in manifests
    ]
    return Manifest(pl.concat(tables), Path("/"))


def summary(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Per dataset: digest, frames, videos by split, and how its crops were made where that is known; what a run records about its data."""
    datasets = manifest.table["dataset"].unique().sort().to_list()
    crops = made(manifest.root)
    parts = {dataset: manifest.where(dataset=dataset) for dataset in datasets}
    return {
        dataset: {
            "digest": part.digest(),
            "frames": len(part),
            "videos": {split: part.where(split=split).videos for split in SPLITS},
        }
        | ({} if crops is None else {"crops": crops})
        for dataset, part in parts.items()
    }
