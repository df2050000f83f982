"""The texts that sources read, in every encoding and with every fault."""

import codecs
import functools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Entry
from fmsd.data.sources import (
    avdeepfake1m_pp,
    celebdf,
    deeperforensics,
    deepfakebench,
    deepspeak,
    df40,
    dfdc,
    dfdcp,
    fakeavceleb,
    ffpp,
    folder,
    idforge,
    lavdf,
    polyglotfake,
    table,
)
from fmsd.data.sources.text import read_csv_table, read_json, read_text
from fmsd.errors import InputError
from tests import (
    test_avdeepfake1m_pp,
    test_celebdf,
    test_deeperforensics,
    test_deepfakebench,
    test_deepspeak,
    test_df40,
    test_dfdc,
    test_dfdcp,
    test_fakeavceleb,
    test_ffpp,
    test_idforge,
    test_lavdf,
    test_polyglotfake,
)
from tests.conftest import grow_tree

WORDS = "1 Celeb-real/müller.mp4\r\nß €\n"

ENCODINGS = {
    "utf-8": b"",
    "utf-8 with its mark": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


def encoded(text: str, encoding: str) -> bytes:
    return ENCODINGS[encoding] + text.encode(encoding.partition(" ")[0])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_byte_order_mark_is_no_content(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(encoded(WORDS, encoding))
    assert read_text(tmp_path / "list.txt") == WORDS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "a\nmüller".encode("latin-1"),
            r"Line 2 of .*list\.txt is not UTF-8 text; save the file in UTF-8",
        ),
        (codecs.BOM_UTF8 + b"\xff", r"Line 1 of .*list\.txt is not UTF-8 text"),
        (codecs.BOM_UTF16_LE + b"a", r"list\.txt is not UTF-16 text"),
    ],
)
def test_text_in_another_encoding_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_text(tmp_path / "list.txt")


# ---- every source that reads a text


def labels_csv(root: Path) -> Path:
    test_dfdc.part(root / "test", ["a.mp4", "b.mp4"])
    (root / "test/labels.csv").write_text("filename,label\na.mp4,1\nb.mp4,0\n")
    return root


def benchmark_splits(root: Path) -> Path:
    test_ffpp.ffpp_tree(root)
    listed: dict[str, dict[str, Any]] = {}
    for name, split in ffpp.read_splits(root, None).items():
        listed.setdefault(split, {"c23": {}})["c23"][name] = {"label": "FF-DF", "frames": []}
    for file in (root / "splits").iterdir():
        file.unlink()
    (root / "FaceForensics++.json").write_text(json.dumps({"FaceForensics++": {"FF-DF": listed}}))
    return root


def framed(root: Path) -> Path:
    grow_tree(root, splits=("test",))
    splits = {"test": "test"}
    manifest = from_entries(
        folder.scan(root, "mine", "{split}/{domain}/{video}", splits, ["real"]), root
    )  # pyright: ignore[reportArgumentType]
    manifest.table.write_csv(root / "frames.csv")
    return root


def forgeries_lists(root: Path) -> Path:
    return test_df40.lists(test_df40.tree(root))


Case = tuple[Callable[[Path], Any], Callable[[Path], Iterator[Entry]]]

READERS: dict[str, Case] = {
    "celebdf": (
        lambda root: test_celebdf.copy(root, test_celebdf.V2, test_celebdf.V2_TESTED),
        functools.partial(celebdf.scan, dataset="c"),
    ),
    "deeperforensics": (
        lambda root: test_deeperforensics.real_tree(test_deeperforensics.tree(root)),
        deeperforensics.scan,
    ),
    "deepfakebench": (
        test_deepfakebench.benchmark,
        functools.partial(
            deepfakebench.scan, file=["FaceForensics++.json", "Celeb-DF-v2.json"], compression="c23"
        ),
    ),
    "df40": (test_df40.tree, df40.scan),
    "df40 lists": (forgeries_lists, functools.partial(df40.scan, lists=True)),
    "dfdc": (test_dfdc.copy, functools.partial(dfdc.scan, dataset="d")),
    "dfdc labels": (labels_csv, functools.partial(dfdc.scan, dataset="d")),
    "dfdcp": (test_dfdcp.copy, functools.partial(dfdcp.scan, dataset="d")),
    "fakeavceleb": (test_fakeavceleb.tree, fakeavceleb.scan),
    "ffpp": (test_ffpp.ffpp_tree, ffpp.scan),
    "ffpp by DeepfakeBench's split": (benchmark_splits, ffpp.scan),
    "table": (framed, functools.partial(table.scan, file="frames.csv")),
    "deepspeak": (test_deepspeak.tree, functools.partial(deepspeak.scan, dataset="d")),
    "idforge": (test_idforge.tree, idforge.scan),
    "polyglotfake": (test_polyglotfake.tree, polyglotfake.scan),
    "lavdf": (test_lavdf.tree, lavdf.scan),
    "avdeepfake1m_pp": (test_avdeepfake1m_pp.tree, avdeepfake1m_pp.scan),
}


def texts(root: Path) -> list[Path]:
    """The lists of a generated copy."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix in (".json", ".csv", ".txt") and path.stat().st_size
    )


@pytest.mark.parametrize("name", READERS)
def test_every_source_reads_its_lists_in_every_encoding(name: str, tmp_path: Path) -> None:
    grow, scan = READERS[name]
    grow(tmp_path)
    before = {path: path.read_text() for path in texts(tmp_path)}
    entries = list(scan(tmp_path))
    assert before
    assert entries
    for encoding in ENCODINGS:
        for path, text in before.items():
            path.write_bytes(encoded(text, encoding))
        assert list(scan(tmp_path)) == entries, encoding


@pytest.mark.parametrize("name", READERS)
def test_every_source_names_a_list_in_another_encoding(name: str, tmp_path: Path) -> None:
    grow, scan = READERS[name]
    grow(tmp_path)
    for path in texts(tmp_path):
        path.write_bytes("é\n".encode("latin-1") + path.read_bytes())
    with pytest.raises(
        InputError, match=r"Line 1 of .*\.(json|csv|txt) is not UTF-8 text; save the file in UTF-8"
    ):
        list(scan(tmp_path))


def changed(value: Any) -> Iterator[Any]:
    """A JSON value with one of its values, at any depth, left out or of another kind; of each
    object and list only two members are changed.
    """
    yield from (None, 7, ["odd"], {"odd": 1})
    if isinstance(value, dict):
        for key in list(value)[:2]:
            yield {name: inner for name, inner in value.items() if name != key}
            yield from (value | {key: inner} for inner in changed(value[key]))
    elif isinstance(value, list):
        for place in range(min(2, len(value))):
            yield from (
                [*value[:place], inner, *value[place + 1 :]] for inner in changed(value[place])
            )


@pytest.mark.parametrize(
    "name",
    ["deepfakebench", "df40 lists", "dfdc", "dfdcp", "ffpp", "ffpp by DeepfakeBench's split"],
)
def test_whatever_json_holds_is_read_or_refused_with_the_name_of_the_file(
    name: str, tmp_path: Path
) -> None:
    grow, scan = READERS[name]
    grow(tmp_path)
    path = [path for path in texts(tmp_path) if path.suffix == ".json"][-1]
    refusals: list[InputError] = []
    for content in changed(json.loads(path.read_text())):
        path.write_text(json.dumps(content))
        try:
            list(scan(tmp_path))
        except InputError as error:
            refusals.append(error)
    assert len(refusals) > 5
    assert all(
        path.name in refusal.message and refusal.remedy and "Error" not in refusal.message
        for refusal in refusals
    )


def test_json_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"deep\.json is not a JSON file"):
        read_json(tmp_path / "deep.json")


def test_equal_names_with_equal_values_are_no_contradiction(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1, "a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(
        InputError, match=r"a\.json gives a twice, with different values; remove the wrong one"
    ):
        read_json(tmp_path / "a.json")


def test_videos_of_a_split_that_deepfakebench_does_not_know_are_told(tmp_path: Path) -> None:
    root = test_deepfakebench.benchmark(tmp_path)
    path = root / "dataset_json/Celeb-DF-v2.json"
    path.write_text(path.read_text().replace('"val"', '"validation"'))
    (problem,) = [
        entry
        for entry in deepfakebench.scan(root, path.name)
        if getattr(entry, "kind", "") == "unknown split"
    ]
    assert (
        "lists videos of CelebDFv2_real as 'validation', which is none of test, val, train"
        in problem.what
    )  # pyright: ignore


# ---- tables

HEADER = "path,label,dataset,domain,video,index,split"
LINES = [
    HEADER,
    "a b/0.png,0,mine,real,mine/real/v,0,test",
    '"a, ""b"";c/0.png",1,mine,swap,mine/swap/v,1.0,test',
]


def written(root: Path, *lines: str, end: str = "\n") -> list[Entry]:
    (root / "frames.csv").write_bytes((end.join(lines) + end).encode())
    return list(table.scan(root, "frames.csv"))


def apart(line: str, separator: str) -> str:
    """A line with another separator, but for the commas in quotes."""
    return '"'.join(
        part if place % 2 else part.replace(",", separator)
        for place, part in enumerate(line.split('"'))
    )


@pytest.mark.parametrize("separator", [",", ";", "\t", ", ", ";  "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_blanks_quotes_and_line_ends_of_a_table_are_found_out(
    separator: str, end: str, tmp_path: Path
) -> None:
    plain = written(tmp_path, *LINES)
    assert [
        (entry.path.relative_to(tmp_path).as_posix(), entry.label, entry.index) for entry in plain
    ] == [  # pyright: ignore
        ("a b/0.png", 0, 0),
        ('a, "b";c/0.png', 1, 1),
    ]
    assert written(tmp_path, *(apart(line, separator) for line in LINES), end=end) == plain


def test_blanks_before_separators_are_no_content(tmp_path: Path) -> None:
    plain = written(tmp_path, *LINES[:2])
    assert written(tmp_path, *(f"  {line} ".replace(",", "  ,\t ") for line in LINES[:2])) == plain


def test_what_was_found_out_about_a_table_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        plain = written(tmp_path, *LINES)
        assert not caplog.records
        lines = [
            "PATH; Label;dataset;domain;video;index;split;Note",
            *(apart(line, ";") for line in LINES[1:]),
        ]
        assert written(tmp_path, *lines) == plain
    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"{tmp_path}/frames.csv is read as follows: cells are separated by semicolons; the "
        "columns "
        "PATH as path, Label as label."
    )


def test_an_exact_name_of_a_column_wins_and_two_like_it_are_refused(tmp_path: Path) -> None:
    first = "0.png,0,mine,real,v,0,test"
    assert written(tmp_path, f"{HEADER},Label", f"{first},fake") == written(tmp_path, HEADER, first)
    with pytest.raises(
        InputError, match=r"has the column label more than once; keep the right one"
    ):
        written(tmp_path, HEADER.replace("label", "Label") + ",LABEL", f"{first},1")
    with pytest.raises(InputError, match=r"has the column label more than once"):
        written(tmp_path, f"{HEADER},label", f"{first},1")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], r"frames\.csv lacks the columns path, label, .*; it needs path, label"),
        ([HEADER.replace(",", "|")], r"lacks the columns path"),
        (
            [HEADER.replace("label,", ""), "0.png,mine,real,v,0,test"],
            r"lacks the columns label; it needs",
        ),
        (
            [HEADER, "0.png,0,mine,real,v,0,test,more"],
            r"Line 2 of .*frames\.csv has 8 cells, but the header 7",
        ),
        (
            [HEADER, "0.png,0,mine,real"],
            r"Line 2 of the table .*frames\.csv has empty cells in the columns video, index, split",
        ),
        (
            [HEADER, "0.png,0,  ,real,v,0,test"],
            r"Line 2 of the table .* has empty cells in the columns dataset; fill them in",
        ),
        (
            [HEADER, '"0.png,0,mine,real,v,0,test'],
            r"Line 2 of .*frames\.csv cannot be read \(unexpected end of data\)",
        ),
    ],
)
def test_a_table_is_never_read_by_a_wrong_column(
    lines: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        written(tmp_path, *lines)


def test_lines_without_cells_are_no_rows(tmp_path: Path) -> None:
    assert written(tmp_path, LINES[0], "", LINES[1], ",,,,,,", LINES[2], "") == written(
        tmp_path, *LINES
    )


def test_a_line_is_counted_as_an_editor_does(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n"x\ny",1\nz,2\n')
    _, rows = read_csv_table(tmp_path / "a.csv", ["a", "b"])
    assert list(rows) == [(3, ["x\ny", "1"]), (4, ["z", "2"])]
