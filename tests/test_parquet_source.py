"""Parquet files with images inside: declared labels, contradictions, unpacking."""

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fmsd.cli.main import main
from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.loading.image import read_image
from fmsd.data.manifest import Manifest, read_manifest
from fmsd.data.sources import parquet
from fmsd.errors import InputError

VIDEOS = (
    ("original", "953"),
    ("Deepfakes", "953_974"),
    ("original", "071"),
    ("FaceSwap", "071_054"),
)
COLUMNS = {
    "image": "image",
    "label": "label",
    "forgery": "category",
    "video": "video_id",
    "index": "frame_number",
    "word": "label_text",
}


def encoded(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), kind)
    return buffer.getvalue()


def published(path: Path, names: list[str] | None = None, **columns: Any) -> Path:
    """FaceForensics++ as it is published by some: 1 is real, two frames of each video."""
    rows = [(*video, frame) for video in VIDEOS for frame in (0, 1)]
    kinds = ("PNG", "JPEG", "WEBP")
    table = {
        "image": [
            {"bytes": encoded(n, kinds[n % 3]), "path": f"{n}.png"} for n in range(len(rows))
        ],
        "label": [int(category == "original") for category, _, _ in rows],
        "category": [category for category, _, _ in rows],
        "video_id": [video for _, video, _ in rows],
        "frame_number": [frame for _, _, frame in rows],
        "label_text": ["REAL" if category == "original" else "FAKE" for category, _, _ in rows],
    } | columns
    path.parent.mkdir(parents=True, exist_ok=True)
    if names is None:
        pl.DataFrame(table).write_parquet(path)
    else:
        about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        pl.DataFrame(table).write_parquet(path, metadata={"huggingface": json.dumps(about)})
    return path.parent


def scanned(root: Path, into: Path, **options: Any) -> Manifest:
    given = {"columns": COLUMNS, "labels": {1: "real", 0: "fake"}, "split": "ff++"} | options
    return from_entries(parquet.scan(root, "ff", into=str(into), **given), into).validate()


def test_images_are_unpacked_unchanged_with_the_declared_labels(tmp_path: Path) -> None:
    root = published(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    table = scanned(tmp_path / "hub", tmp_path / "images").table
    assert set(table.select("video", "label", "split", "pair").rows()) == {
        ("ff/real/953", 0, "test", ""),
        ("ff/Deepfakes/953_974", 1, "test", "ff/real/953"),
        ("ff/real/071", 0, "train", ""),
        ("ff/FaceSwap/071_054", 1, "train", "ff/real/071"),
    }
    assert table.filter(video="ff/FaceSwap/071_054").sort("index")["index"].to_list() == [0, 1]
    stored = sorted((tmp_path / "images" / "00000").iterdir())
    assert [path.suffix for path in stored] == [".png", ".jpg", ".webp"] * 2 + [".png", ".jpg"]
    assert stored[1].read_bytes() == encoded(1, "JPEG")
    assert read_image(stored[2]).shape == (8, 8, 3)
    assert not list(root.glob("*.png"))


def test_images_are_unpacked_once_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    root = published(tmp_path / "hub" / "a.parquet")
    first = scanned(root, tmp_path / "images")
    kept = tmp_path / "images" / "00000" / "0000000.png"
    before = kept.stat().st_mtime_ns
    assert scanned(root, tmp_path / "images").table.equals(first.table)
    assert kept.stat().st_mtime_ns == before
    published(root / "b.parquet")
    with pytest.raises(InputError, match="something else than the images of these 2 parquet"):
        scanned(root, tmp_path / "images")
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=r"choose another folder with data\.source\.into"):
        scanned(root, tmp_path / "mine")


def test_a_row_without_an_image_leaves_nothing_behind(tmp_path: Path) -> None:
    images = [{"bytes": encoded(0), "path": "0.png"}] * 7 + [{"bytes": None, "path": "7.png"}]
    root = published(tmp_path / "hub" / "a.parquet", image=images)
    with pytest.raises(InputError, match=r"Row 8 of .*a\.parquet has no image inside"):
        scanned(root, tmp_path / "images")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_labels_must_be_declared_and_the_error_shows_how(tmp_path: Path) -> None:
    root = published(tmp_path / "hub" / "a.parquet", names=["fake", "REAL"])
    with pytest.raises(InputError, match=r"labels=\{0: fake, 1: real\}', as the file itself"):
        scanned(root, tmp_path / "images", labels=None)
    for labels, message in (
        ({1: "real"}, "does not say what 0 means"),
        ({1: "genuine", 0: "fake"}, "calls 1 genuine; a label is real or fake"),
        ({1: "fake", 0: "real"}, "calls 0 real, but .* itself calls it fake"),
    ):
        with pytest.raises(InputError, match=message):
            scanned(root, tmp_path / "images", labels=labels)
    assert not (tmp_path / "images").exists()


def test_files_that_name_the_values_of_a_label_differently_are_refused(tmp_path: Path) -> None:
    plain = {"image": "image", "label": "label"}
    root = published(tmp_path / "hub" / "test-00000-of-00001.parquet", names=["fake", "real"])
    published(root / "train-00000-of-00001.parquet", names=["real", "fake"])
    for labels in ({0: "fake", 1: "real"}, {0: "real", 1: "fake"}, None):
        with pytest.raises(InputError, match=r"test-.* value 0 .* fake, but .*train-.* it real"):
            scanned(root, tmp_path / "images", split=None, columns=plain, labels=labels)
    published(root / "train-00000-of-00001.parquet", names=["FAKE", "REAL"])
    assert scanned(root, tmp_path / "images", split=None, columns=plain).videos == 16


@pytest.mark.parametrize("names", [5, [[1]], {"a": 1}, None])
def test_names_of_another_kind_in_the_metadata_are_no_names(tmp_path: Path, names: Any) -> None:
    root = published(tmp_path / "hub" / "a.parquet")
    about = {"info": {"features": {"label": {"names": names}}}}
    table = pl.read_parquet(root / "a.parquet")
    table.write_parquet(root / "a.parquet", metadata={"huggingface": json.dumps(about)})
    assert scanned(root, tmp_path / "images").videos == 4


def test_an_inversion_is_refused_by_the_forgery_or_the_word(tmp_path: Path) -> None:
    root = published(tmp_path / "hub" / "a.parquet")
    turned = {1: "fake", 0: "real"}
    with pytest.raises(InputError, match=r"Row 1 of .* is fake .*its word is REAL"):
        scanned(root, tmp_path / "images", labels=turned)
    columns = COLUMNS | {"word": None}
    with pytest.raises(InputError, match=r"Row 1 of .* is fake .*its forgery is original"):
        scanned(root, tmp_path / "images", labels=turned, columns=columns)
    named = ["pristine" if name == "original" else name for name, _ in VIDEOS for _ in (0, 1)]
    root = published(tmp_path / "other" / "a.parquet", category=named)
    with pytest.raises(InputError, match=r"its forgery is pristine; .*data\.source\.real=\[prist"):
        scanned(root, tmp_path / "images")
    assert set(scanned(root, tmp_path / "images", real=["pristine"]).table["label"]) == {0, 1}


@pytest.mark.parametrize("index", ["x", float("nan"), float("inf"), 1.5, -1])
def test_an_index_that_is_no_whole_number_is_refused(tmp_path: Path, index: Any) -> None:
    root = published(tmp_path / "hub" / "a.parquet", frame_number=[index] * 8)
    with pytest.raises(InputError, match=rf"Row 1 of .* has the index {index}, which is no whole"):
        scanned(root, tmp_path / "images")


@pytest.mark.parametrize("index", [[0.0, 1.0] * 4, ["0", "1"] * 4])
def test_whole_numbers_of_another_type_are_indices(tmp_path: Path, index: list[Any]) -> None:
    root = published(tmp_path / "hub" / "a.parquet", frame_number=index)
    assert set(scanned(root, tmp_path / "images").table["index"]) == {0, 1}


@pytest.mark.parametrize("name", ["label", "video_id", "frame_number"])
def test_lists_where_single_values_are_needed_are_refused(tmp_path: Path, name: str) -> None:
    columns: dict[str, Any] = {name: [[1]] * 8}
    root = published(tmp_path / "hub" / "a.parquet", **columns)
    with pytest.raises(InputError, match=rf"The column {name} of .* holds List"):
        scanned(root, tmp_path / "images")


def test_damage_to_the_unpacked_images_is_told(tmp_path: Path) -> None:
    root, images = published(tmp_path / "hub" / "a.parquet"), tmp_path / "images"
    scanned(root, images)
    (images / "00000" / "0000003.png").unlink()
    with pytest.raises(InputError, match=r"lacks the image of row 4 of .*a\.parquet"):
        scanned(root, images)
    (images / "unpacked.json").write_bytes(b"[\xff")
    with pytest.raises(InputError, match="holds something else than the images"):
        scanned(root, images)


def test_the_slower_of_two_processes_takes_the_folder_of_the_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, images = published(tmp_path / "hub" / "a.parquet"), tmp_path / "images"
    abandoned, live = (tmp_path / f".images-{name}.unpacking" for name in ("dead", "live"))
    for place, age in ((abandoned, 2 * 86_400), (live, 60)):
        (place / "00000").mkdir(parents=True)
        for path in (place / "00000", place):
            os.utime(path, (time.time() - age, time.time() - age))
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        scanned(root, images)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    assert scanned(root, images).videos == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [live.name, "hub", "images"]


def test_labels_may_be_true_and_false(tmp_path: Path) -> None:
    fakes = [category != "original" for category, _ in VIDEOS for _ in (0, 1)]
    root = published(tmp_path / "hub" / "a.parquet", label=fakes)
    words = [
        *("data=parquet", f"data.root={root}", "data.source.into=unpacked"),
        *("data.source.labels={false: real, true: fake}", "data.source.split=test"),
        "data.source.columns.video=video_id",
    ]
    assert main(["index", *words, f"out={tmp_path / 'm.parquet'}"]) == 0
    table = read_manifest(tmp_path / "m.parquet", root).table
    assert table.sort("path")["label"].to_list() == [int(fake) for fake in fakes]


def test_images_without_videos_in_several_splits_are_told_once(tmp_path: Path) -> None:
    plain = {"image": "image", "label": "label"}
    for part in ("train", "test"):
        published(tmp_path / "hub" / f"{part}-00000-of-00001.parquet")
    for columns, count in ((plain, 1), (plain | {"video": "video_id"}, 0)):
        entries = parquet.scan(
            tmp_path / "hub", "ff", columns, {1: "real", 0: "fake"}, into=str(tmp_path / "images")
        )
        assert [str(e) for e in entries if isinstance(e, Problem)] == [
            "Without a column of videos, each image of ff is a video of its own, and frames of one "
            "video may lie in several splits unnoticed; declare data.source.columns.video=COLUMN "
            "if there is one."
        ] * count


def test_the_split_is_that_of_the_files_a_column_or_the_user(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "validation-00000-of-00001", "test-00000-of-00001-0a1b"):
        seeds = [{"bytes": encoded(len(name) * 100 + n), "path": None} for n in range(8)]
        published(tmp_path / "hub" / f"{name}.parquet", image=seeds)
    plain = {"image": "image", "label": "label"}
    table = scanned(tmp_path / "hub", tmp_path / "a", split=None, columns=plain).table
    assert table["split"].value_counts().sort("split").rows() == [
        ("test", 8),
        ("train", 8),
        ("val", 8),
    ]
    assert table["video"].n_unique() == 24
    assert set(table["domain"]) == {"real", "fake"}
    other = published(tmp_path / "one" / "a.parquet", part=["Validation", "TEST"] * 4)
    by_column = plain | {"split": "part"}
    table = scanned(other, tmp_path / "b", split=None, columns=by_column).table
    assert set(table["split"]) == {"val", "test"}
    with pytest.raises(InputError, match="is in no known split"):
        scanned(other, tmp_path / "c", split=None, columns=plain)
    with pytest.raises(InputError, match="no column for video: clip, but image, label"):
        scanned(other, tmp_path / "c", columns=plain | {"video": "clip"})


def test_a_pointer_of_git_lfs_in_place_of_a_file_is_called_so(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 59767360\n"
    (tmp_path / "train-00000-of-00001.parquet").write_text(pointer)
    with pytest.raises(InputError, match=r"no parquet file: it .*LFS"):
        scanned(tmp_path, tmp_path / "images")


def test_the_command_line_reads_it(tmp_path: Path) -> None:
    root, out = published(tmp_path / "hub" / "a.parquet"), tmp_path / "m.parquet"
    words = [
        "data=parquet",
        f"data.root={root}",
        "data.source.into=unpacked",
        "data.source.labels={1: real, 0: fake}",
        "data.source.split=test",
        "data.source.columns.forgery=category",
        "data.source.columns.video=video_id",
    ]
    assert main(["index", *words, f"out={out}"]) == 0
    manifest = read_manifest(out, root)
    assert manifest.videos == 4
    assert manifest.table["path"][0] == "unpacked/00000/0000000.png"
