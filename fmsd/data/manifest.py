"""The table of a dataset's frames: files, labels and splits, with a digest that identifies it.

Paths are relative to the manifest's root, so the digest of one dataset is the same on every
machine.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from fmsd.atomic import atomic
from fmsd.data import pack
from fmsd.data.frame import DIGEST_COLUMNS, LATER_COLUMNS, REAL, SCHEMA
from fmsd.data.validation import check_files, check_table
from fmsd.errors import InputError
from fmsd.rounding import ceil_share
from fmsd.tables import read_table

VIDEO_NAME = pl.col("video").str.extract(r"([^/]+)$")
"""A video's name, the last part of its id."""

VIDEO_SOURCE = VIDEO_NAME.str.replace(r"^([A-Za-z]*\d+)_.*$", "$1")
"""The source of a video by its name, else the whole name.

`033` is the source of `033_097`, the person `id3` that of `id3_id5_0001`.
"""


@dataclass(frozen=True)
class Manifest:
    """The frames of one or several datasets, one row each.

    A frame's row number is its id wherever predictions are joined.

    Args:
        table: the columns of `SCHEMA`.
        root: the folder that relative paths start from.
    """

    table: pl.DataFrame
    root: Path

    def __len__(self) -> int:
        return self.table.height

    @property
    def videos(self) -> int:
        """Number of videos."""
        return self.table["video"].n_unique()

    def where(self, **values: str | Sequence[str]) -> "Manifest":
        """The frames whose columns have the given values.

        For example `where(split="train", dataset=["ff++", "dfdc"])`.
        """
        kept = [
            pl.col(name).is_in([value] if isinstance(value, str) else list(value))
            for name, value in values.items()
        ]
        return replace(self, table=self.table.filter(*kept))

    def sample_frames(self, frames: int | None, sampling: str = "spread") -> "Manifest":
        """At most `frames` frames of each video; None keeps all.

        Args:
            sampling: `spread`, evenly from its first to its last, or `first`, those it begins with.
        """
        if frames is None:
            return self
        lengths = self.table.group_by("video").len()["len"].unique().to_list()
        chosen = [
            (length, place)
            for length in lengths
            for place in frame_positions(length, frames, sampling)
        ]
        positions = pl.DataFrame(
            chosen, schema={"length": pl.UInt32, "place": pl.UInt32}, orient="row"
        )
        placed = self.table.with_columns(
            pl.col("index").rank("ordinal").over("video").cast(pl.UInt32).sub(1).alias("place"),
            pl.len().over("video").alias("length"),
        )
        kept = placed.join(positions, on=["length", "place"], how="semi", maintain_order="left")
        return replace(self, table=kept.select(SCHEMA.names()))

    def only(
        self, forgeries: Sequence[str] | None = None, compression: str | None = None
    ) -> "Manifest":
        """The real frames and those of some forgeries, in one compression or without any.

        Args:
            forgeries: domains to keep beside `real`; None keeps all.
            compression: the compression to keep beside the empty one; None keeps all.
        """
        allowed = {
            "domain": None if forgeries is None else [REAL, *forgeries],
            "compression": None if compression is None else [compression, ""],
        }
        return self.where(
            **{name: values for name, values in allowed.items() if values is not None}
        )

    def first(self, videos: int | None) -> "Manifest":
        """At most `videos` videos of each dataset, split and domain; None keeps all."""
        if videos is None:
            return self
        rank = pl.col("video").rank("dense").over("dataset", "split", "domain")
        return replace(self, table=self.table.filter(rank <= videos))

    def hold_out(self, fraction: float) -> "Manifest":
        """Moves about `fraction` of the training videos into `val`, chosen by their names alone.

        Videos that share a source move together: `033` and its manipulations `033_097`, or all of
        the person `id3`. Within each dataset, sources are drawn from each combination of domains in
        which they occur, at least one of two.
        """
        train = self.table.with_columns(source=VIDEO_SOURCE).filter(split="train")
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
        held_out = ranked.filter((pl.col("rank") <= drawn) & (pl.col("count") > 1))
        videos = (
            train.join(held_out, on=["dataset", "source"], how="semi")["video"].unique().to_list()
        )
        moved = (pl.col("split") == "train") & pl.col("video").is_in(videos)
        split = pl.when(moved).then(pl.lit("val")).otherwise("split")
        return replace(self, table=self.table.with_columns(split=split))

    def files(self) -> list[str]:
        """The absolute path of every frame, or TAR#OFFSET+SIZE in a folder that `fmsd pack` wrote.

        Raises:
            InputError: such a folder is incomplete.
        """
        path = self.table["path"]
        packed = pack.frame_places(self.root, path)
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
        """SHA-256 of the rows, independent of their order, of the root and of pairs."""
        return self._digest(DIGEST_COLUMNS)

    def pairs_digest(self) -> str:
        """SHA-256 of the frames with their pairs."""
        return self._digest(("path", "pair"))

    def _digest(self, columns: Sequence[str]) -> str:
        """SHA-256 of some columns, independent of the order of the rows."""
        ordered = self.table.select(columns).sort(columns)
        lines = ordered.select(pl.concat_str(pl.all().cast(pl.String), separator="\x1f"))
        return hashlib.sha256("\n".join(lines.to_series()).encode()).hexdigest()

    def validate(self, files: bool = True) -> "Manifest":
        """Returns itself if it can be trained and tested on.

        Args:
            files: also check that every file exists, and that tars reach as far as their frames.

        Raises:
            InputError: the first check that fails, with the rows that fail it.
        """
        check_table(self.table, self.root)
        if files:
            check_files(self.table, self.files(), self.root)
        return self

    def write(self, path: Path) -> None:
        """Writes parquet, atomically."""
        with atomic(path) as partial:
            self.table.write_parquet(partial)


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` positions below `length`, evenly from the first to the last."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()


def frame_positions(length: int, count: int | None, sampling: str) -> Sequence[int]:
    """Positions of the sampled frames of a video of `length` frames.

    Args:
        count: the most frames to take; None takes all.
        sampling: `spread`, evenly from the first to the last, or `first`, the first ones.
    """
    if count is None:
        return range(length)
    return evenly_spaced(length, count) if sampling == "spread" else range(min(length, count))


def read_manifest(path: Path, root: Path) -> Manifest:
    """Reads a manifest that `Manifest.write` wrote; `LATER_COLUMNS` that it lacks are empty.

    Raises:
        InputError: a missing file or one with other columns.
    """
    if not path.is_file():
        raise InputError(f"There is no manifest {path}", "make it with `fmsd index`")
    remedy = "make the manifest again with `fmsd index`"
    # `validate` names the rows that lack values
    required = pl.Schema({name: SCHEMA[name] for name in DIGEST_COLUMNS})
    later = pl.Schema({name: SCHEMA[name] for name in LATER_COLUMNS})
    table = read_table(path, required, remedy, complete=False, optional=later)
    table = table.with_columns(pl.lit("").alias(n) for n in LATER_COLUMNS if n not in table.columns)
    return Manifest(table.select(SCHEMA.names()), root)
