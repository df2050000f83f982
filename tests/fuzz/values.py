"""Hostile values, and mutations of words, texts, bytes and nested values."""

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

CHARACTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0/~")
"""What a word may hold; paths outside the folder of a case are left out."""

HOSTILE_TEXTS = (
    "", " ", "null", "true", "none", "2024", "-1", "0", "1.5", "1e400", "nan", "-inf", "9" * 400,
    "0x10", "1_000", "abc", "'", '"', "''", "\\", "=", "a=b", "a,b", ",", "[", "[]", "[1]", "[[a]]",
    "[null]", "[a,a]", "{}", "{a:1}", "{a:{b:[1]}}", "${x}", "${seed}", "${oc.env:NOT_SET}",
    "${now:}", "${", "???", "_target_", "x" * 300, "a/" * 700, "é", "顔", "\u202e", "\x07", "\n",
    "\t", "a\nb", "\udcff", "*", "?", "[a-z]*", "%s", "%", "{0}", "@", "-", "--", "#", "<b>",
    "$\\frac$", "choice(1,2)", "range(3)", "glob(*)", "int(x)", "a.b.c", ".", "..", "./", "a/../b",
    "../beside", "../beside/keep.txt", "notes.txt", "notes.txt/below", "notes.json", "mine.csv",
    "tree", "empty", "run", "run/run.json", "merged", "table.csv", "manifest.parquet", "loop",
    "con.parquet", "new", "new/deeper", "~", "~/below", "~nobody/x", "package:demo_vit.safetensors",
    "package:", "package:../x",
)  # fmt: skip

TEXTS = st.sampled_from(HOSTILE_TEXTS) | st.text(CHARACTERS, max_size=12)

NUMBERS = (
    st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -0.0, 0.5])
    | st.integers(-3, 300)
    | st.floats()
)

SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS

VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)
"""Whatever JSON and YAML may hold."""


@st.composite
def bitten(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which some are changed, cut off, repeated, removed or added."""
    content = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([1, 1, 2, 4, 16, 256, 1 << 16]))
        kind = draw(st.sampled_from(["flip", "set", "cut", "drop", "repeat", "add"]))
        part = content[start : start + length]
        if kind == "flip" and part:
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            content[start : start + length] = draw(st.sampled_from([b"\xff", b"\0"])) * len(part)
        elif kind == "cut":
            del content[start:]
        elif kind == "drop":
            del content[start : start + length]
        elif kind == "repeat":
            content[start:start] = part * draw(st.sampled_from([1, 2, 50]))
        else:
            content[start:start] = draw(st.binary(min_size=1, max_size=8))
    return bytes(content)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of a nested value: of itself and of all parts."""
    parts = value.items() if isinstance(value, dict) else ()
    parts = enumerate(value[:20]) if isinstance(value, list) else parts
    return [path, *(each for key, part in parts for each in paths_in(part, (*path, key)))]


@st.composite
def altered(draw: st.DrawFn, value: Any) -> Any:
    """A nested value of which some parts are replaced, removed, repeated, renamed or added."""
    whole = [copy.deepcopy(value)]
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        path = draw(st.sampled_from(paths_in(whole[0])))
        *above, last = (0, *path)
        holder: Any = whole
        for key in above:
            holder = holder[key]
        kind = draw(st.sampled_from(["set", "set", "set", "drop", "rename", "wrap", "add", "swap"]))
        found = holder[last]
        if kind == "drop" and path:
            del holder[last]
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(TEXTS)] = holder.pop(last)
        elif kind == "wrap":
            holder[last] = draw(st.sampled_from([[found], {"a": found}, [found, found]]))
        elif kind == "add" and isinstance(found, dict):
            found[draw(TEXTS)] = draw(VALUES)
        elif kind == "add" and isinstance(found, list):
            found.append(draw(VALUES))
        elif kind == "swap":
            other: Any = whole[0]
            for key in draw(st.sampled_from(paths_in(whole[0]))):
                other = other[key]
            holder[last] = copy.deepcopy(other)
        else:
            holder[last] = draw(VALUES)
    return whole[0]


def as_json(value: Any) -> bytes:
    """A nested value as JSON, also one that JSON cannot hold (NaN)."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def altered_text(draw: st.DrawFn, text: str, separator: str) -> str:
    """A table as text of which some cells, lines or columns are changed."""
    rows = [line.split(separator) for line in text.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        line = draw(st.sampled_from([0, 1, len(rows) - 1, len(rows) // 2]))
        cells = rows[min(line, len(rows) - 1)]
        kind = draw(st.sampled_from(["cell", "cell", "cell", "drop", "add", "line", "twice"]))
        place = draw(st.integers(0, max(0, len(cells) - 1)))
        if kind == "cell" and cells:
            cells[place] = draw(TEXTS | NUMBERS.map(str))
        elif kind == "drop" and cells:
            for row in rows:
                del row[place : place + 1]
        elif kind == "add":
            cells.append(draw(TEXTS))
        elif kind == "line":
            del rows[min(line, len(rows) - 1)]
        else:
            rows.append([*cells])
        if not rows:
            break
    return draw(st.sampled_from(["\n", "\n", "\r\n"])).join(map(separator.join, rows))


@st.composite
def altered_words(
    draw: st.DrawFn,
    words: Sequence[str],
    kept: Sequence[str],
    keys: Sequence[str],
    small: Sequence[str],
) -> tuple[str, ...]:
    """A command of which some words are replaced, removed, repeated or added.

    Args:
        kept: words that stay.
        keys: that the verb has.
        small: those whose large values take long, as they should: they get no numbers above 1.
    """
    verb, *rest = (word for word in words if word not in kept)
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        kind = draw(st.sampled_from(["value", "value", "key", "key", "drop", "twice", "word"]))
        place = draw(st.integers(0, max(0, len(rest) - 1)))
        if kind == "value" and rest:
            key, sign, value = rest[place].partition("=")
            rest[place] = f"{key}{sign or '='}{draw(_value(key, value, small))}"
        elif kind == "drop" and rest:
            del rest[place]
        elif kind == "twice" and rest:
            rest.append(rest[place])
        elif kind == "word":
            rest.append(draw(TEXTS))
        else:
            key = draw(st.sampled_from(keys))
            sign = draw(st.sampled_from(["", "", "", "", "+", "++", "~"]))
            below = draw(st.sampled_from(["", "", "", "", "", ".new", ".0", "."]))
            rest.append(f"{sign}{key}{below}={draw(_value(key, '', small))}")
    return (verb, *(word for word in words if word in kept), *rest)


def _value(key: str, value: str, small: Sequence[str]) -> SearchStrategy[str]:
    if key.lstrip("+~").startswith(tuple(small)):
        return st.sampled_from(["", "null", "abc", "-1", "0", "1.5", "[a]", "{a:1}", "true", "nan"])
    around = st.sampled_from([f"{value}/../{value}", f"{value}x", f"[{value}]", f"{value},{value}"])
    return (TEXTS | NUMBERS.map(str) | around).filter(lambda text: not text.startswith("/"))
