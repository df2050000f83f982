"""The texts in a file of scores as scores, outcomes and labels."""

import logging
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from fmsd.data.score_columns import columns_override
from fmsd.data.sources.labels import LABEL_DIGITS, LABEL_WORDS
from fmsd.errors import InputError
from fmsd.outcomes import FAILED, MISSING, NO_FACE, SCORED, UNREADABLE

log = logging.getLogger(__name__)

OUTCOME_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("no face", "no_face", "no-face", "noface", "no face found"), NO_FACE),
    **dict.fromkeys(("no face detected", "face not found", "no faces"), NO_FACE),
    **dict.fromkeys(("unreadable", "corrupt", "corrupted"), UNREADABLE),
    **dict.fromkeys(("", "nan", "none", "null", "na", "n/a", "-"), FAILED),
    **dict.fromkeys(("error", "failed", "fail", "failure"), FAILED),
    "missing": MISSING,
}
"""What may stand in place of a score, in lower case, and the outcome that it means."""

LABELS: Mapping[str, int] = {**LABEL_WORDS, **LABEL_DIGITS, "0.0": 0, "1.0": 1}
"""The labels of a file, in lower case: real and fake, or 0 and 1 for them."""

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
NUMBER_WITH_POINT = r"^[+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
DECIMAL_COMMA = r"^[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?$"


def parse_scores(rows: pl.DataFrame, unit: str, path: Path) -> pl.DataFrame:
    """The rows with their scores as numbers, and the outcome of each."""
    table = rows.with_columns(text=pl.col("score").str.strip_chars())
    commas = pl.col("text").str.contains(DECIMAL_COMMA)
    if table.select(commas.any() & ~pl.col("text").str.contains(NUMBER_WITH_POINT).any()).item():
        log.info("The scores of %s have a comma as their decimal mark.", path)
        table = table.with_columns(
            text=pl.when(commas).then(pl.col("text").str.replace(",", ".")).otherwise("text")
        )
    number = pl.col("text").str.contains(NUMBER)
    table = table.with_columns(
        score=pl.when(number).then("text").cast(pl.Float64),
        outcome=pl.when(number)
        .then(pl.lit(SCORED))
        .otherwise(pl.col("text").str.to_lowercase().replace_strict(OUTCOME_WORDS, default=None)),
    )
    _refuse(
        table.filter(pl.col("outcome").is_null() | pl.col("score").is_infinite()),
        "score", "text", "which is no number", unit, path,
        "write finite numbers, with a point as the decimal mark, or a word such as "
        "'no face' or 'error' in place of a score",
    )  # fmt: skip
    _refuse(
        table.filter(pl.col("key").str.strip_chars() == ""),
        "key", "key", "which is empty", unit, path, "fill it in",
    )  # fmt: skip
    return table.drop("text")


def parse_labels(
    table: pl.DataFrame, unit: str, path: Path, columns: Mapping[str, str]
) -> pl.DataFrame:
    """The rows with their labels as 0 and 1; null where they are empty.

    Args:
        columns: see `fmsd.data.score_files.ScoreFile`.
    """
    leaving_out = columns_override({**columns, "label": None})
    text = pl.col("label").str.strip_chars().str.to_lowercase()
    parsed = table.with_columns(
        parsed=text.replace_strict(LABELS, default=None, return_dtype=pl.Int8)
    )
    _refuse(
        parsed.filter(pl.col("parsed").is_null() & (text != "")),
        "label", "label", "which is none of real, fake, 0 and 1", unit, path,
        f"correct it, or leave the labels of the file out with {leaving_out}",
    )  # fmt: skip
    return parsed.drop("label").rename({"parsed": "label"})


def _refuse(
    wrong: pl.DataFrame, what: str, column: str, fault: str, unit: str, path: Path, remedy: str
) -> None:
    """Refuses rows, if there are any, by the first of them."""
    if wrong.is_empty():
        return
    text = repr(wrong[column][0])
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    more = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
    raise InputError(
        f"{unit.capitalize()} {wrong['place'][0]} of {path} has the {what} {shown}, {fault}{more}",
        remedy,
    )
