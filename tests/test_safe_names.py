"""Which names from files may become names of files."""

from pathlib import Path

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame, Video
from fmsd.data.manifest import Manifest
from fmsd.data.sources import table
from fmsd.errors import InputError
from fmsd.names import check_distinct, check_name, name_fault, unfit_names
from tests.conftest import write_image

GOOD = [
    "a",
    "Celeb-DF-v2",
    "ff++",
    "Жанна Ñandú [人] 100%",
    "clip.1.final",
    "a..b",
    "...".join("ab"),
    'a "b", c',
    "Щ" * 100,
    "می‌خواهم",
]
BAD = {
    "": "is empty",
    ".": r"'\.', which leads to another folder",
    "..": r"'\.\.', which leads to another folder",
    ".hidden": "hidden by a leading dot",
    "a\nb": "control character",
    "a\0b": "control character",
    "a\x1b[31mb": "control character",
    "a\u2028b": "control character",
    "/a": "absolute path",
    "C:a": "absolute path",
    "C:\\a": "absolute path",
    "a\\b": "backslash",
    "\\\\server\\a": "backslash",
    "x" * 256: "is longer than",
    "Щ" * 130: "is longer than",
    "\udce9": "not written in UTF-8",
}
BAD_IDS = {
    "a//b": "empty part",
    "a/": "empty part",
    "a/../b": "leads to another folder",
    "a/./b": "leads to another folder",
    "a/.b": "hidden",
}


@pytest.mark.parametrize("name", GOOD)
def test_names_of_any_script_are_good_and_so_are_paths_of_them(name: str) -> None:
    check_name(name, "dataset")
    frame = Frame(Path("/x.png"), 0, name, name, f"{name}/{name}", 0, "train", name)
    assert frame.video == f"{name}/{name}"


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_no_field_of_a_frame_or_video_takes_a_bad_name(name: str) -> None:
    fields = {"dataset": "d", "domain": "real", "video": "d/real/v", "compression": ""}
    for field in fields if name else ("dataset", "domain", "video"):
        with pytest.raises(InputError, match=BAD[name]):
            Frame(path=Path("/x.png"), label=0, index=0, split="train", **fields | {field: name})  # pyright: ignore[reportArgumentType]
        with pytest.raises(InputError, match=BAD[name]):
            Video(
                file=Path("/x.mp4"), images=None, label=0, split="train", **fields | {field: name}
            )  # pyright: ignore[reportArgumentType]
    assert (
        name == "C:a" or name_fault(f"d/{name}/v", nested=True) is not None
    )  # which leads nowhere else in the middle of a path


@pytest.mark.parametrize("name", BAD_IDS)
def test_an_id_is_names_joined_by_slashes(name: str) -> None:
    with pytest.raises(InputError, match=BAD_IDS[name]):
        Frame(Path("/x.png"), 0, "d", "real", name, 0, "train")
    with pytest.raises(InputError, match="holds a slash"):
        check_name("a/b", "dataset")


def test_what_is_no_text_is_refused() -> None:
    assert list(unfit_names([1, None, "a", b"a"])) == [1, None, b"a"]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (
            ["d/Clip", "d/clip"],
            "would be one folder on a file system that ignores case, accents or blanks",
        ),
        (
            ["d/caf\u00e9", "d/cafe\u0301"],
            "would be one folder on a file system that ignores case, accents or blanks",
        ),
        (
            ["d/a", "d/a "],
            "would be one folder on a file system that ignores case, accents or blanks",
        ),
        (["d/a/b", "d/a"], r"'d/a/b' would lie in that of 'd/a'"),
        (["D/A", "d/a/b/c"], r"'d/a/b/c' would lie in that of 'D/A'"),
    ],
)
def test_ids_whose_folders_would_eat_each_other_are_refused(ids: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_distinct(ids)
    check_distinct(["d/a", "d/ab", "d/a b", "e/a"])


@pytest.mark.parametrize(
    ("column", "value"),
    [("dataset", "../x"), ("domain", "a/b"), ("compression", ".c23"), ("video", "/data/clip")],
)
def test_a_manifest_of_somebody_else_is_checked_alike(column: str, value: str) -> None:
    frames = [
        Frame(Path(f"/r/{n}.png"), 1, "d", "swap", f"d/swap/{n}", 0, "train", "c40")
        for n in range(4)
    ]
    manifest = from_entries(frames, Path("/r"))
    assert manifest.validate(files=False) is manifest
    wrong = Manifest(
        manifest.table.with_columns(
            pl.when(pl.col("path") == "2.png").then(pl.lit(value)).otherwise(column).alias(column)
        ),
        Path("/r"),
    )
    with pytest.raises(
        InputError,
        match=rf"the {column} values of row 2 \(2\.png, {value}\) cannot become names of files",
    ):
        wrong.validate(files=False)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_whose_ids_are_absolute_paths_is_refused_with_its_row_and_a_remedy(
    tmp_path: Path, ending: str
) -> None:
    videos = ["d/real/a", str(tmp_path / "b")]
    rows = [
        {
            "path": f"{n}.png",
            "label": 0,
            "dataset": "d",
            "domain": "real",
            "video": v,
            "index": 0,
            "split": "train",
        }
        for n, v in enumerate(videos)
    ]
    frame = pl.DataFrame(rows)
    _ = (
        frame.write_csv(tmp_path / "t.csv")
        if ending == "csv"
        else frame.write_parquet(tmp_path / "t.parquet")
    )
    with pytest.raises(
        InputError,
        match=rf"video id '{tmp_path}/b' is an absolute path \(line [23] of .*t\.{ending}.*; "
        r"use a path relative to data\.root",
    ):
        list(table.scan(tmp_path, f"t.{ending}"))


def test_a_dataset_that_is_no_file_s_name_is_refused_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its predictions lie in `predictions/DATASET.parquet`."""
    write_image(tmp_path / "tree" / "test" / "real" / "v" / "0.png", 0)
    words = [
        "data=folder",
        f"data.root={tmp_path / 'tree'}",
        "data.source.dataset=lab/faces",
        f"out={tmp_path / 'm.parquet'}",
    ]
    assert main(["index", *words]) == 2
    assert (
        "The dataset 'lab/faces' holds a slash, but is the name of a file; use a plain name"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "m.parquet").exists()
