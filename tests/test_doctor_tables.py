"""Findings from the table of videos: leaks between splits, missing parts, short videos."""

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from fmsd.data.audit.copy import without_films
from fmsd.data.audit.display import show_counts
from fmsd.data.audit.table import count_videos, leak_findings, part_findings, short_findings
from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.selected_frames import list_frames
from fmsd.data.sources import ffpp
from fmsd.errors import InputError
from fmsd.tasks.train import copy_summary
from tests.copies import LISTED, TREE, checks, clean_copy, module
from tests.test_ffpp import ffpp_tree


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return clean_copy(tmp_path / "copy")


def named(*videos: tuple[str, str, str]) -> pl.DataFrame:
    """A table of videos from (split, domain, name)."""
    rows = [
        (f"set/{domain}/{name}", int(domain != "real"), "set", domain, split, 8)
        for split, domain, name in videos
    ]
    return pl.DataFrame(
        rows, schema=["video", "label", "dataset", "domain", "split", "frames"], orient="row"
    )


def test_a_source_video_on_both_sides_of_a_split_is_fatal() -> None:
    clean = [
        ("train", "real", "033"),
        ("train", "real", "097"),
        ("train", "swap", "033_097"),
        ("test", "real", "000"),
    ]
    assert leak_findings(named(*clean), "sources") == []
    for name in ("033_000", "000_033"):
        found = checks(leak_findings(named(*clean, ("train", "swap", name)), "sources"))
        told = f"000 is in test: set/real/000; train: set/swap/{name}"
        assert found == {"source video in several splits": ("fatal", [told])}
    pairs = [("train", "real", "0007"), ("test", "fake", "0007_fake")]
    assert set(checks(leak_findings(named(*pairs), "sources"))) == {
        "source video in several splits"
    }
    fakes = [
        ("train", "swap", "033_097"),
        ("test", "swap", "097_004"),
        ("test", "puppet", "097_004"),
    ]
    assert checks(leak_findings(named(*fakes), "sources")) == {
        "source video in several splits": (
            "fatal",
            ["097 is in test: set/puppet/097_004 and 1 more; train: set/swap/033_097"],
        )
    }


def test_persons_on_both_sides_are_a_warning() -> None:
    celeb = [
        ("train", "real", "id0_0003"),
        ("train", "fake", "id1_id7_0000"),
        ("test", "fake", "id2_id0_0001"),
        ("test", "real", "id9_0003"),
    ]
    shared = "id0 is in test: set/fake/id2_id0_0001; train: set/real/id0_0003"
    assert checks(leak_findings(named(*celeb), "persons")) == {
        "person in several splits": ("warning", [shared])
    }
    dfd = [("train", "real", "01__exit"), ("test", "fake", "02_01__exit__X")]
    (told,) = checks(leak_findings(named(*dfd), "persons"))["person in several splits"][1]
    assert told == "01 is in test: set/fake/02_01__exit__X; train: set/real/01__exit"
    assert (
        leak_findings(
            pl.concat([named(celeb[0]), named(celeb[2]).with_columns(dataset=pl.lit("another"))]),
            "persons",
        )
        == []
    )
    plain = [("train", "swap", "frame_1"), ("test", "real", "frame_2"), ("val", "real", "a/1.jpg")]
    for names in ("persons", "sources"):
        assert leak_findings(named(*plain), names) == []
    for videos in (celeb, dfd, [("train", "real", "033"), ("test", "swap", "033_097")]):
        assert leak_findings(named(*videos), None) == []
    with pytest.raises(InputError, match=r"data\.names=people is unknown"):
        module(Path(), TREE, names="people")


def test_parts_are_compared_with_a_whole_copy() -> None:
    held = named(
        ("train", "real", "a"),
        ("train", "swap", "b"),
        ("train", "swap", "c"),
        ("test", "real", "d"),
    )
    whole = {"train": {"real": 1, "swap": 2}, "test": {"real": 1}, "all": {"real": 2, "swap": 2}}
    assert part_findings(held, whole) == []
    assert checks(part_findings(held, {"all": {"real": 3, "swap": 1}})) == {
        "fewer videos than a whole copy": ("warning", ["real 2 of 3"]),
        "more videos than a whole copy": ("warning", ["swap 2 of 1"]),
    }
    assert checks(part_findings(held, {"test": {"real": 1, "swap": 5}})) == {
        "parts without a video": ("fatal", ["swap test 0 of 5"])
    }
    left_out, absent = ("domains that are not there", "note"), ("parts without a video", "fatal")
    for missing, (check, severity) in (
        ((), left_out),
        (("swap",), left_out),
        (("puppet",), absent),
    ):
        found = part_findings(held, {"train": {"real": 1, "swap": 2, "puppet": 5}}, missing)
        assert checks(found) == {check: (severity, ["puppet train 0 of 5"])}


def test_forgeries_of_other_names_are_compared_together() -> None:
    held = named(
        ("train", "real", "a"), ("train", "CelebDFv2_fake", "b"), ("train", "CelebDFv2_fake", "c")
    )
    assert part_findings(held, {"all": {"real": 1, "Celeb-synthesis": 2}}) == []
    assert part_findings(held, {"all": {"real": 1}}) == []
    found = part_findings(held, {"all": {"real": 1, "one": 2, "two": 2}})
    assert checks(found) == {"fewer videos than a whole copy": ("warning", ["fake 2 of 4"])}
    some = part_findings(
        held, {"all": {"CelebDFv2_fake": 3, "two": 2}}
    )  # one known name is enough to compare by name
    assert {check: examples for check, (_, examples) in checks(some).items()} == {
        "fewer videos than a whole copy": ["CelebDFv2_fake 2 of 3"],
        "domains that are not there": ["two 0 of 2"],
    }


def test_training_videos_are_short_where_they_lack_frames_to_train_on(copy: Path) -> None:
    def told(**numbers: int | None) -> str | None:
        data = module(copy, LISTED, **numbers)
        data = replace(data, train=["mine"])
        return copy_summary(data, list_frames(data))

    assert told(frames=2, train_frames=1) is None
    assert told(frames=None, train_frames=2) is None
    assert "videos with fewer than 3 frames: mine/real/traina has 2" in str(
        told(frames=2, train_frames=3)
    )
    assert "videos with fewer than 3 frames: mine/real/testa has 2" in str(
        told(frames=3, train_frames=2)
    )


def test_lone_images_are_no_short_videos() -> None:
    held = named(("train", "real", "a"), ("train", "swap", "b"))
    assert short_findings(held.with_columns(frames=pl.lit(1)), 32) == []
    assert short_findings(held, 8) == []
    assert checks(short_findings(held, 9)) == {
        "videos with fewer than 9 frames": ("warning", ["set/real/a has 8", "set/swap/b has 8"])
    }


def test_training_says_in_a_line_what_the_table_tells(copy: Path) -> None:
    data = module(copy, LISTED, frames=2)
    assert copy_summary(data, list_frames(data)) is None
    data = module(copy, LISTED, frames=3, expected={"train": {"real": 720, "swap": 2, "puppet": 7}})
    data = replace(data, train=["mine"])
    assert copy_summary(data, list_frames(data)) == (
        "Data: 2 warnings (fewer videos than a whole copy: real train 2 of 720; videos with fewer "
        "than 3 frames: mine/real/testa has 2, ...); "
        "run fmsd doctor data=mine for details."
    )


def test_fakes_whose_real_video_is_in_their_split_are_counted(tmp_path: Path) -> None:
    root = ffpp_tree(tmp_path)
    for name in ("071", "720"):
        shutil.rmtree(root / "original_sequences/youtube/c23/images" / name)
    shutil.rmtree(root / "manipulated_sequences/FaceSwap/c23/images/953_974")
    entries = (entry for entry in ffpp.scan(root) if not isinstance(entry, Problem))
    manifest = without_films(from_entries(entries, root))
    counts = count_videos(manifest, "ff++", {"all": {"FaceSwap": 6}})
    table = counts.filter(domain="FaceSwap").select("split", "videos", "paired")
    assert table.rows() == [("train", 2, 1), ("val", 2, 1), ("test", 1, 1), ("all", 5, 3)]
    assert counts.filter(domain="real")["paired"].count() == 0
    away = (pl.col("domain") == "real") & (pl.col("split") == "train")
    split = pl.when(away).then(pl.lit("test")).otherwise(pl.col("split"))
    moved = replace(manifest, table=manifest.table.with_columns(split=split))
    counts = count_videos(moved, "ff++", {"all": {"FaceSwap": 6}}).filter(domain="FaceSwap")
    assert dict(counts.select("split", "paired").rows()) == {
        "train": 0, "val": 1, "test": 1, "all": 2,
    }  # fmt: skip


def test_without_pairs_no_column_counts_them(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = count_videos(without_films(from_entries(TREE(copy), copy)), "mine", {})
    assert listed["paired"].null_count() == listed.height
    show_counts(copy, listed)
    assert "with real video" not in capsys.readouterr().out
    show_counts(copy, listed.with_columns(paired=pl.lit(0)))
    assert "with real video" in capsys.readouterr().out
