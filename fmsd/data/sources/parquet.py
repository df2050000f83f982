"""Parquet files with the images inside, as the library `datasets` writes them for the hub.

    ROOT/.../train-00000-of-00005.parquet      a row per image; its column is {bytes, path} or bytes

What a label means is declared, never assumed: copies of one dataset are published with both
meanings. The images are unpacked once into a folder, and read from there like any others.
"""

import functools
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.data import name_overrides, split_lists
from fmsd.data.frame import REAL, Entry, Frame, Problem, Split, pair_id, video_id
from fmsd.data.sources.labels import (
    DEFAULT_REAL_FOLDERS,
    LABEL_WORDS,
    Label,
    forgery_domain,
    parse_label,
)
from fmsd.data.sources.parquet_images import unpack_images
from fmsd.data.sources.partner_names import target_sequence
from fmsd.data.sources.reals import check_split
from fmsd.data.sources.tree import FAKE, refuse_unreadable
from fmsd.errors import InputError, reason
from fmsd.magic_numbers import recognise
from fmsd.paths import expand_home
from fmsd.tables import read_parquet, read_parquet_metadata, read_parquet_schema

COLUMNS = ("image", "label", "forgery", "video", "index", "split", "word")
"""What a column may be declared to hold."""

SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "validation": "val",
    "valid": "val",
    "test": "test",
}
"""The split of each word in lower case."""

SHARD = re.compile(r"(\w+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet")
"""The name of a file that `datasets` writes for a split."""


@refuse_unreadable
def scan(
    root: Path,
    dataset: str,
    columns: Mapping[str, str | None],
    labels: Mapping[Any, Any] | None = None,
    real: int | Sequence[str | int] = (),
    split: str | None = None,
    into: str | None = None,
) -> Iterator[Entry]:
    """The images of all parquet files below the root; the first call unpacks them.

    Args:
        columns: the column of the image and of the label; and where there is one, of the forgery,
            the video, the frame's index, the split, and of the label as a word (real, fake).
        labels: `real` or `fake` by value of the label's column.
        real: values of the forgery's column for real images, beside real, original and 0_real.
        split: of all images; or `ff++`: by the name of the video in the official split of
            FaceForensics++. None for the column of the split, or the names of the files.
        into: the folder of the unpacked images, relative to the root or absolute.

    Raises:
        InputError: no files, columns or labels; a label that contradicts the forgery, the word or
            the names that the file itself gives; no split; or a folder with other files.
    """
    files = sorted(root.rglob("*.parquet"))
    if not files:
        raise InputError(f"{root} holds no parquet file", "give their folder as data.root=PATH")
    if split is not None:
        check_split(split, ("ff++",))
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise InputError(
            f"data.source.columns has {', '.join(unknown)}", f"choose from {', '.join(COLUMNS)}"
        )
    named = {name: column for name, column in columns.items() if column is not None}
    tables = [_read(file, named) for file in files]
    meanings = _meanings(labels, tables, files, named["label"])
    given = name_overrides.as_names(real, "data.source.real")
    reals = {name.casefold() for name in (*DEFAULT_REAL_FOLDERS, *given)}
    rows = functools.partial(
        _describe, root=root, dataset=dataset, meanings=meanings, reals=reals, split=split
    )
    for file, table in zip(files, tables, strict=True):
        deque(rows(table, file), maxlen=0)  # every row is checked before images are written
    if into is None:
        raise InputError(
            f"The images in {files[0]} are unpacked before they are read, once",
            "say where, in a new folder: data.source.into=unpacked for one in data.root, or an "
            "absolute path",
        )
    folder = root / expand_home(into)
    unpack_images(files, [table.height for table in tables], named["image"], folder)
    parts: set[str] = set()
    for number, (file, table) in enumerate(zip(files, tables, strict=True)):
        inside = folder / f"{number:05d}"
        stored = {path.stem: path for path in inside.iterdir()} if inside.is_dir() else {}
        for row, about in enumerate(rows(table, file)):
            if (image := stored.get(f"{row:07d}")) is None:
                raise InputError(
                    f"{inside} lacks the image of row {row + 1} of {file}",
                    f"remove {folder}, and the images are unpacked again",
                )
            parts.add(about["split"])
            yield Frame(image, **about)
    if "video" not in named and len(parts) > 1:
        yield Problem(
            "no videos",
            f"Without a column of videos, each image of {dataset} is a video of its own, and "
            "frames of one video may lie in several splits unnoticed",
            "declare data.source.columns.video=COLUMN if there is one",
        )


def _read(file: Path, named: Mapping[str, str]) -> pl.DataFrame:
    """The declared columns of a file but the images, by what they hold.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    try:
        present = list(read_parquet_schema(file))
        if lacking := [f"{name}: {named[name]}" for name in named if named[name] not in present]:
            raise InputError(
                f"{file} has no column for {', '.join(lacking)}, but {', '.join(present)}",
                "declare data.source.columns.NAME=COLUMN, or null for what it does not have",
            )
        if lacking := [name for name in ("image", "label") if name not in named]:
            raise InputError(
                f"data.source.columns does not name the {' and the '.join(lacking)}",
                f"choose from {', '.join(present)}",
            )
        kept = {column: name for name, column in named.items() if name != "image"}
        table = read_parquet(file, list(kept)).rename(kept)
        if nested := [name for name, kind in table.schema.items() if kind.is_nested()]:
            raise InputError(
                f"The column {named[nested[0]]} of {file} holds {table.schema[nested[0]]} where "
                f"data.source.columns.{nested[0]} needs single values",
                f"declare another column, or null: choose from {', '.join(present)}",
            )
        return table.with_columns(pl.all().exclude("index").cast(pl.String))
    except pl.exceptions.PolarsError as error:
        if (fault := recognise(file)) is not None:
            raise InputError(
                f"{file} is no parquet file: it {fault.what}", fault.remedy_or("fetch it again")
            ) from error
        raise InputError(f"{file} cannot be read ({reason(error)})", "fetch it again") from error


def _meanings(
    labels: Mapping[Any, Any] | None,
    tables: Sequence[pl.DataFrame],
    files: Sequence[Path],
    column: str,
) -> dict[str, Label]:
    """The label by value of its column.

    Raises:
        InputError: a value without a meaning, a meaning that is neither real nor fake, or one that
            contradicts the names that a file gives its values; or files that give them other names.
    """
    values = sorted({str(value) for table in tables for value in table["label"].unique()})
    own = _own_names(files, column)
    hints = {value: own[value][0].lower() if value in own else "real|fake" for value in values}
    told = ", ".join(f"{value}: {hint}" for value, hint in hints.items())
    if labels is None:
        hint = ", as the file itself calls them" if own else ""
        raise InputError(
            f"What the values {', '.join(values)} of the column {column} in {files[0]} mean is "
            "not declared",
            f"look at some images and say it: 'data.source.labels={{{told}}}'{hint}",
        )
    meanings: dict[str, Label] = {}
    for value, word in labels.items():
        label = parse_label(word, LABEL_WORDS)
        if label is None:
            raise InputError(
                f"data.source.labels calls {value} {word}", "a label is real or fake, as a word"
            )
        name = str(value).lower() if isinstance(value, bool) else value
        meanings[name_overrides.as_name(name, "data.source.labels")] = label
    if missing := [value for value in values if value not in meanings]:
        raise InputError(
            f"data.source.labels does not say what {', '.join(missing)} means in {files[0]}",
            f"add it: 'data.source.labels={{{told}}}'",
        )
    for value, (name, file) in own.items():
        if value in meanings and parse_label(name, LABEL_WORDS) not in (None, meanings[value]):
            raise InputError(
                f"data.source.labels calls {value} {label_word(meanings[value])}, but {file} "
                f"itself calls it {name}",
                f"turn the labels round: 'data.source.labels={{{told}}}'",
            )
    return meanings


def label_word(label: Label) -> str:
    """The word of a label."""
    return next(word for word, value in LABEL_WORDS.items() if value == label)


def _own_names(files: Sequence[Path], column: str) -> dict[str, tuple[str, Path]]:
    """The name of each value of a label in the metadata of `datasets`, and a file that has it.

    Raises:
        InputError: two files give a value different names.
    """
    own: dict[str, tuple[str, Path]] = {}
    for file in files:
        for value, name in _names_in(file, column):
            first, other = own.setdefault(value, (name, file))
            if first.casefold() != name.casefold():
                raise InputError(
                    f"{other} calls the value {value} of its column {column} {first}, but {file} "
                    f"calls it {name}",
                    "read them as two datasets: give folders of files that agree as data.root=PATH",
                )
    return own


def _names_in(file: Path, column: str) -> Iterator[tuple[str, str]]:
    """(value, name) of a label in the metadata of `datasets`; none where there are no names."""
    try:
        names = json.loads(read_parquet_metadata(file)["huggingface"])["info"]["features"][column][
            "names"
        ]
        listed = names.items() if isinstance(names, dict) else enumerate(names)
        return iter([(str(value), str(name)) for value, name in listed])
    except (KeyError, TypeError, ValueError, RecursionError, pl.exceptions.PolarsError):
        return iter(())


def _describe(
    table: pl.DataFrame,
    file: Path,
    *,
    root: Path,
    dataset: str,
    meanings: Mapping[str, Label],
    reals: set[str],
    split: str | None,
) -> Iterator[dict[str, Any]]:
    """The arguments of the frame of each row, but its path.

    Raises:
        InputError: a row's label contradicts its forgery or word, or its split is not known.
    """
    shard = SHARD.fullmatch(file.name)
    where = file.relative_to(root).with_suffix("").as_posix()
    for row, cells in enumerate(table.iter_rows(named=True)):
        label = meanings[str(cells["label"])]
        forgery = cells.get("forgery")
        _check_agreement(cells, label, reals, f"Row {row + 1} of {file}")
        domain = REAL if label == 0 else forgery_domain(forgery or FAKE, f"Row {row + 1} of {file}")
        video = cells.get("video")
        index = cells.get("index")
        if split == "ff++":
            part = _official().get(str(video))
        else:
            word = split or cells.get("split") or (shard[1] if shard else "")
            part = SPLIT_WORDS.get(word.casefold())
        if part is None:
            raise InputError(
                f"Row {row + 1} of {file} is in no known split",
                "give all images one by data.source.split=train, val or test, or a column of "
                "splits by data.source.columns.split=COLUMN",
            )
        yield {
            "label": label,
            "dataset": dataset,
            "domain": domain,
            "video": video_id(dataset, domain, "", video or f"{where}/{row}"),
            "index": row if index is None else _whole_number(index, f"Row {row + 1} of {file}"),
            "split": part,
            "pair": pair_id(dataset, "", target_sequence(str(video)))
            if label and split == "ff++"
            else "",
        }


def _whole_number(index: object, where: str) -> int:
    """The index of a frame in its video.

    Raises:
        InputError: it is no whole number from 0 on.
    """
    try:
        number = float(str(index))
        if 0 <= number < 2**31 and number == int(number):
            return int(number)
    except ValueError:
        pass
    raise InputError(
        f"{where} has the index {index}, which is no whole number from 0 on",
        "declare another column as data.source.columns.index, or null",
    )


def _check_agreement(cells: Mapping[str, Any], label: Label, reals: set[str], where: str) -> None:
    """Refuses a row whose label contradicts its forgery or its word."""
    forgery, word = cells.get("forgery"), cells.get("word")
    turned = f"turn data.source.labels round, or correct {where}"
    if word is not None and parse_label(word, LABEL_WORDS) != label:
        raise InputError(
            f"{where} is {label_word(label)} by data.source.labels, but its word is {word}", turned
        )
    if forgery is None or (forgery.casefold() in reals) == (label == 0):
        return
    if label == 0:
        turned = (
            f"turn data.source.labels round, or if {forgery} are real images: "
            f"{name_overrides.list_override('data.source.real', [forgery])}"
        )
    raise InputError(
        f"{where} is {label_word(label)} by data.source.labels, but its forgery is {forgery}",
        turned,
    )


@functools.cache
def _official() -> dict[str, Split]:
    return split_lists.split_by_name(split_lists.FFPP)
