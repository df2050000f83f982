"""A file is read once to compare it, as long as it stays the same; the cache is never trusted."""

import os
from pathlib import Path

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data import content_files
from fmsd.data.content_cache import cache_file
from fmsd.data.content_files import read_contents
from fmsd.data.overlap import shared_frames
from fmsd.runs.folder import Run
from tests.test_overlap import SMALL, copied, evaluate, packed, reads, scanned


def of_yesterday(folder: Path) -> None:
    """Sets the time of every file back: one that was just written may still change unseen."""
    for file in folder.rglob("*.*"):
        yesterday = file.stat().st_mtime - 86_400
        os.utime(file, (yesterday, yesterday))


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that are read, with a cache for any number of files."""
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content_files, "LEAST", 1)
    return reads(monkeypatch)


@pytest.mark.parametrize("packed_too", [False, True])
def test_a_file_is_read_once_until_it_changes(
    packed_too: bool, tree: Path, tmp_path: Path, seen: list[str]
) -> None:
    source, root = tree / "train", tmp_path / "root"
    (packed if packed_too else copied)(source, root)
    of_yesterday(root)
    frames = scanned(root)
    first = read_contents(frames)
    assert len(seen) == first.height == 8
    assert read_contents(frames).equals(first)
    assert shared_frames(frames, first).height == 8
    assert len(seen) == 8
    one = next(root.rglob("*.tar" if packed_too else "*.png"))
    data = one.read_bytes()
    one.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # same size, another time
    again = read_contents(frames)
    touched = sum(place.startswith(str(one)) for place in frames.files())  # members of one tar
    assert len(seen) == 8 + touched < 16
    changed = first.join(again, on=["path", "size", "content"], how="anti").height
    assert changed == (0 if packed_too else 1)  # the last byte of a tar is of no member
    read_contents(frames)  # what was just written may change again within its time
    assert len(seen) == 8 + 2 * touched


def test_a_damaged_or_unwritable_cache_costs_reading_alone(
    tree: Path,
    tmp_path: Path,
    seen: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    of_yesterday(tree)
    frames = scanned(tree / "train")
    first = read_contents(frames)
    cache = cache_file(tree / "train")
    whole = cache.read_bytes()
    for damaged in (b"damaged", whole[:-9], b""):
        cache.write_bytes(damaged)
        seen.clear()
        assert read_contents(frames).equals(first)
        assert len(seen) == 8
        assert f"{cache} " in caplog.text
        caplog.clear()
        assert pl.read_parquet(cache).height == 8
    stored = pl.read_parquet(cache)
    stored.with_columns(pl.col("content") ^ 1).write_parquet(cache)  # as by flipped bits
    assert read_contents(frames).equals(first)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert read_contents(frames).equals(first)
    assert caplog.text.count("set FMSD_CACHE to a folder that can be written") == 1


def test_a_second_run_and_an_evaluation_read_no_file_again(
    tree: Path, tmp_path: Path, seen: list[str]
) -> None:
    of_yesterday(tree)
    command = ["train", "data=folder", f"data.root={tree}", *SMALL]
    assert main([*command, f"hydra.run.dir={tmp_path / 'one'}"]) == 0
    assert len(seen) == len(set(seen)) >= 16
    count = len(seen)
    assert main([*command, "seed=1", f"hydra.run.dir={tmp_path / 'two'}"]) == 0
    assert evaluate(tmp_path / "one", tree, "1") == 0
    assert len(seen) == count
    tables = [Run(tmp_path / name).folder / "training.parquet" for name in ("one", "two")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
