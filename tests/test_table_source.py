"""A table of frames or videos as a source."""

from pathlib import Path

import polars as pl
import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame, Video
from fmsd.data.sources import folder, table
from fmsd.errors import InputError
from tests.conftest import SPLITS


def test_a_table_of_frames_is_a_source(tree: Path) -> None:
    source = from_entries(
        folder.scan(tree, "mine", "{split}/{domain}/{video}", SPLITS, ["real"]), tree
    )  # pyright: ignore
    source.table.drop("compression").with_columns(identity=pl.lit("ignored")).write_csv(
        tree / "manifest.csv"
    )
    assert from_entries(table.scan(tree, "manifest.csv"), tree).digest() == source.digest()
    source.table.write_parquet(tree / "frames.parquet")
    assert from_entries(table.scan(tree, "frames.parquet"), tree).digest() == source.digest()


def test_a_table_may_list_videos(tmp_path: Path) -> None:
    header = "path,label,dataset,domain,video,index,split\n"
    (tmp_path / "videos.csv").write_text(
        header + "a.mp4,1,d,swap,d/swap/a,0,test\nb/0.png,0,d,real,d/real/b,0,test\n"
    )
    video, frame = table.scan(tmp_path, "videos.csv")
    assert video == Video(tmp_path / "a.mp4", None, 1, "d", "swap", "d/swap/a", "test")
    assert isinstance(frame, Frame)


def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no table .*data\.source\.file=FILE"):
        list(table.scan(tmp_path, "manifest.csv"))
    (tmp_path / "short.csv").write_text("path,label\na.png,0\n")
    with pytest.raises(InputError, match=r"lacks the columns dataset, domain, video, index, split"):
        list(table.scan(tmp_path, "short.csv"))
    header = "path,label,dataset,domain,video,index,split\n"
    (tmp_path / "words.csv").write_text(header + "a.png,real,d,real,v,0,train\n")
    with pytest.raises(InputError, match=r"values of the wrong kind .*labels are 0 or 1"):
        from_entries(table.scan(tmp_path, "words.csv"), tmp_path)
    (tmp_path / "holes.csv").write_text(header + ",0,d,real,v,0,train\n")
    with pytest.raises(InputError, match=r"has empty cells"):
        list(table.scan(tmp_path, "holes.csv"))
