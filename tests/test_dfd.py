"""DeepFakeDetection and FaceShifter: what FaceForensics++ distributes beside its four
manipulations.
"""

import json
from pathlib import Path

import polars as pl
import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Video
from fmsd.data.sources import deepfakebench, dfd
from fmsd.errors import InputError
from tests.conftest import write_image

REALS = ("01__outside_talking_still_laughing", "02__kitchen_pan")
FAKES = ("01_02__outside_talking_still_laughing__YVGY8LOK", "02_01__kitchen_pan__6TI5VHMZ")


def tree(root: Path, compression: str = "c23") -> Path:
    for folder, names in (
        ("original_sequences/actors", REALS),
        ("manipulated_sequences/DeepFakeDetection", FAKES),
    ):
        for name in names:
            file = root / folder / compression / "videos" / f"{name}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return root


def extract(root: Path, compression: str = "c23") -> Path:
    for file in sorted(root.rglob("*.mp4")):
        write_image(file.parents[1] / "frames" / file.stem / "000.png", 0, 8)
    (root / "manipulated_sequences/DeepFakeDetection/masks/videos").mkdir(parents=True)
    return root


def test_all_videos_are_test_videos_unless_another_split_is_asked_for(tmp_path: Path) -> None:
    root = tree(tmp_path)
    videos = [entry for entry in dfd.scan(root) if isinstance(entry, Video)]
    assert [(video.video, video.label, video.domain, video.split) for video in videos] == [
        *((f"dfd/real/c23/{name}", 0, "real", "test") for name in REALS),
        *((f"dfd/DeepFakeDetection/c23/{name}", 1, "DeepFakeDetection", "test") for name in FAKES),
    ]
    assert (
        videos[2].file
        == root / "manipulated_sequences/DeepFakeDetection/c23/videos" / f"{FAKES[0]}.mp4"
    )
    assert {entry.split for entry in dfd.scan(root, split="train") if isinstance(entry, Video)} == {
        "train"
    }


def test_masks_of_the_same_names_belong_to_the_fakes(tmp_path: Path) -> None:
    root = tree(tmp_path)
    masks = root / "manipulated_sequences/DeepFakeDetection/masks/videos"
    masks.mkdir(parents=True)
    (masks / f"{FAKES[1]}.mp4").touch()
    videos = [entry for entry in dfd.scan(root) if isinstance(entry, Video)]
    assert [video.mask for video in videos] == [None, None, None, masks / f"{FAKES[1]}.mp4"]


def test_held_out_videos_keep_together_what_shows_the_first_actor_but_not_the_second(
    tmp_path: Path,
) -> None:
    root = extract(tree(tmp_path))
    manifest = from_entries(dfd.scan(root, split="train"), root).validate()
    assert manifest.videos == 4
    split_of = dict(
        manifest.hold_out(0.5)
        .table.with_columns(name=pl.col("video").str.extract(r"([^/]+)$"))
        .select("name", "split")
        .rows()
    )
    assert set(split_of.values()) == {"train", "val"}
    for real, fake, other in zip(REALS, FAKES, reversed(REALS), strict=True):
        assert split_of[fake] == split_of[real] != split_of[other]


def test_a_copy_without_the_compression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"lacks .*original_sequences/actors/c40, .*DeepFakeDetection/c40; complete the copy",
    ):
        list(dfd.scan(tree(tmp_path), compression="c40"))


def test_the_benchmark_file_wins_over_the_tree(tmp_path: Path) -> None:
    root = extract(tree(tmp_path))
    frames = [f"original_sequences/actors/c23/frames/{REALS[0]}/000.png"]
    listed = {
        "train": {"c23": {}},
        "val": {"c23": {}},
        "test": {"c23": {REALS[0]: {"label": "DFD_real", "frames": frames}}},
    }
    (root / "DeepFakeDetection.json").write_text(
        json.dumps({"DeepFakeDetection": {"DFD_real": listed}})
    )
    entries = list(
        deepfakebench.scan_json_or_tree(root, "DeepFakeDetection.json", dfd.scan, "dfd", "c23")
    )
    assert [getattr(entry, "video", None) for entry in entries] == [f"dfd/real/c23/{REALS[0]}"]
    (root / "DeepFakeDetection.json").unlink()
    assert (
        len(
            list(
                deepfakebench.scan_json_or_tree(
                    root, "DeepFakeDetection.json", dfd.scan, "dfd", "c23"
                )
            )
        )
        == 4
    )
