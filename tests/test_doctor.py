"""The examination finds what was planted in a copy, and nothing in a clean one."""

import functools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fmsd.cli.main import main
from fmsd.console import track
from fmsd.data.audit import inspect_file
from fmsd.data.audit.files import actual_spellings
from fmsd.data.audit.inspect_file import Job, inspect_all, jpeg_quality
from fmsd.data.audit.table import leak_findings, part_findings, short_findings
from fmsd.data.entries import from_entries
from fmsd.data.manifest import Manifest
from fmsd.data.selected_frames import list_frames
from fmsd.data.selection import Selection
from fmsd.data.sources import ffpp, folder, table
from fmsd.errors import InputError
from fmsd.metrics.shortcuts import categorical_auc, find_shortcuts
from fmsd.tasks.doctor import doctor
from fmsd.tasks.pack import pack
from fmsd.tasks.train import copy_summary
from tests import test_celebdf as celeb_trees
from tests import test_deeperforensics as deeper_trees
from tests import test_dfd as dfd_trees
from tests import test_sources as forensics_trees
from tests import test_wilddeepfake as wild_trees
from tests.films import film

SPLITS = ("train", "val", "test")


def noise(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def write(path: Path, image: np.ndarray, quality: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=quality)
    return path


def module(
    root: Path, source: Callable[..., Any], name: str = "mine", **settings: Any
) -> Selection:
    return Selection(name, str(root), source, train=[], test=[], **settings)


def examined(data: Selection, out: Path, frames: int | None = 2, **settings: Any) -> dict[str, Any]:
    """The report, with its findings by their names."""
    sound = doctor(data, out / "report.json", frames, workers=0, **settings)
    report = json.loads((out / "report.json").read_text())
    findings = {finding["check"]: finding for finding in report["findings"]}
    assert (
        sound
        == all(finding["severity"] != "fatal" for finding in findings.values())
        == (not report["fatal"])
    )
    return report | {"findings": findings}


TREE = functools.partial(
    folder.scan,
    dataset="mine",
    layout="{split}/{domain}/{video}",
    splits={split: split for split in SPLITS},
    real=["real"],
)  # pyright: ignore[reportArgumentType]
LISTED = functools.partial(table.scan, file="frames.csv")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Two videos of two frames in every split and domain, and a table that lists them."""
    root, seed = tmp_path / "copy", 0
    for split in SPLITS:
        for domain in ("real", "swap"):
            for video in ("a", "b"):
                for index in range(2):
                    write(
                        root / split / domain / f"{split}{video}" / f"{index}.jpg",
                        noise(seed := seed + 1),
                    )
    from_entries(TREE(root), root).table.write_csv(root / "frames.csv")
    return root


def rewritten(root: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    change(pl.read_csv(root / "frames.csv", schema_overrides={"compression": pl.String})).write_csv(
        root / "frames.csv"
    )


ONE = "train/swap/traina/0.jpg"


def delete(root: Path) -> None:
    (root / ONE).unlink()


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


def cut(root: Path) -> None:
    content = (root / ONE).read_bytes()
    (root / ONE).write_bytes(content[: len(content) // 2])


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


def test_only_the_datasets_that_the_data_names_are_examined(copy: Path, tmp_path: Path) -> None:
    rewritten(
        copy,
        lambda rows: rows.with_columns(
            dataset=pl.when(pl.col("split") == "test")
            .then(pl.lit("other"))
            .otherwise(pl.lit("mine"))
        ),
    )
    (copy / "test/real/testa/0.jpg").unlink()
    data = module(copy, LISTED)
    assert set(examined(data, tmp_path)["findings"]) == {"missing files"}
    data = replace(data, test=["mine"])
    assert examined(data, tmp_path)["findings"] == {}
    data = replace(data, train=["mien"])
    report = examined(data, tmp_path)
    assert {
        check: (one["severity"], one["examples"]) for check, one in report["findings"].items()
    } == {"for testing only": ("note", [f"{copy} holds mine, other, not mien of data.train"])}
    data = replace(data, test=["mien", "celebdf_v2"], others={"celebdf_v2": TREE})
    refused = examined(data, tmp_path)["findings"]["refused"]
    assert refused["examples"] == [f"{copy} holds mine, other, not mien"]
    assert (
        refused["remedy"]
        == "correct data.root, or name what it holds in data.train=[...] and data.test=[...]"
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


# ---- copies as they are distributed


COPIES: dict[str, Callable[[Path], object]] = {
    "ff++": forensics_trees.ffpp_tree,
    "celebdf_v2": lambda root: celeb_trees.copy(
        root, celeb_trees.V2, celeb_trees.V2_TESTED, videos=False
    ),
    "dfd": lambda root: dfd_trees.extract(dfd_trees.tree(root)),
    "deeperforensics": lambda root: deeper_trees.real_tree(deeper_trees.tree(root)),
    "wilddeepfake": wild_trees.tree,
}


@pytest.mark.parametrize("name", COPIES)
def test_nothing_is_fatal_in_a_clean_copy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    COPIES[name](root)
    for archive in root.rglob("*.tar.gz"):
        archive.unlink()
    for file in root.rglob("*.mp4"):
        file.unlink()
    for number, image in enumerate(sorted(root.rglob("*.png"))):
        Image.fromarray(noise(number)).save(image)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fmsd"])
    monkeypatch.delenv("FMSD_FFPP", raising=False)
    assert (
        main(["doctor", f"data={name}", f"data.root={root}", "workers=0", "out=report.json"]) == 0
    )
    report = json.loads((tmp_path / "report.json").read_text())
    found = {finding["check"]: finding for finding in report["findings"]}
    assert report["opened"] == report["files"] > 0
    shared = [
        example.partition(" ")[0]
        for example in found.get("person in several splits", {"examples": []})["examples"]
    ]
    assert shared == {"celebdf_v2": ["id0", "id1"], "deeperforensics": ["953"]}.get(name, [])


# ---- what the source says


def test_a_copy_that_its_source_refuses_is_examined_as_far_as_it_was_read(
    copy: Path, tmp_path: Path
) -> None:
    write(copy / "zoo" / "real" / "lion" / "0.jpg", noise(0))
    (copy / ONE).write_bytes(b"")
    report = examined(module(copy, TREE), tmp_path)
    assert set(report["findings"]) == {"refused", "empty files"}
    assert "is in no known split" in report["findings"]["refused"]["examples"][0]
    assert report["findings"]["refused"]["remedy"].startswith("add it with")
    nothing = examined(module(tmp_path / "none", TREE), tmp_path)
    assert set(nothing["findings"]) == {"refused"}
    assert nothing["counts"] == []
    with pytest.raises(InputError, match="has no root"):
        doctor(Selection("mine", None, TREE, [], []), tmp_path / "report.json")


def forensics(root: Path) -> Path:
    """FaceForensics++ of three pairs, a split each."""
    for place, (one, other) in enumerate((("000", "001"), ("002", "003"), ("004", "005"))):
        (root / "splits").mkdir(parents=True, exist_ok=True)
        (root / "splits" / f"{SPLITS[place]}.json").write_text(json.dumps([[one, other]]))
        for number, name in enumerate((one, other, f"{one}_{other}", f"{other}_{one}")):
            home = (
                "manipulated_sequences/Deepfakes" if "_" in name else "original_sequences/youtube"
            )
            for index in range(2):
                write(
                    root / home / "c23" / "frames" / name / f"{index}.png",
                    noise(100 * place + 10 * number + index),
                )
    return root


FFPP = functools.partial(ffpp.scan, manipulations=["Deepfakes"])
WHOLE = {split: {"real": 2, "Deepfakes": 2} for split in SPLITS}


def test_what_the_source_says_and_whole_copies_are_compared(tmp_path: Path) -> None:
    root = forensics(tmp_path / "ff")
    assert (
        examined(module(root, FFPP, "ff++", expected=WHOLE, names="sources"), tmp_path)["findings"]
        == {}
    )
    frames = root / "manipulated_sequences/Deepfakes/c23/frames"
    shutil.rmtree(frames / "000_001")
    (frames / "004_005").rename(frames / "777")
    report = examined(module(root, FFPP, "ff++", expected=WHOLE, names="sources"), tmp_path)
    assert {
        check: finding["severity"] for check, finding in report["findings"].items()
    } == dict.fromkeys(("missing", "unlisted", "fewer videos than a whole copy"), "warning")
    assert "lists 000_001" in " ".join(report["findings"]["missing"]["examples"])
    assert report["findings"]["missing"]["remedy"] == "complete the copy"
    assert report["findings"]["fewer videos than a whole copy"]["examples"] == [
        "Deepfakes train 1 of 2",
        "Deepfakes test 1 of 2",
    ]
    shutil.rmtree(frames / "002_003")
    shutil.rmtree(frames / "003_002")
    report = examined(module(root, FFPP, "ff++", expected=WHOLE, names="sources"), tmp_path)
    absent = report["findings"]["parts without a video"]
    assert (absent["severity"], absent["examples"]) == ("fatal", ["Deepfakes val 0 of 2"])


def test_a_domain_whose_name_is_part_of_a_path_is_not_taken_for_missing(tmp_path: Path) -> None:
    root = forensics(tmp_path / "ff")
    shutil.rmtree(root / "original_sequences/youtube/c23/frames/000")
    whole = {"train": {"real": 2, "Deepfakes": 2, "youtube": 5, "a": 5}}
    findings = examined(module(root, FFPP, "ff++", expected=whole), tmp_path)["findings"]
    assert "/youtube/" in findings["missing"]["examples"][0]
    left_out = findings["domains that are not there"]
    assert (left_out["severity"], left_out["examples"]) == (
        "note",
        ["youtube train 0 of 5", "a train 0 of 5"],
    )
    assert "parts without a video" not in findings


def test_folders_without_frames_are_left_out_and_told(tmp_path: Path) -> None:
    root = forensics(tmp_path / "ff")
    for image in (root / "original_sequences/youtube/c23/frames/000").iterdir():
        image.unlink()
    report = examined(module(root, FFPP), tmp_path)
    assert set(report["findings"]) == {"folders without frames"}
    found = report["findings"]["folders without frames"]
    assert (found["severity"], found["count"]) == ("warning", 1)
    assert found["examples"][0].endswith(
        "original_sequences/youtube/c23/frames/000 holds no frames"
    )


def test_slashes_that_a_manifest_writes_otherwise_are_fatal(copy: Path, tmp_path: Path) -> None:
    manifest = from_entries(LISTED(copy), copy)
    written = pl.when(pl.col("path") == ONE).then(pl.lit(ONE.replace("/", "\\"))).otherwise("path")
    Manifest(manifest.table.with_columns(path=written), copy).write(tmp_path / "m.parquet")
    (finding,) = examined(module(copy, LISTED, manifest=str(tmp_path / "m.parquet")), tmp_path)[
        "findings"
    ].values()
    assert (finding["check"], finding["severity"]) == ("other case or slashes on disk", "fatal")
    assert f"copy/{ONE}" in finding["examples"][0]


# ---- tables of videos


def named(*videos: tuple[str, str, str]) -> pl.DataFrame:
    """A table of videos from (split, domain, name)."""
    rows = [
        (f"set/{domain}/{name}", int(domain != "real"), "set", domain, split, 8)
        for split, domain, name in videos
    ]
    return pl.DataFrame(
        rows, schema=["video", "label", "dataset", "domain", "split", "frames"], orient="row"
    )


def checks(findings: Sequence[Any]) -> dict[str, tuple[str, list[str]]]:
    return {finding.check: (finding.severity, finding.examples) for finding in findings}


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


def test_only_the_dataset_of_the_data_is_compared_with_its_whole_copy(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(
        copy,
        lambda rows: rows.with_columns(
            dataset=pl.when(pl.col("split") == "test")
            .then(pl.lit("other"))
            .otherwise(pl.lit("mine"))
        ),
    )
    data = module(
        copy, LISTED, expected={"train": {"real": 2, "swap": 2}, "all": {"real": 4, "swap": 9}}
    )
    report = examined(data, tmp_path)
    assert {check: one["examples"] for check, one in report["findings"].items()} == {
        "fewer videos than a whole copy": ["swap 4 of 9"]
    }
    rows = {
        (part["dataset"], part["split"], part["domain"]): (part["videos"], part["whole"])
        for part in report["counts"]
    }
    assert rows == {
        **{("mine", "train", domain): (2, 2) for domain in ("real", "swap")},
        **{("mine", "val", domain): (2, None) for domain in ("real", "swap")},
        **{("other", "test", domain): (2, None) for domain in ("real", "swap")},
        ("mine", "all", "real"): (4, 4),
        ("mine", "all", "swap"): (4, 9),
    }
    assert "of a whole copy" in capsys.readouterr().out
    data = replace(data, train=["mine"], test=["other"])
    assert (
        copy_summary(data, list_frames(data))
        == "Data: 1 warning (fewer videos than a whole copy: swap 4 of 9); fmsd doctor data=mine "
        "tells more."
    )
    data = replace(data, train=["other"])
    assert copy_summary(data, list_frames(data)) is None


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
        "fmsd doctor data=mine tells more."
    )


# ---- shortcuts


def portraits(root: Path, quality: Callable[[int], int], count: int = 12) -> Path:
    """Lone images of a test split, written with a quality that may depend on their label."""
    for label, domain in enumerate(("real", "gan")):
        for number in range(count):
            write(
                root / "test" / domain / f"{number:04d}.jpg",
                noise(1000 * label + number),
                quality(label),
            )
    return root


def test_a_quality_that_differs_by_label_is_found_and_named(tmp_path: Path) -> None:
    report = examined(
        module(portraits(tmp_path / "x", lambda label: 50 if label else 95), TREE), tmp_path
    )
    assert set(report["findings"]) == {"strong shortcuts"}
    found = {one["property"]: one for one in report["shortcuts"]}
    worst = found["JPEG quality"]
    assert (worst["auc"], worst["says"], worst["split"], worst["videos"]) == (
        1.0,
        "fakes have a lower JPEG quality",
        "test",
        24,
    )
    assert found["file size"]["says"] == "fakes have smaller files"
    assert not {"width", "height", "aspect", "frames", "file type", "chroma subsampling"} & set(
        found
    )


def test_balanced_data_offers_no_shortcut(tmp_path: Path) -> None:
    assert (
        examined(module(portraits(tmp_path / "x", lambda label: 80), TREE), tmp_path)["findings"]
        == {}
    )


def test_file_types_are_told(tmp_path: Path) -> None:
    root = portraits(tmp_path / "x", lambda label: 90)
    for path in (root / "test" / "gan").iterdir():
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    found = {one["property"]: one for one in examined(module(root, TREE), tmp_path)["shortcuts"]}
    assert (found["file type"]["says"], found["file type"]["auc"]) == (
        "fakes are more often PNG",
        1.0,
    )
    assert "JPEG quality" not in found  # only reals have one


def test_the_auc_of_a_property_is_that_of_all_pairs_of_videos() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200)
    value = rng.integers(0, 6, 200) - 3 * label
    kind = np.where(rng.random(200) < 0.2 + 0.6 * label, "png", "jpg")
    videos = pl.DataFrame(
        {
            "dataset": "d",
            "split": "test",
            "label": label,
            "width": value,
            "sharpness": rng.random(200),
            "file type": kind,
        }
    )

    def pairs(score: np.ndarray) -> float:
        fake, real = score[label == 1][:, None], score[label == 0][None]
        return float((fake > real).mean() + (fake == real).mean() / 2)

    found = {one.property: one for one in find_shortcuts(videos)}
    assert set(found) == {"width", "file type"}
    assert found["width"].auc == pytest.approx(1 - pairs(value))
    assert found["width"].direction == "fakes are narrower"
    assert (
        find_shortcuts(
            videos.with_columns(width=pl.lit(3), sharpness=pl.lit(0.5)).drop("file type")
        )
        == []
    )
    few = videos.head(6)
    assert find_shortcuts(few.with_columns(width="label")) == []  # six videos prove nothing


def test_the_auc_of_a_word_is_that_of_pairs_that_are_left_out_one_by_one() -> None:
    rng = np.random.default_rng(1)
    label, word = rng.integers(0, 2, 40), rng.integers(0, 9, 40)

    def share(one: int, *left_out: int) -> float:
        rest = np.delete(np.arange(40), left_out)
        alike = rest[word[rest] == word[one]]
        return float(label[alike if len(alike) else rest].mean())

    wins = [
        0.5
        if word[fake] == word[real]
        else (1 + np.sign(share(fake, fake, real) - share(real, fake, real))) / 2
        for fake in np.flatnonzero(label == 1).tolist()
        for real in np.flatnonzero(label == 0).tolist()
    ]
    assert categorical_auc(pl.DataFrame({"label": label, "value": word})) == pytest.approx(
        np.mean(wins)
    )
    assert categorical_auc(pl.DataFrame({"label": label, "value": "png"})) == 0.5
    assert categorical_auc(pl.DataFrame({"label": label, "value": label})) == 1.0
    assert categorical_auc(pl.DataFrame({"label": [0, 1], "value": ["a", "b"]})) == 0.5


@pytest.mark.parametrize("kinds", [1, 2, 5, 60, 100])
def test_words_at_random_are_no_shortcut_and_those_that_follow_the_label_are_one(
    kinds: int,
) -> None:
    rng = np.random.default_rng(kinds)
    videos = pl.DataFrame({"dataset": "d", "split": "test", "label": np.repeat([0, 1], 50)})
    areas = []
    for _ in range(100):
        word = rng.integers(0, kinds, 100)
        chance = videos.with_columns(pl.Series("file type", word.astype(str)))
        areas.append(categorical_auc(chance.select("label", value="file type")))
        assert [one for one in find_shortcuts(chance) if one.auc >= 0.8] == []
    assert np.mean(areas) == pytest.approx(0.5, abs=0.04)
    told = videos.with_columns(
        pl.Series(
            "file type",
            [
                f"{label} {number % max(kinds // 5, 1)}"
                for number, label in enumerate(videos["label"])
            ],
        )
    )
    (found,) = find_shortcuts(told)
    assert found.auc == 1.0


@pytest.mark.parametrize("quality", [1, 5, 20, 50, 75, 90, 95, 100])
def test_the_jpeg_quality_is_read_from_the_tables(quality: int, tmp_path: Path) -> None:
    with Image.open(write(tmp_path / "x.jpg", noise(0), quality)) as stored:
        assert jpeg_quality(stored.quantization[0]) == quality  # pyright: ignore[reportAttributeAccessIssue]


def test_processes_see_what_one_sees(copy: Path) -> None:
    cut(copy)
    jobs = [
        Job(str(path), path.stat().st_size, True, False) for path in sorted(copy.rglob("*.jpg"))
    ]
    assert list(inspect_all(jobs, 2)) == list(inspect_all(jobs, 0))
    assert list(track(inspect_all(jobs, 0), "Opening", len(jobs), "files")) == list(
        inspect_all(jobs, 0)
    )


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a process begins without the test's crashing decoder"
)
@pytest.mark.parametrize("crashing", [(0,), (3, 17), (22, 23), tuple(range(24))])
def test_a_file_that_kills_its_reader_is_told_and_the_others_are_read(
    crashing: tuple[int, ...], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = sorted(str(path) for path in copy.rglob("*.jpg"))
    jobs = [Job(place, 1, False, False) for place in places]
    whole = list(inspect_all(jobs, 0))
    deadly = {places[number] for number in crashing}

    def decode(data: bytes, name: str | Path) -> np.ndarray:
        if name in deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return decoded(data, name)

    decoded = inspect_file.decode
    monkeypatch.setattr(inspect_file, "decode", decode)
    found = list(inspect_all(jobs, 2))
    assert [number for number, seen in enumerate(found) if seen.error] == list(crashing)
    assert {seen.error for seen in found if seen.error} == {
        "the decoder crashed on it, or memory ran out"
    }
    assert [seen for seen in found if not seen.error] == [
        seen for number, seen in enumerate(whole) if number not in crashing
    ]


# ---- video files and packs


def reel(root: Path) -> Path:
    """Trees of video files: three real and three fake ones."""
    for number in range(6):
        film(
            root / "test" / ("swap" if number % 2 else "real") / f"v{number}.mp4",
            [noise(10 * number + index, 64) for index in range(12)],
        )
    return root


def test_video_files_are_examined_as_they_are(tmp_path: Path) -> None:
    root = reel(tmp_path / "films")
    report = examined(module(root, TREE), tmp_path, frames=12)
    assert report["findings"] == {}
    assert {
        (part["domain"], part["videos"], part["frames"], part["files"]) for part in report["counts"]
    } == {("real", 3, 0, 3), ("swap", 3, 0, 3)}
    content = (root / "test/real/v0.mp4").read_bytes()
    (root / "test/real/v0.mp4").write_bytes(content[: len(content) // 2])
    (root / "test/swap/v1.mp4").write_bytes(b"")
    shutil.copy(root / "test/swap/v3.mp4", root / "test/real/v2.mp4")
    film(root / "test/real/v4.mp4", [noise(index, 64) for index in range(5)])
    found = {
        check: (one["severity"], one["examples"])
        for check, one in examined(module(root, TREE), tmp_path, frames=12)["findings"].items()
    }
    assert found.pop("unreadable files")[1][0].startswith("The video test/real/v0.mp4 ends after")
    assert found == {
        "empty files": ("fatal", ["test/swap/v1.mp4"]),
        "equal files under two labels": ("fatal", ["test/real/v2.mp4 = test/swap/v3.mp4"]),
        "videos with fewer than 12 frames": ("warning", ["mine/real/v4 has 5"]),
    }


def test_both_the_frames_and_the_file_of_a_video_are_examined(tmp_path: Path) -> None:
    root = forensics(tmp_path / "ff")
    videos = root / "original_sequences/youtube/c23/videos"
    for name in ("000", "001", "002", "003", "004", "005"):
        film(videos / f"{name}.mp4", [noise(int(name) + index, 64) for index in range(4)])
    report = examined(module(root, FFPP), tmp_path)
    assert report["findings"] == {}
    assert (report["files"], report["opened"]) == (30, 30)
    (videos / "003.mp4").write_bytes(b"no video")
    assert set(examined(module(root, FFPP), tmp_path)["findings"]) == {"unreadable files"}


def test_a_packed_copy_is_examined_in_its_tars(copy: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack(module(copy, LISTED), packed, "1G")
    report = examined(module(packed, LISTED), tmp_path)
    assert (report["findings"], report["opened"]) == ({}, 24)
    tar = next(packed.glob("*.tar"))
    with tar.open("r+b") as file:
        file.truncate(tar.stat().st_size // 2)
    assert set(examined(module(packed, LISTED), tmp_path)["findings"]) == {"unreadable files"}
    tar.unlink()
    assert examined(module(packed, LISTED), tmp_path)["findings"]["missing files"]["count"] == 24
    (packed / "pack.parquet").unlink()
    assert set(examined(module(packed, LISTED), tmp_path)["findings"]) == {"refused"}


# ---- the command


def test_exit_codes_of_the_command(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fmsd"])
    ask = ["doctor", "data=folder", f"data.root={copy}", "frames=2"]
    assert main(ask) == 0
    report = json.loads((tmp_path / "doctor" / "folder.json").read_text())
    assert (report["fatal"], report["findings"], report["files"]) == (0, [], 24)
    (copy / ONE).write_bytes(b"")
    assert main([*ask, "out=mine.json", "workers=2"]) == 1
    assert json.loads((tmp_path / "mine.json").read_text())["findings"][0]["examples"] == [ONE]
    told = capfd.readouterr()
    assert "empty files" in told.out
    assert "Traceback" not in told.err
    (tmp_path / "notes.json").write_text("{}")
    for wrong, words in (
        ("out=report.txt", "out=FILE.json"),
        ("out=notes.json", "would be lost"),
        ("limit=0", "at least 1"),
        ("workers=-1", "workers"),
    ):
        assert main([*ask, wrong]) == 2
        assert words in capfd.readouterr().err


# ---- real faces


def test_the_known_shortcuts_of_real_faces_are_found(real_data: Path, tmp_path: Path) -> None:
    data = module(real_data / "faces", functools.partial(table.scan, file="manifest.csv"))
    data = replace(data, test=["progan", "inpaint"])
    report = examined(data, tmp_path, frames=None)
    assert report["fatal"] == 0
    assert report["opened"] == 1200
    found = {one["property"]: one["says"] for one in report["shortcuts"]}
    assert {one["dataset"] for one in report["shortcuts"]} == {"progan"}
    assert {
        "saturation": "fakes are more colourful",
        "file size": "fakes have larger files",
        "sharpness": "fakes are sharper",
    }.items() <= found.items()


def test_a_manifest_is_examined_in_place_of_a_scan(copy: Path, tmp_path: Path) -> None:
    Manifest(from_entries(LISTED(copy), copy).table, copy).write(tmp_path / "m.parquet")
    delete(copy)
    report = examined(module(copy, TREE, manifest=str(tmp_path / "m.parquet")), tmp_path)
    assert report["findings"]["missing files"]["examples"] == [ONE]
