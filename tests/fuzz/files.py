"""Mutations of a file by its kind."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fuzz.values import NUMBERS, TEXTS, altered, altered_text, as_json, bitten

SAMPLES: tuple[Callable[[pl.DataFrame, str], pl.DataFrame], ...] = (
    lambda table, name: table.drop(name),
    lambda table, name: table.rename({name: "new"}),
    lambda table, name: table.with_columns(pl.lit(None).alias(name)),
    lambda table, name: table.with_columns(pl.col(name).cast(pl.String)),
    lambda table, name: table.with_columns(pl.lit(7).alias(name)),
    lambda table, name: table.with_columns(pl.lit(float("nan")).alias(name)),
    lambda table, name: table.with_columns(pl.lit(b"\xff").alias(name)),
    lambda table, name: table.with_columns(pl.lit([1, 2]).alias(name)),
    lambda table, name: table.with_columns(pl.col(name).first()),
    lambda table, name: table.with_columns(pl.col(name).reverse()),
    lambda table, name: table.with_columns(pl.col(name).shift(1)),
    lambda table, name: table.with_columns(pl.lit(0).alias("new")),
    lambda table, name: pl.concat([table, table]),
    lambda table, name: table.head(1),
    lambda table, name: table.clear(),
    lambda table, name: table.sample(fraction=0.5, seed=0),
)
"""Changes of a table, the most of them in one column."""


@st.composite
def altered_frame(draw: st.DrawFn, table: pl.DataFrame) -> bytes:
    """A parquet file of which columns, rows or cells are changed."""
    for _ in range(draw(st.integers(1, 2))):
        if not table.columns:
            break
        name = draw(st.sampled_from(table.columns))
        kind = draw(st.sampled_from([*SAMPLES, "cell", "cell", "cell"]))
        if callable(kind):
            with contextlib.suppress(pl.exceptions.PolarsError):  # as two columns of one name
                table = kind(table, name)
            continue
        value = draw(TEXTS if table[name].dtype == pl.String else NUMBERS)
        first = pl.int_range(pl.len()) == draw(st.integers(0, 3))
        try:
            content = value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
            cell = pl.lit(pl.Series([content]).cast(table[name].dtype).first())
            table = table.with_columns(pl.when(first).then(cell).otherwise(name).alias(name))
        except (pl.exceptions.PolarsError, OverflowError, TypeError):
            continue  # the column cannot hold such a value
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()


def mutations(path: Path) -> SearchStrategy[bytes]:
    """The mutations of a file, by its suffix: of its structure, and of its bytes."""
    data = path.read_bytes()
    structure: dict[str, Callable[[], SearchStrategy[bytes]]] = {
        ".json": lambda: altered(json.loads(data)).map(as_json),
        ".yaml": lambda: altered(yaml.safe_load(data)).map(_as_yaml),
        ".csv": lambda: _table(data, ","),
        ".tsv": lambda: _table(data, "\t"),
        ".txt": lambda: _table(data, " "),
        ".md": lambda: _table(data, "|"),
        ".parquet": lambda: altered_frame(pl.read_parquet(data)),
        ".safetensors": lambda: _header(data),
    }
    known = structure.get(path.suffix)
    return st.one_of(known(), known(), bitten(data)) if known and data else bitten(data)


def _as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def _table(data: bytes, separator: str) -> SearchStrategy[bytes]:
    text = altered_text(data.decode(), separator)
    return text.map(lambda changed: changed.encode("utf-8", "surrogatepass"))


def _header(data: bytes) -> SearchStrategy[bytes]:
    """Another header of the weights: their names, types, shapes and places."""
    size = int.from_bytes(data[:8], "little")

    def joined(header: Any) -> bytes:
        text = as_json(header)
        return len(text).to_bytes(8, "little") + text + data[8 + size :]

    return altered(json.loads(data[8 : 8 + size])).map(joined)
