"""UADFV against a generated copy of its official tree."""

import functools
import json
from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem, Video
from fmsd.data.sources import deepfakebench, uadfv
from fmsd.errors import InputError
from tests.conftest import write_image


def extracted(root: Path, pairs: int = 3) -> Path:
    """A copy with one extracted frame of each video."""
    for pair in range(pairs):
        write_image(root / "real" / "frames" / f"{pair:04d}" / "000.png", pair, 8)
        write_image(root / "fake" / "frames" / f"{pair:04d}_fake" / "000.png", pair, 8)
    return root


def test_all_videos_are_for_testing_unless_told_otherwise(tmp_path: Path) -> None:
    for name in ("real/0000.mp4", "real/0001.mp4", "fake/0000_fake.mp4", "fake/0001_fake.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    entries = list(uadfv.scan(tmp_path, "uadfv"))
    assert entries[0] == Video(
        tmp_path / "real" / "0000.mp4", None, 0, "uadfv", "real", "uadfv/real/0000", "test"
    )
    assert entries[3] == Video(
        tmp_path / "fake" / "0001_fake.mp4",
        None,
        1,
        "uadfv",
        "fake",
        "uadfv/fake/0001_fake",
        "test",
        pair="uadfv/real/0001",
    )
    assert len(entries) == 4
    assert {
        entry.split
        for entry in uadfv.scan(tmp_path, "uadfv", split="train")
        if isinstance(entry, Video)
    } == {"train"}


def test_extracted_frames_make_a_valid_manifest_and_pairs_stay_together(tmp_path: Path) -> None:
    root = extracted(tmp_path, 6)
    assert from_entries(uadfv.scan(root, "uadfv"), root).validate().videos == 12
    held = (
        from_entries(uadfv.scan(root, "uadfv", "train"), root)
        .hold_out(0.5)
        .where(split="val")
        .table
    )
    assert held.height == 6
    assert set(held.filter(label=0)["video"].str.tail(4)) == set(
        held.filter(label=1)["video"].str.strip_suffix("_fake").str.tail(4)
    )


def test_a_half_of_a_pair_is_told(tmp_path: Path) -> None:
    root = extracted(tmp_path)
    write_image(root / "fake" / "frames" / "0007_fake" / "000.png", 0, 8)
    write_image(root / "real" / "frames" / "0008" / "000.png", 0, 8)
    problems = [entry for entry in uadfv.scan(root, "uadfv") if isinstance(entry, Problem)]
    assert [problem.kind for problem in problems] == ["missing", "missing"]
    assert "not its original 0007" in problems[0].what
    assert "not its fake 0008_fake" in problems[1].what


def test_copies_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*data\.root=PATH"):
        list(uadfv.scan(tmp_path / "none", "uadfv"))
    (tmp_path / "real").mkdir()
    with pytest.raises(InputError, match=r"no folder .*fake; complete the copy"):
        list(uadfv.scan(tmp_path, "uadfv"))


def test_deepfakebench_json_wins_where_the_root_holds_it(tmp_path: Path) -> None:
    root = extracted(tmp_path)
    source = functools.partial(
        deepfakebench.scan_json_or_tree,
        file="UADFV.json",
        dataset="uadfv",
        tree=functools.partial(uadfv.scan, dataset="uadfv"),
    )
    assert from_entries(source(root), root).validate().videos == 6
    video = {"label": "UADFV_Real", "frames": ["real/frames/0001/000.png"]}
    listed = {"UADFV_Real": {split: {"0001": video} for split in ("train", "val", "test")}}
    (root / "UADFV.json").write_text(json.dumps({"UADFV": listed}))
    assert from_entries(source(root), root).validate().table.select("video", "split").rows() == [
        ("uadfv/real/0001", "test")
    ]
