"""Matches the rows of a file of scores with the frames or the videos of test datasets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fmsd.checks import check_choice
from fmsd.data.manifest import Manifest
from fmsd.data.score_columns import columns_override
from fmsd.data.score_files import ScoreFile
from fmsd.data.score_keys import (
    AUTO,
    MATCH_KEYS,
    MATCH_LEVELS,
    Reading,
    find_keys,
    plain,
    shown_text,
)
from fmsd.errors import InputError
from fmsd.outcomes import MISSING, SCORED


@dataclass(frozen=True)
class Matching:
    """The scores of test frames, and what was left over.

    Args:
        reading: what the keys are.
        scores: by dataset, for each row of its manifest `score` (Float64, null without one) and
            `outcome`.
        duplicates: the number of rows that repeat the score of another row.
        unmatched: rows without a frame or video: `place`, `key`, `why`.
        missing: frames, or videos, without a score: `dataset`, `key` (the path, or the id) and
            `outcome`, which is `missing` of those without a row.
        disagreements: rows with another label than ours: `place`, `key`, `label`, `ours`; empty
            where the file has no labels.
        labels: the number of labels that were compared.
    """

    reading: Reading
    scores: Mapping[str, pl.DataFrame]
    duplicates: int
    unmatched: pl.DataFrame
    missing: pl.DataFrame
    disagreements: pl.DataFrame
    labels: int


def match_scores(
    file: ScoreFile,
    tests: Mapping[str, Manifest],
    source: Path,
    level: str = AUTO,
    by: str = AUTO,
    root: str | None = None,
) -> Matching:
    """Matches the rows of a file with frames or videos.

    Args:
        tests: the test datasets by name.
        source: the file, for messages.
        level: `frame`, `video`, or `auto`: that of the keys, if it is certain.
        by: see `Reading`, or `auto`: the one that is found, if it is certain. File names are then
            looked for only where no path or id is found, and only for keys without a folder.
        root: the folder that the file's paths are below: relative ones begin there, and from
            absolute ones below it that part is taken off.

    Raises:
        InputError: no key is found, keys may be read in two ways, a key is that of two frames or
            videos, or one has two different scores.
    """
    check_choice("level", level, MATCH_LEVELS)
    check_choice("by", by, MATCH_KEYS)
    table = file.table.with_row_index("entry")
    check_datasets(file, tests, source)
    reading, found = find_keys(table, tests, source, level, by, root)
    check_single(found, table, tests, file.unit, source, reading)
    joined = found.join(table, on="entry", how="left", maintain_order="left", suffix="_given")
    check_equal(joined, tests, file.unit, source, reading)
    kept = joined.unique(["dataset", "row"], keep="first", maintain_order=True)
    scores, missing = dict[str, pl.DataFrame](), list[pl.DataFrame]()
    for name, manifest in tests.items():
        scores[name] = spread_scores(manifest, kept.filter(dataset=name), reading.level)
        what = "path" if reading.level == "frame" else "video"
        outcomes = manifest.table.select(dataset=pl.lit(name), key=what).with_columns(
            scores[name]["outcome"]
        )
        missing.append(outcomes.filter(pl.col("outcome") != SCORED).unique(maintain_order=True))
    compared = compare_labels(joined, tests)
    return Matching(
        reading,
        scores,
        len(joined) - len(kept),
        unmatched_rows(table, found, tests),
        pl.concat(missing),
        compared.filter(pl.col("label") != pl.col("ours")),
        len(compared),
    )


def spread_scores(manifest: Manifest, kept: pl.DataFrame, level: str) -> pl.DataFrame:
    """The `score` and `outcome` of each row of a manifest; that of a video for all its frames.

    Args:
        kept: `row`, `score` and `outcome`, each row once.
    """
    frames = manifest.table.select("video").with_row_index("row")
    if level == "video":
        frames = frames.with_columns(row=pl.col("row").min().over("video"))
    kept = kept.select("row", "score", "outcome")
    joined = frames.join(kept, on="row", how="left", maintain_order="left")
    return joined.select("score", pl.col("outcome").fill_null(MISSING))


def unmatched_rows(
    table: pl.DataFrame, found: pl.DataFrame, tests: Mapping[str, Manifest]
) -> pl.DataFrame:
    """The rows that no frame or video was found for, and why."""
    rest = table.join(found, on="entry", how="anti", maintain_order="left")
    why = pl.lit("there is no such test frame or video")
    if "dataset" in rest.columns:
        other = ~pl.col("dataset").is_in(list(tests))
        why = pl.when(other).then(pl.lit("its dataset is not tested")).otherwise(why)
    return rest.select("place", "key", why=why)


def compare_labels(joined: pl.DataFrame, tests: Mapping[str, Manifest]) -> pl.DataFrame:
    """The matched rows that have a label: `place`, `key`, `label` and `ours`."""
    schema = {"place": pl.Int64, "key": pl.String, "label": pl.Int8, "ours": pl.Int8}
    if "label" not in joined.columns:
        return pl.DataFrame(schema=schema)
    own = with_frames(joined, tests, "label", "ours")
    return own.drop_nulls("label").select(pl.col(name).cast(kind) for name, kind in schema.items())


def with_frames(
    joined: pl.DataFrame, tests: Mapping[str, Manifest], column: str, name: str
) -> pl.DataFrame:
    """Matched rows with a column of the manifests."""
    frames = pl.concat(
        manifest.table.select(
            pl.lit(dataset).alias("dataset"), pl.col(column).alias(name)
        ).with_row_index("row")
        for dataset, manifest in tests.items()
    )
    return joined.join(frames, on=["dataset", "row"], how="left", maintain_order="left")


def check_datasets(file: ScoreFile, tests: Mapping[str, Manifest], source: Path) -> None:
    """Checks that a file that names datasets has some of the tests.

    Raises:
        InputError: it has none.
    """
    table = file.table
    if "dataset" not in table.columns or table["dataset"].is_in(list(tests)).any():
        return
    named = sorted(table["dataset"].unique())
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    raise InputError(
        f"{source} has scores of {', '.join(map(shown_text, named[:5]))}{more}, and the tests are "
        f"of {', '.join(tests)}",
        "rename the datasets there, or if the keys tell them apart, leave the column out with "
        + columns_override({**file.columns, "dataset": None}),
    )


def check_single(
    found: pl.DataFrame,
    table: pl.DataFrame,
    tests: Mapping[str, Manifest],
    unit: str,
    source: Path,
    reading: Reading,
) -> None:
    """Checks that no key is that of two frames or videos.

    Raises:
        InputError: the first that is.
    """
    twice = found.filter(pl.col("entry").is_duplicated()).head(2)
    if twice.is_empty():
        return
    what = "path" if reading.level == "frame" else "video"
    one, other = with_frames(twice, tests, what, "text").select("dataset", "text").rows()
    entry = table.row(int(twice["entry"][0]), named=True)
    both = " and ".join(f"{shown_text(text)} of {dataset}" for dataset, text in (one, other))
    raise InputError(
        f"The key {shown_text(entry['key'])} in {unit} {entry['place']} of {source} is that of "
        f"several test {reading.level}s: {both}",
        "give whole paths or ids, a column dataset, or one dataset with data.test='[NAME]'",
    )


def check_equal(
    joined: pl.DataFrame,
    tests: Mapping[str, Manifest],
    unit: str,
    source: Path,
    reading: Reading,
) -> None:
    """Checks that rows of one frame or video have one score, and by name also one key.

    Raises:
        InputError: the first that have not.
    """
    several = joined.filter(pl.struct("dataset", "row").is_duplicated())
    if several.is_empty():
        return
    same = [
        pl.struct("score", "outcome"),
        *([plain(pl.col("key"))] if reading.by == "name" else []),
    ]
    differing = several.filter(
        pl.any_horizontal(each.n_unique().over("dataset", "row") > 1 for each in same)
    )
    if differing.is_empty():
        return
    first = differing.row(0, named=True)
    rows = differing.filter(dataset=first["dataset"], row=first["row"])
    other = rows.filter(pl.any_horizontal(each.ne_missing(each.first()) for each in same)).row(
        0, named=True
    )
    what = "path" if reading.level == "frame" else "video"
    place = tests[first["dataset"]].table[what][first["row"]]
    raise InputError(
        f"{unit.capitalize()}s {first['place']} and {other['place']} of {source} are both of the "
        f"{reading.level} {shown_text(place)}: {shown_text(first['key'])} with the score "
        f"{_score(first)}, and {shown_text(other['key'])} with {_score(other)}",
        "remove the wrong one"
        + (", or give scores of videos" if first["key"] == other["key"] else ", or give by=path"),
    )


def _score(row: Mapping[str, object]) -> str:
    return f"{row['outcome'] if row['score'] is None else row['score']}"
