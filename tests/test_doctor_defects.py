"""The doctor finds each planted defect of a copy, and nothing in a clean one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fmsd.data.audit.files import actual_spellings
from fmsd.data.entries import from_entries
from fmsd.data.manifest import Manifest
from tests.copies import (
    LISTED,
    ONE,
    SPLITS,
    clean_copy,
    cut,
    delete,
    examined,
    module,
    noise,
    rewritten,
    write,
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return clean_copy(tmp_path / "copy")


def shout(root: Path) -> None:
    (root / "train/swap").rename(root / "train/Swap")


def backslash(root: Path) -> None:
    rewritten(
        root,
        lambda rows: rows.with_columns(
            path=pl.when(pl.col("path") == ONE)
            .then(pl.lit(ONE.replace("/", "\\")))
            .otherwise("path")
        ),
    )


def duplicate(other: str) -> Callable[[Path], object]:
    return lambda root: shutil.copy(root / ONE, root / other)


def shorten(root: Path) -> None:
    rewritten(root, lambda rows: rows.filter(pl.col("path") != ONE))


def two_splits(root: Path) -> None:
    rewritten(
        root,
        lambda rows: rows.with_columns(
            split=pl.when(pl.col("path") == ONE).then(pl.lit("test")).otherwise("split")
        ),
    )


def forgers_only(root: Path) -> None:
    rewritten(root, lambda rows: rows.filter((pl.col("split") != "val") | (pl.col("label") == 1)))


DEFECTS: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "missing": (delete, "missing files", "fatal", ONE),
    "case": (shout, "other case or slashes on disk", "fatal", "train/Swap/traina/0.jpg"),
    "slashes": (
        backslash,
        "slashes",
        "warning",
        "frames.csv writes 1 of its paths with backslashes",
    ),
    "empty": (lambda root: (root / ONE).write_bytes(b""), "empty files", "fatal", ONE),
    "cut": (cut, "unreadable files", "fatal", ONE),
    "text": (lambda root: (root / ONE).write_text("<html>"), "unreadable files", "fatal", ONE),
    "small": (
        lambda root: write(root / ONE, noise(99, 16)),
        "images under 32 px",
        "warning",
        f"{ONE} is 16 x 16",
    ),
    "flat": (lambda root: write(root / ONE, noise(99) // 128 + 100), "flat images", "warning", ONE),
    "twice": (
        duplicate("train/swap/trainb/1.jpg"),
        "equal files",
        "warning",
        f"{ONE} = train/swap/trainb/1.jpg",
    ),
    "two splits": (
        duplicate("test/swap/testa/1.jpg"),
        "equal files in two splits",
        "fatal",
        f"test/swap/testa/1.jpg = {ONE}",
    ),
    "two labels": (
        duplicate("train/real/traina/1.jpg"),
        "equal files under two labels",
        "fatal",
        f"train/real/traina/1.jpg = {ONE}",
    ),
    "short": (shorten, "videos with fewer than 2 frames", "warning", "mine/swap/traina has 1"),
    "one video": (two_splits, "refused", "fatal", "lie in more than one split"),
    "one class": (forgers_only, "one class only", "warning", "mine val holds only fake videos"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_found_and_nothing_else(name: str, copy: Path, tmp_path: Path) -> None:
    plant, check, severity, told = DEFECTS[name]
    plant(copy)
    report = examined(module(copy, LISTED), tmp_path)
    assert set(report["findings"]) == {check}
    found = report["findings"][check]
    assert (found["severity"], found["count"] >= 1, bool(found["remedy"])) == (severity, True, True)
    assert told in found["examples"][0]
    assert report["counts"]


def test_a_clean_copy_has_no_findings(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = examined(module(copy, LISTED), tmp_path)
    assert report["findings"] == {}
    assert report["shortcuts"] == []
    assert (report["files"], report["opened"]) == (24, 24)
    assert sorted(
        (part["split"], part["domain"], part["videos"], part["frames"]) for part in report["counts"]
    ) == sorted((split, domain, 2, 4) for split in SPLITS for domain in ("real", "swap"))
    assert "Nothing is wrong with this copy" in capsys.readouterr().out


def test_several_defects_are_all_told_with_every_place(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        (copy / f"val/real/vala/{index}.jpg").write_bytes(b"")
    cut(copy)
    report = examined(module(copy, LISTED), tmp_path)
    assert report["findings"]["empty files"]["examples"] == [
        "val/real/vala/0.jpg",
        "val/real/vala/1.jpg",
    ]
    assert set(report["findings"]) == {"empty files", "unreadable files"}
    assert "2 fatal" in capsys.readouterr().out


def test_no_more_files_are_opened_than_the_limit_and_which_is_always_the_same(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*.jpg"))[:2]
    (copy / second).write_text("no image, and not opened")
    report = examined(module(copy, LISTED), tmp_path, limit=5)
    assert (report["files"], report["opened"], report["findings"]) == (24, 5, {})
    assert "Of 24 files 5 were opened" in capsys.readouterr().out
    (copy / first).write_text("no image; the first is always opened")
    assert (
        examined(module(copy, LISTED), tmp_path, limit=5)["findings"]["unreadable files"]["count"]
        == 1
    )


def test_where_a_missing_file_lies_is_found_folder_by_folder(tmp_path: Path) -> None:
    for name in ("a/B/one.jpg", "a/B/Two.JPG", "c/b/one.jpg"):
        write(tmp_path / name, noise(0))
    (tmp_path / "a/b" / "three.jpg").mkdir(parents=True)
    root = str(tmp_path)
    asked = {
        "A/b/ONE.jpg": "a/B/one.jpg",
        "a/B/two.jpg": "a/B/Two.JPG",
        "a\\B\\one.jpg": "a/B/one.jpg",
        "c/B/one.jpg": "c/b/one.jpg",
        "a/b/three.jpg": None,  # a folder
        "a/B/four.jpg": None,
        "d/e/f/one.jpg": None,
        "c/b/one.jpg/one.jpg": None,
    }
    found = actual_spellings(f"{root}/{name}" for name in asked)
    assert dict(zip(asked, found, strict=True)) == {
        name: place and f"{root}/{place}" for name, place in asked.items()
    }


def test_negative_indices_make_no_video_files(copy: Path, tmp_path: Path) -> None:
    rewritten(copy, lambda rows: rows.with_columns(pl.col("index") - 1))
    report = examined(module(copy, LISTED), tmp_path)
    assert {(part["frames"], part["files"]) for part in report["counts"]} == {(4, 0)}
    assert set(report["findings"]) <= {"refused"}  # a video's frames are counted from 0


@pytest.mark.parametrize("column", ["dataset", "split"])
def test_cells_without_a_value_are_told(column: str, copy: Path, tmp_path: Path) -> None:
    manifest = from_entries(LISTED(copy), copy)
    holes = manifest.table.with_columns(pl.when(pl.col("path") != ONE).then(column).alias(column))
    Manifest(holes, copy).write(tmp_path / "m.parquet")
    report = examined(module(copy, LISTED, manifest=str(tmp_path / "m.parquet")), tmp_path)
    assert "have no value" in report["findings"]["refused"]["examples"][0]
    assert sum(part["frames"] for part in report["counts"]) == 24


def test_slashes_that_a_manifest_writes_otherwise_are_fatal(copy: Path, tmp_path: Path) -> None:
    manifest = from_entries(LISTED(copy), copy)
    written = pl.when(pl.col("path") == ONE).then(pl.lit(ONE.replace("/", "\\"))).otherwise("path")
    Manifest(manifest.table.with_columns(path=written), copy).write(tmp_path / "m.parquet")
    (finding,) = examined(module(copy, LISTED, manifest=str(tmp_path / "m.parquet")), tmp_path)[
        "findings"
    ].values()
    assert (finding["check"], finding["severity"]) == ("other case or slashes on disk", "fatal")
    assert f"copy/{ONE}" in finding["examples"][0]
